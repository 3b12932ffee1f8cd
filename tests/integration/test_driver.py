"""`pymig migrate` as a process: stopped, reconnected, doubled, measured; and psql without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql

from pymig.install import install
from pymig.server import Cluster
from tests.oracle import default_narrow, difference

pytestmark = pytest.mark.slow

SHIPS: Final = tuple(f"imo900000{n}" for n in range(1, 5))
MEGABYTES: Final = 120
RUN_SECONDS: Final = 90
PYMIG: Final = (sys.executable, "-c", "from pymig.cli import main; main()")
# ru_maxrss starts with what the parent had when it forked, so a small one has to do it.
MEASURE: Final = """
import os, sys
child = os.posix_spawn(sys.executable, sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print("peak", usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""

CREATE: Final = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text, data_channel_id text, created_time timestamp,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50));
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time,
    bool_v, str_v, long_v, double_v, value_format)
SELECT s, 'main/' || c, '2024-01-01'::timestamp + t * interval '5 minutes',
    CASE c % 4 WHEN 0 THEN t % 2 = 0 END, CASE c % 4 WHEN 1 THEN 'v' || t END,
    CASE c % 4 WHEN 2 THEN t END, CASE c % 4 WHEN 3 THEN t / 7.0 END,
    (ARRAY['Boolean', 'String', 'Integer', 'Decimal'])[c % 4 + 1]
FROM generate_series(1, {times}) t, unnest('{ships}'::text[]) s, generate_series(1, 50) c;
ALTER TABLE tenant.tbl_data_timeseries ADD PRIMARY KEY (ship_id, data_channel_id, created_time);
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
ANALYZE tenant.tbl_data_timeseries;
"""


@dataclass(frozen=True)
class Fleet:
    """A database with four ships, of a server that may be restarted."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        """Where it is."""
        return self.cluster.url(self.name)

    def connect(self) -> psycopg.Connection[Any]:
        """A new autocommit connection."""
        return psycopg.connect(self.url, autocommit=True)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a program, which finds the database in its environment."""
        return subprocess.Popen(
            arguments,
            env={**os.environ, "DATABASE_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def migrate(self) -> subprocess.Popen[str]:
        """Start `pymig migrate --ship all`."""
        return self.start(*PYMIG, "migrate", "--ship", "all", "--workers", "2")

    def wait_for_chunk(self, process: subprocess.Popen[str]) -> None:
        """Wait until the first chunk of the first ship is moved; three ships are left then."""
        end = time.monotonic() + RUN_SECONDS
        with self.connect() as conn:
            while not self._moved(conn):
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < end
                time.sleep(0.005)

    def _moved(self, conn: psycopg.Connection[Any]) -> bool:
        moved = "SELECT EXISTS (SELECT FROM pymig.chunk AS c WHERE c.state = 'done')"
        return conn.execute(moved).fetchone() == (True,)

    def assert_equal(self) -> None:
        """Every ship verified and equal to the oracle."""
        with self.connect() as conn:
            assert self.states() == dict.fromkeys(SHIPS, "verified")
            assert difference(conn, default_narrow(), set(SHIPS)) == []

    def states(self) -> dict[str, str]:
        """State by ship."""
        with self.connect() as conn:
            rows = conn.execute("SELECT e.entity, e.state FROM pymig.entity AS e")
            return {str(entity): str(state) for entity, state in rows}


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a process to end with this exit code; what it said."""
    try:
        said, _ = process.communicate(timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"hangs after {RUN_SECONDS} s:\n{process.communicate()[0]}")
    assert "Traceback" not in said, said
    assert process.returncode == code, said
    return said


@pytest.fixture(scope="module")
def server(server_folder: Path, cluster: Cluster) -> Iterator[Cluster]:
    """A server of these tests' own, with two databases to clone."""
    own = Cluster(server_folder / "driver", fast=True, binaries=cluster.binaries)
    own.start()
    try:
        for name, times in (("small", 360), ("big", 1500)):
            execute(own, "CREATE DATABASE {}", name)
            with psycopg.connect(own.url(name), autocommit=True) as conn:
                script = CREATE.replace("{times}", str(times))
                conn.execute(script.replace("{ships}", f"{{{','.join(SHIPS)}}}").encode())
            install(own.url(name))
        yield own
    finally:
        own.remove()


@pytest.fixture(scope="module")
def names() -> Iterator[str]:
    """Never the same twice."""
    return (f"fleet_{n}" for n in count(1))


@pytest.fixture
def fleet(server: Cluster, names: Iterator[str]) -> Iterator[Fleet]:
    """72,000 rows."""
    yield from clone(server, next(names), "small")


@pytest.fixture
def big_fleet(server: Cluster, names: Iterator[str]) -> Iterator[Fleet]:
    """300,000 rows."""
    yield from clone(server, next(names), "big")


def clone(server: Cluster, name: str, template: str) -> Iterator[Fleet]:
    """A copy of a database, for one test."""
    # Not wal_log: a sequence copied that way goes back when the server crashes before its next
    # checkpoint, as nothing in the log tells how far its last reservation reached.
    execute(server, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)
    try:
        yield Fleet(server, name)
    finally:
        execute(server, "DROP DATABASE {} WITH (FORCE)", name)


def execute(server: Cluster, statement: LiteralString, *names: str) -> None:
    """Run a statement with these names in it."""
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_continued(fleet: Fleet, number: signal.Signals) -> None:
    """Ctrl-C finishes the chunks that run and says how to go on; the same command does."""
    process = fleet.migrate()
    fleet.wait_for_chunk(process)
    process.send_signal(number)
    said = end(process, 130)
    assert "Stopping after the current chunks" in said
    assert "The same command goes on" in said
    # The first ship may be verified before the signal arrives; not all four.
    assert set(fleet.states().values()) != {"verified"}
    with fleet.connect() as conn:
        running = "SELECT count(*) FROM pymig.chunk AS c WHERE c.state = 'running'"
        assert conn.execute(running).fetchone() == (0,)
    end(fleet.migrate())
    fleet.assert_equal()


def test_second_ctrl_c_ends_at_once(fleet: Fleet) -> None:
    """Whoever is in a hurry presses it twice; nothing is lost."""
    process = fleet.migrate()
    fleet.wait_for_chunk(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=RUN_SECONDS)
    assert process.returncode in (130, -signal.SIGINT)
    end(fleet.migrate())
    fleet.assert_equal()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_server_restart_is_survived(fleet: Fleet, mode: Any) -> None:
    """The same process reconnects and completes."""
    process = fleet.migrate()
    fleet.wait_for_chunk(process)
    fleet.cluster.restart(mode)
    assert process.poll() is None, process.communicate()[0]
    assert "verified after" in end(process)
    fleet.assert_equal()


def test_two_processes_at_once(fleet: Fleet) -> None:
    """From several machines, if one likes: both complete."""
    processes = [fleet.migrate() for _ in range(2)]
    for process in processes:
        end(process)
    fleet.assert_equal()


@pytest.mark.once
def test_peak_memory(big_fleet: Fleet) -> None:
    """What is read stays in the database."""
    command = (*PYMIG, "migrate", "--ship", "all", "--workers", "4")
    said = end(big_fleet.start(sys.executable, "-c", MEASURE, *command))
    assert int(said.rpartition("peak ")[2]) < MEGABYTES * 1024
    assert big_fleet.states() == dict.fromkeys(SHIPS, "verified")


def test_psql_alone(fleet: Fleet) -> None:
    """Nothing but CALLs, while rows change."""
    ship = SHIPS[0]
    with fleet.connect() as conn:
        for name in SHIPS[1:]:
            conn.execute("CALL pymig.migrate(%s)", [name])
        conn.execute("CALL pymig.start_sync(%s)", [ship])
        change = (
            "UPDATE tenant.tbl_data_timeseries SET str_v = 'corrected' WHERE value_format ="
            " 'String' AND created_time < '2024-01-01 02:00'",
            "DELETE FROM tenant.tbl_data_timeseries WHERE created_time = '2024-01-01 03:00'",
            "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time,"
            " long_v, value_format) VALUES ('imo9000001', 'new', '2024-03-01', 1, 'Integer')",
        )
        for statement in change:
            conn.execute(statement.encode())
        conn.execute("CALL pymig.backfill(%s)", [ship])
        conn.execute("CALL pymig.sync_pending()")
        for name in SHIPS:
            conn.execute("CALL pymig.verify(%s)", [name])
        fleet.assert_equal()
        for name in SHIPS:
            conn.execute("CALL pymig.roll_back(%s)", [name])
        assert set(fleet.states().values()) == {"rolled_back"}
        left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'tbl\\_data\\_timeseries\\_imo%'"
        assert conn.execute(left).fetchone() == (0,)
