"""How the console meets the database: as itself to read, as whoever logged in to control."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from pymig import db, errors
from pymig.errors import PrivilegeError, UsageError

T = TypeVar("T")

_CONTROL_SECONDS: Final = 15.0


class Reader:
    """Read-only transactions, on connections that are kept for the next one. For many threads."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo: Final = conninfo
        self._idle: Final[queue.LifoQueue[db.Connection]] = queue.LifoQueue()

    def run(self, work: Callable[[db.Connection], T]) -> T:
        """Run work in a read-only transaction. Raises PymigError.

        A connection that was lost while it was idle is made anew; a server that is away is said to
        be so at once.
        """
        while True:
            conn, is_new = self._take()
            try:
                with conn.transaction():
                    conn.execute("SET LOCAL statement_timeout = '10s'")
                    return work(conn)
            except psycopg.Error as error:
                if is_new or not errors.is_lost_connection(error):
                    raise errors.explain(error) from error
            finally:
                self._give(conn)

    def select(self, function: str, **params: Any) -> list[db.Row]:
        """SELECT * FROM pymig.<function>(…); see db.select. Raises PymigError."""
        return self.run(lambda conn: db.select(conn, function, **params))

    def read(self, relation: str) -> list[db.Row]:
        """SELECT * FROM pymig.<relation>. Raises PymigError."""
        return self.run(lambda conn: db.read(conn, relation))

    def close(self) -> None:
        """Close the idle connections."""
        while not self._idle.empty():
            self._idle.get().close()

    def _take(self) -> tuple[db.Connection, bool]:
        try:
            return self._idle.get_nowait(), False
        except queue.Empty:
            pass
        try:
            conn = db.connect(self._conninfo, "console")
        except psycopg.Error as error:
            raise errors.explain(error) from error
        conn.read_only = True
        return conn, True

    def _give(self, conn: db.Connection) -> None:
        if conn.closed or conn.broken:
            conn.close()
        else:
            self._idle.put(conn)


def connect_as(conninfo: str, role: str, password: str) -> db.Connection:
    """A connection of a role to the console's database, which has asked for its password.

    Raises UsageError, PrivilegeError, ServerError.
    """
    # Without one, libpq would take another from the environment; NUL would end what it reads.
    if not role or not password or "\0" in role + password:
        raise UsageError("A name and a password are needed.", "Those of a role of PostgreSQL.")
    try:
        conn = db.connect(make_conninfo(conninfo, user=role, password=password), "console")
    except psycopg.Error as error:
        raise errors.explain(error) from error
    if not conn.pgconn.used_password:
        conn.close()
        raise PrivilegeError(
            "The server lets this role in without a password, so it proves nothing.",
            "Have pg_hba.conf ask for one (scram-sha-256) where the console connects from.",
        )
    return conn


def call_as(conninfo: str, role: str, password: str, procedure: str, **params: Any) -> None:
    """CALL pymig.<procedure> as a role, which takes 15 seconds at most. Raises PymigError."""
    with connect_as(conninfo, role, password) as conn:
        timer = threading.Timer(_CONTROL_SECONDS, conn.cancel_safe)
        timer.start()
        try:
            db.call(conn, procedure, **params)
        except psycopg.Error as error:
            raise errors.explain(error) from error
        finally:
            timer.cancel()
