"""T4: whatever dies, the same command run again completes and equals the oracle.

Each kill starts from a rolled-back fleet, hits `pymig migrate` (with its worker processes and an
application that goes on writing) at a random moment, and is followed by one undisturbed run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pymig.server import Cluster
from tests.oracle import default_narrow, difference

SHIPS = ("imo9000001", "imo9000002")
TABLE = "tenant.tbl_data_timeseries"
NARROW = default_narrow()
CLIENT_KILLS = 20
SERVER_STOPS = 5
RUN_SECONDS = 120

CREATE = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text, data_channel_id text, created_time timestamp,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time,
    bool_v, str_v, long_v, double_v, value_format)
SELECT s, 'main/' || c, '2024-01-01'::timestamp + t * interval '5 minutes',
    CASE c % 4 WHEN 0 THEN t % 2 = 0 END, CASE c % 4 WHEN 1 THEN 'v' || t END,
    CASE c % 4 WHEN 2 THEN t END, CASE c % 4 WHEN 3 THEN t / 7.0 END,
    (ARRAY['Boolean', 'String', 'Integer', 'Decimal'])[c % 4 + 1]
FROM unnest('{imo9000001,imo9000002}'::text[]) s, generate_series(1, 60) c,
    generate_series(1, 300) t;
ANALYZE tenant.tbl_data_timeseries;
"""
WRITE = """
INSERT INTO tenant.tbl_data_timeseries AS t (ship_id, data_channel_id, created_time, double_v,
    value_format)
SELECT %(ship)s, 'main/' || c, %(time)s, %(value)s, 'Decimal'
FROM generate_series(%(channel)s, %(channel)s + 10) c
ON CONFLICT (ship_id, data_channel_id, created_time)
    DO UPDATE SET bool_v = NULL, str_v = NULL, long_v = NULL,
        double_v = excluded.double_v, value_format = 'Decimal'
"""
DELETE = (
    "DELETE FROM tenant.tbl_data_timeseries WHERE ship_id = %(ship)s AND created_time = %(time)s"
)


@dataclass(frozen=True)
class Fleet:
    """A server of this test's own with a database to migrate."""

    cluster: Cluster
    rng: random.Random
    calm_seconds: float = 0.0
    """How long an undisturbed run takes from its first connection on."""

    @property
    def url(self) -> str:
        """Where the fleet is."""
        return self.cluster.url("fleet")

    def connect(self) -> psycopg.Connection[Any]:
        """A new autocommit connection."""
        return psycopg.connect(self.url, autocommit=True)

    def pymig(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the CLI, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", "from pymig.cli import main; main()", *arguments],
            env={**os.environ, "DATABASE_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def complete(self, *arguments: str) -> None:
        """Run a command to its end; it must succeed."""
        finish(self.pymig(*arguments))

    def migrate(self) -> subprocess.Popen[str]:
        """Start the migration of the whole fleet; its imports are not what we want to kill."""
        process = self.pymig("migrate", "--ship", "all", "--workers", "2")
        self._wait_for_connection(process)
        return process

    def _wait_for_connection(self, process: subprocess.Popen[str]) -> None:
        end = time.monotonic() + 20
        with self.connect() as conn:
            while process.poll() is None and time.monotonic() < end:
                row = conn.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pymig%'"
                    " AND datname = current_database()"
                ).fetchone()
                if row and row[0]:
                    return
                time.sleep(0.005)
        process.kill()
        said, _ = process.communicate()
        pytest.fail(f"pymig migrate never connected with a name that begins with pymig:\n{said}")

    def roll_back(self) -> None:
        """Undo the migration of every ship."""
        with self.connect() as conn:
            for ship in SHIPS:
                conn.execute("CALL pymig.roll_back(%s)", [ship])

    def assert_equal(self) -> None:
        """Every ship verified, nothing pending, equal to the oracle."""
        with self.connect() as conn:
            end = time.monotonic() + 30
            while conn.execute("SELECT count(*) FROM pymig.pending").fetchone() != (0,):
                assert time.monotonic() < end, "keys stay pending"
                conn.execute("CALL pymig.sync_pending()")
            states = dict(
                conn.execute("SELECT entity::text, state::text FROM pymig.entity").fetchall()
            )
            assert states == dict.fromkeys(SHIPS, "verified")
            assert difference(conn, NARROW, set(SHIPS)) == []


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a command, which must succeed; show what it said if not."""
    try:
        said, _ = process.communicate(timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"pymig hangs after {RUN_SECONDS} s:\n{said}")
    assert process.returncode == 0, said


def is_server_down(error: Exception) -> bool:
    """Whether this is what any application gets from a crash."""
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))
    )


@contextmanager
def writing(fleet: Fleet) -> Iterator[None]:
    """An application that inserts, corrects and deletes; it outlives the server's crashes."""
    stop, errors = threading.Event(), []
    rng = random.Random(fleet.rng.random())

    def write() -> None:
        while not stop.is_set():
            try:
                with fleet.connect() as conn:
                    while not stop.wait(0.01):
                        minutes = rng.randrange(300) * 5
                        params = {
                            "ship": rng.choice(SHIPS),
                            "time": f"2024-01-0{minutes // 1440 + 1} {minutes // 60 % 24:02d}:"
                            f"{minutes % 60:02d}:{rng.choice([0, 0, 1]):02d}",
                            "channel": rng.randint(1, 50),
                            "value": rng.random(),
                        }
                        conn.execute(DELETE if rng.random() < 0.1 else WRITE, params)
            except Exception as error:
                if not is_server_down(error):
                    errors.append(error)
                    return
                stop.wait(0.05)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not errors, errors
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def fleet(server_folder: Path, cluster: Cluster) -> Iterator[Fleet]:
    """Two ships, 36,000 rows, small buckets and so many chunks."""
    from pymig.install import install

    own = Cluster(server_folder / "kill", fast=True, binaries=cluster.binaries)
    own.start()
    try:
        with psycopg.connect(own.url(), autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE DATABASE fleet"))
        fleet = Fleet(own, random.Random(4))
        with fleet.connect() as conn:
            conn.execute(CREATE)
        install(fleet.url)
        process = fleet.migrate()
        start = time.monotonic()
        finish(process)
        fleet = replace(fleet, calm_seconds=time.monotonic() - start)
        fleet.assert_equal()
        yield fleet
    finally:
        own.remove()


@pytest.mark.slow
@pytest.mark.repetition
@pytest.mark.parametrize("number", range(CLIENT_KILLS))
def test_killed_client(fleet: Fleet, number: int) -> None:
    """SIGKILL of the migration, with all its workers, at a random moment."""
    fleet.roll_back()
    with writing(fleet):
        process = fleet.migrate()
        time.sleep(fleet.rng.random() * fleet.calm_seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        fleet.complete("migrate", "--ship", "all")
    fleet.assert_equal()


@pytest.mark.slow
@pytest.mark.repetition
@pytest.mark.parametrize("number", range(SERVER_STOPS))
def test_crashed_server(fleet: Fleet, number: int) -> None:
    """A crash of the server: the command reconnects and completes, and so does the next one."""
    fleet.roll_back()
    with writing(fleet):
        process = fleet.migrate()
        time.sleep(fleet.rng.random() * fleet.calm_seconds)
        fleet.cluster.stop("immediate")
        time.sleep(fleet.rng.random() * 0.5)
        fleet.cluster.start()
        finish(process)
        fleet.complete("migrate", "--ship", "all")
    fleet.assert_equal()
