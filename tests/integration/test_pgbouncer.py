"""Everything through a real PgBouncer in transaction mode, with far more clients than servers.

Each statement may meet another backend: whatever pymig left in a session would be somebody else's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from pymig.migrate import Options, migrate_ships, verify_ships
from pymig.server import SUPERUSER, Cluster
from pymig.worker import keep_in_sync
from tests.conftest import Database
from tests.integration.test_worker import until
from tests.oracle import difference
from tests.races.interleave import Stage

BOUNCER: Final = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = pytest.mark.skipif(not BOUNCER, reason="pgbouncer is not installed")

POOL: Final = 3
WORKERS: Final = 20
WRITERS: Final = 4
SHIPS: Final = ("x", "y", "z")
INI: Final = """
[databases]
* = host=127.0.0.1 port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 200
server_reset_query_always = 0
"""


@pytest.fixture(scope="module")
def bouncer(server_folder: Path, cluster: Cluster) -> Iterator[int]:
    """The port of a PgBouncer before the tests' server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    folder = server_folder / "bouncer"
    folder.mkdir()
    ini = folder / "pgbouncer.ini"
    ini.write_text(
        INI.format(
            port=cluster.port, user=SUPERUSER, password=cluster.password, own_port=port, pool=POOL
        )
    )
    command = [str(BOUNCER), str(ini)]
    if os.geteuid() == 0:  # it refuses to be root, and this file holds a password
        account = pwd.getpwnam("postgres")
        os.chown(ini, account.pw_uid, account.pw_gid)
        command[1:1] = ["-u", account.pw_name]
    ini.chmod(0o600)
    log = (folder / "log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(answers)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        log.close()


class Ingest(threading.Thread):
    """A writer through the pool: it counts what goes wrong, and retries nothing."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        self.url, self.number = url, number
        self.stop = threading.Event()
        self.rows = 0
        self.errors: list[str] = []

    def run(self) -> None:
        """One transaction after the other, each with two statements."""
        with psycopg.connect(self.url, autocommit=True, prepare_threshold=None) as conn:
            while not self.stop.is_set():
                ship = SHIPS[self.rows % len(SHIPS)]
                row = (ship, f"c{self.number}", f"{self.rows} min", self.rows)
                try:
                    with conn.transaction():
                        conn.execute(
                            "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id,"
                            " created_time, long_v, value_format) VALUES (%s, %s,"
                            " '2024-05-01'::timestamp + %s::interval, %s, 'Integer')",
                            row,
                        )
                        conn.execute(
                            "UPDATE tenant.tbl_data_timeseries SET long_v = long_v + 1 WHERE"
                            " ship_id = %s AND data_channel_id = %s"
                            " AND created_time = '2024-05-01'::timestamp + %s::interval",
                            row[:3],
                        )
                except psycopg.Error as error:
                    self.errors.append(str(error))
                self.rows += 1
                self.stop.wait(0.01)


def test_all_of_it_with_many_clients(db: Database, bouncer: int) -> None:
    """Migrate, 20 workers and ingest at once on 3 server connections; verify; roll back."""
    s = Stage(db)
    _history(s)
    url = f"postgresql://{SUPERUSER}@127.0.0.1:{bouncer}/{db.name}"
    stop = threading.Event()
    failed: list[Exception] = []

    def work(number: int) -> None:
        try:
            keep_in_sync(url, stop, name=f"worker {number}")
        except Exception as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(WORKERS)]
    writers = [Ingest(url, number) for number in range(WRITERS)]
    for thread in (*workers, *writers):
        thread.start()
    try:
        report = migrate_ships(url, "all", options=Options(workers=2))
        assert not report.failed
        alive = "SELECT count(*) FROM pymig.worker AS w WHERE w.worker LIKE 'worker %%'"
        until(lambda: s.main.value(alive) == WORKERS)
        assert not verify_ships(url, SHIPS, source=None).failed
        assert _backends(s) <= POOL
    finally:
        for writer in writers:
            writer.stop.set()
        stop.set()
        for thread in (*workers, *writers):
            thread.join(20)
    assert not any(thread.is_alive() for thread in (*workers, *writers))
    assert failed == []
    assert [error for writer in writers for error in writer.errors] == []
    assert min(writer.rows for writer in writers) > 10
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as pooled:
        pooled.execute("CALL pymig.sync_pending()")
        assert difference(s.main.conn, s.narrow, set(SHIPS)) == []
        assert _left_in_sessions(s) == []
        for ship in SHIPS:
            pooled.execute("CALL pymig.roll_back(%s)", [ship])
    states = s.main.run("SELECT DISTINCT e.state FROM pymig.entity AS e")
    assert states == [("rolled_back",)]


def test_a_client_with_prepared_statements_fails_here(db: Database, bouncer: int) -> None:
    """The control: statements of one client do meet backends that don't know what it prepared."""
    url = f"postgresql://{SUPERUSER}@127.0.0.1:{bouncer}/{db.name}"
    errors: list[psycopg.Error] = []
    with (
        psycopg.connect(url, autocommit=True, prepare_threshold=0) as one,
        psycopg.connect(url, autocommit=True, prepare_threshold=None) as other,
    ):
        one.execute("SELECT %s::int", [1])
        with other.transaction():
            other.execute("SELECT 1")  # has the backend that one was served by
            try:
                one.execute("SELECT %s::int", [2])
            except psycopg.Error as error:
                errors.append(error)
    assert [error.sqlstate for error in errors] == ["26000"]


def test_a_cancel_reaches_the_right_backend(db: Database, bouncer: int) -> None:
    """Ctrl-C is a cancel request, which PgBouncer passes on: who waits ends at once."""
    s = Stage(db)
    s.insert("x", "a", "2024-03-02 10:00:00", 1)
    url = f"postgresql://{SUPERUSER}@127.0.0.1:{bouncer}/{db.name}"
    holder = s.session("holder")
    holder.begin()
    holder.run("LOCK TABLE tenant.tbl_data_timeseries IN ROW EXCLUSIVE MODE")  # arming waits for it
    stop = threading.Event()
    ended: list[BaseException] = []

    def migrate() -> None:
        try:
            migrate_ships(url, "x", stop=stop)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=migrate, daemon=True)
    thread.start()
    waiting = "SELECT count(*) FROM pymig.entity AS e WHERE e.state = 'planned'"
    until(lambda: s.main.value(waiting) == 1)
    began = time.monotonic()
    stop.set()
    thread.join(15)
    assert not thread.is_alive()
    assert time.monotonic() - began < 10
    assert [type(error).__name__ for error in ended] == ["InterruptedByUser"]
    holder.run("ROLLBACK")
    assert not migrate_ships(url, "x").failed


def _history(s: Stage) -> None:
    for ship in SHIPS:
        for hour in range(24):
            for channel in "ab":
                s.insert(ship, channel, f"2024-03-02 {hour:02d}:00:00", hour)


def _backends(s: Stage) -> int:
    return int(
        s.main.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND application_name NOT IN ('main', 'holder')"
        )
    )


def _left_in_sessions(s: Stage) -> list[Any]:
    """Locks and temporary tables that outlive their transaction."""
    return s.main.run(
        "SELECT l.locktype, l.pid FROM pg_locks AS l WHERE l.locktype = 'advisory'"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " UNION ALL SELECT c.relname, 0 FROM pg_class AS c WHERE c.relpersistence = 't'"
    )
