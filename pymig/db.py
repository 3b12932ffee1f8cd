"""Connections, and calls of pymig's own routines. The only SQL made here is the call itself."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.wait import wait_base

from pymig import errors, logs

Row = dict[str, Any]
Connection = psycopg.Connection[Row]
T = TypeVar("T")

#: How long a lost connection is tried again before the command gives up, in seconds.
RECONNECT_SECONDS: Final = 300.0
_PAUSE: Final[wait_base] = wait_random_exponential(multiplier=0.1, max=5)


def connect(conninfo: str, role: str) -> Connection:
    """Open a connection in autocommit; role: what the server shows it as. Raises psycopg.Error."""
    # Server-side prepared statements stay off: a pooler in transaction mode may hand the next
    # statement to another backend.
    return psycopg.connect(
        conninfo,
        autocommit=True,
        row_factory=dict_row,
        prepare_threshold=None,
        application_name=f"pymig {role}",
        connect_timeout=10,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        # Keepalives are silent while something sent is not acknowledged: a network that goes away
        # in that moment would hold us for the kernel's quarter of an hour.
        tcp_user_timeout=25_000,
    )


def say_warning(notice: psycopg.errors.Diagnostic) -> None:
    """Print a warning of the database to stderr: it is for the person who typed the command."""
    if notice.severity_nonlocalized != "WARNING":
        return
    said = f"{notice.message_primary} {notice.message_hint or ''}".strip()
    if logs.is_json():
        logs.say(said, logging.WARNING)
    else:
        print(said, file=sys.stderr)


def worker_name() -> str:
    """The name a worker leaves its heartbeat under: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _arguments(params: dict[str, Any]) -> tuple[sql.Composable, list[Any]]:
    given = {k: v for k, v in params.items() if v is not None}
    pieces = [sql.SQL("{} => {}").format(sql.Identifier(k), sql.Placeholder()) for k in given]
    return sql.SQL(", ").join(pieces), [
        Jsonb(v) if isinstance(v, dict) else v for v in given.values()
    ]


def call(conn: Connection, procedure: str, **params: Any) -> None:
    """CALL pymig.<procedure>(name => value, …); None keeps a default."""
    names, values = _arguments(params)
    conn.execute(sql.SQL("CALL {}({})").format(sql.Identifier("pymig", procedure), names), values)


def select(conn: Connection, function: str, **params: Any) -> list[Row]:
    """SELECT * FROM pymig.<function>(name => value, …); None keeps a default."""
    names, values = _arguments(params)
    query = sql.SQL("SELECT * FROM {}({})").format(sql.Identifier("pymig", function), names)
    return conn.execute(query, values).fetchall()


def read(conn: Connection, relation: str) -> list[Row]:
    """SELECT * FROM pymig.<relation>: the views and tables people look at."""
    return conn.execute(
        sql.SQL("SELECT * FROM {}").format(sql.Identifier("pymig", relation))
    ).fetchall()


class Session:
    """One connection that is made anew when it is lost, until a stop is asked for.

    Every routine of pymig can be called again after a lost connection: what had committed is done,
    what had not is done again. A session that is not patient gives up where even its first
    connection fails, and prints warnings: whoever typed the command wants to know.
    """

    def __init__(
        self,
        conninfo: str,
        role: str,
        stop: threading.Event | None = None,
        *,
        patient: bool = True,
    ) -> None:
        self.conninfo: Final = conninfo
        self.role: Final = role
        self.stop: Final = stop or threading.Event()
        self._patient = patient
        self._prints: Final = not patient
        self._conn: Connection | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._conn is not None:
            self._conn.close()

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run work; reconnect with growing pauses where need be. Raises PymigError."""
        retrying = Retrying(
            retry=retry_if_exception(self._is_passing),
            wait=_PAUSE,
            stop=stop_after_delay(RECONNECT_SECONDS) | stop_when_event_set(self.stop),
            before_sleep=self._note_lost,
            reraise=True,
        )
        try:
            result: T = retrying(self._attempt, work)
            return result
        except psycopg.Error as error:
            raise errors.explain(error) from error

    def call(self, procedure: str, **params: Any) -> None:
        """CALL pymig.<procedure>; see db.call. Raises PymigError."""
        self.run(lambda conn: call(conn, procedure, **params))

    def select(self, function: str, **params: Any) -> list[Row]:
        """SELECT * FROM pymig.<function>(…); see db.select. Raises PymigError."""
        return self.run(lambda conn: select(conn, function, **params))

    def read(self, relation: str) -> list[Row]:
        """SELECT * FROM pymig.<relation>. Raises PymigError."""
        return self.run(lambda conn: read(conn, relation))

    def cancel(self) -> None:
        """Ask the server to cancel the statement that runs, from another thread."""
        if self._conn is not None and not self._conn.closed:
            self._conn.cancel_safe(timeout=5)

    def _attempt(self, work: Callable[[Connection], T]) -> T:
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = None
            self._conn = connect(self.conninfo, self.role)
            if self._prints:
                self._conn.add_notice_handler(say_warning)
            self._patient = True
        return work(self._conn)

    def _note_lost(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1 and isinstance(error, psycopg.Error):
            said = errors.explain(error).message
            logs.note(f"{self.role} tries again: {said}", logging.WARNING, role=self.role)

    def _is_passing(self, error: BaseException) -> bool:
        if not isinstance(error, psycopg.Error):
            return False
        if errors.is_lost_connection(error):
            return self._patient
        return error.sqlstate in errors.RETRYABLE
