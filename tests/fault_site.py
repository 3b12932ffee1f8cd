"""What tests/faults.py can hit: server, proxy, disk, pymig's commands, applications."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from pymig.install import install
from pymig.server import Cluster
from tests.proxy import Proxy

SHIPS = ("imo9000001", "imo9000002", "imo9000003")
TABLE = "tenant.tbl_data_timeseries"
CHANNELS, TIMES = 24, 200

CREATE = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text, data_channel_id text, created_time timestamp,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
"""
HISTORY = """
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time,
    bool_v, str_v, long_v, double_v, value_format)
SELECT s, 'main/' || c, '2024-01-01'::timestamp + t * interval '5 minutes',
    CASE c %% 4 WHEN 0 THEN t %% 2 = 0 END, CASE c %% 4 WHEN 1 THEN 'v' || t END,
    CASE c %% 4 WHEN 2 THEN t END, CASE c %% 4 WHEN 3 THEN t / 7.0 END,
    (ARRAY['Boolean', 'String', 'Integer', 'Decimal'])[c %% 4 + 1]
FROM unnest(%s::text[]) s, generate_series(1, %s) c, generate_series(1, %s) t
"""
WRITE = """
INSERT INTO tenant.tbl_data_timeseries AS t
    (ship_id, data_channel_id, created_time, double_v, value_format)
VALUES (%s, %s, '2024-01-01'::timestamp + %s * interval '5 minutes', %s, 'Decimal')
ON CONFLICT (ship_id, data_channel_id, created_time) DO UPDATE SET double_v = excluded.double_v
"""
DELETE = """
DELETE FROM tenant.tbl_data_timeseries WHERE ship_id = %s AND data_channel_id = %s
    AND created_time = '2024-01-01'::timestamp + %s * interval '5 minutes'
"""
READ_BACK = """
SELECT ship_id, data_channel_id,
    (extract(epoch FROM created_time - '2024-01-01'::timestamp) / 300)::int, double_v
FROM tenant.tbl_data_timeseries WHERE data_channel_id LIKE %s
"""
Key = tuple[str, str, int]


class FaultError(AssertionError):
    """Something was lost, or did not recover."""


def is_lost(error: BaseException) -> bool:
    """Whether this is what any application gets when its server or network goes away."""
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))
    )


class Application(threading.Thread):
    """Writes cells of its own, one committed statement after another, and remembers each.

    Every statement leaves the same whether it runs once or twice, so that one that was cut off is
    retried and what stands in the table is known all the same.
    """

    def __init__(self, url: str, name: str, rng: random.Random) -> None:
        super().__init__(name=name, daemon=True)
        self.url, self.rng = url, rng
        self.committed: dict[Key, float | None] = {}
        self.errors: list[str] = []
        self.cut: tuple[Key, float | None] | None = None
        """The statement that is under way, or was when the connection was lost."""
        self.lost = 0
        self.statements = 0
        self.slowest = 0.0
        """Of the statements that were not cut off, in seconds; set it to 0 to begin anew."""
        self.stopping = threading.Event()
        self.going = threading.Event()
        self.resting = threading.Event()
        self.going.set()

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as conn:
                    self._session(conn)
            except Exception as error:
                if not is_lost(error):
                    self.errors.append(f"{self.name}: {error!r}")
                    return
                self.lost += 1
                self.stopping.wait(0.05)

    def _session(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute("SET application_name = 'application'")
        while not self.stopping.wait(0.005):
            if self.cut is None:
                if not self.going.is_set():
                    self.resting.set()
                    self.going.wait(0.1)
                    continue
                key = (
                    self.rng.choice(SHIPS),
                    f"{self.name}/{self.rng.randrange(12)}",
                    self.rng.randrange(TIMES + 12),
                )
                self.cut = key, None if self.rng.random() < 0.1 else self.rng.random()
            self._write(conn, *self.cut)
            self.cut = None

    def _write(self, conn: psycopg.Connection[Any], key: Key, value: float | None) -> None:
        began = time.monotonic()
        if value is None:
            conn.execute(DELETE, key)
        else:
            conn.execute(WRITE, [*key, value])
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.committed[key] = value
        self.statements += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it finish its statement and rest."""
        self.resting.clear()
        self.going.clear()
        if not self.resting.wait(30) and self.is_alive():
            raise FaultError(f"{self.name} hangs in a statement")
        try:
            yield
        finally:
            self.going.set()

    def lost_rows(self, conn: psycopg.Connection[Any]) -> list[str]:
        """What the narrow table should have and has not, or the other way round."""
        rows = conn.execute(READ_BACK, [f"{self.name}/%"]).fetchall()
        there = {(ship, channel, at): value for ship, channel, at, value in rows}
        known = {key: value for key, value in self.committed.items() if value is not None}
        return [
            f"{self.name} {key}: {there.get(key)} in the table, {known.get(key)} committed"
            for key in there.keys() | known.keys()
            if there.get(key) != known.get(key)
        ]


class Supervised(threading.Thread):
    """A command of pymig's, started again after a pause until it ends well, or for ever."""

    PAUSE = 0.3

    def __init__(self, url: str, *command: str) -> None:
        super().__init__(name=f"pymig {command[0]}", daemon=True)
        self.command = command
        self.url = url
        self.finished = False
        self.failures: list[str] = []
        self._over = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        while not self._over.is_set():
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from pymig.cli import main; main()", *self.command],
                env={**os.environ, "DATABASE_URL": self.url},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            said, _ = self._process.communicate()
            if self._process.returncode == 0:
                self.finished = True
                return
            self.failures.append(f"exit {self._process.returncode}: {said.strip()[-300:]}")
            self._over.wait(self.PAUSE)

    def kill(self) -> bool:
        """SIGKILL it; the supervisor starts it again."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return True

    def end(self) -> None:
        """Kill it for good."""
        self._over.set()
        while self.ident and self.is_alive():
            self.kill()
            self.join(0.1)


@dataclass
class Site:
    """Everything a fault can hit."""

    cluster: Cluster
    proxy: Proxy
    rng: random.Random
    hold: float
    """How long a fault that lasts does, in seconds; the shorter ones half of it and less."""
    disk: Path | None
    worker: Supervised
    applications: list[Application]
    migration: Supervised
    calm_seconds: float = 1.0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        """The database, not through the proxy."""
        return self.cluster.url("fleet")

    @property
    def proxied(self) -> str:
        """The database as pymig reaches it."""
        return self.url.replace(f":{self.cluster.port}/", f":{self.proxy.port}/")

    def connect(self) -> psycopg.Connection[Any]:
        """An autocommit connection that no fault but a crash concerns."""
        return psycopg.connect(self.url, autocommit=True, application_name="faults")

    def span(self) -> float:
        """How long this fault lasts."""
        return self.hold * self.rng.uniform(0.5, 1.0)


@contextmanager
def small_disk(folder: Path, cluster: Cluster) -> Iterator[Path | None]:
    """A file system of 16 MB for a tablespace; None where this user can't mount one."""
    if os.geteuid() != 0:
        yield None
        return
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0755", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        space = disk / "space"
        space.mkdir(mode=0o700)
        if cluster.account:
            os.chown(space, cluster.account.uid, cluster.account.gid)
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


@contextmanager
def site(folder: Path, seed: int, hold: float, cluster: Cluster | None = None) -> Iterator[Site]:
    """A server with a fleet on it, the proxy, the worker and two applications."""
    rng = random.Random(seed)
    with ExitStack() as stack:
        # The server's folder must be closed before the file system below its tables goes away.
        own = cluster or Cluster(folder / "s", fast=True)
        disk = stack.enter_context(small_disk(folder, own))
        stack.callback(own.remove)
        own.start()
        with psycopg.connect(own.url(), autocommit=True) as conn:
            conn.execute("CREATE DATABASE fleet")
            if disk:
                conn.execute(
                    sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(disk / "space"))
                )
        proxy = stack.enter_context(Proxy(own.port))
        applications = [
            Application(own.url("fleet"), "near", random.Random(rng.random())),
            Application(
                own.url("fleet").replace(f":{own.port}/", f":{proxy.port}/"),
                "far",
                random.Random(rng.random()),
            ),
        ]
        nothing = Supervised("", "nothing")
        found = Site(own, proxy, rng, hold, disk, nothing, applications, nothing)
        with found.connect() as conn:
            conn.execute(CREATE)
            conn.execute(HISTORY, [list(SHIPS), CHANNELS, TIMES])
            conn.execute("ANALYZE tenant.tbl_data_timeseries")
        install(found.url)
        if disk:
            with found.connect() as conn:
                conn.execute("ALTER DATABASE fleet SET default_tablespace = 'small'")
        found.worker = Supervised(found.proxied, "worker")
        found.worker.start()
        stack.callback(found.worker.end)
        for application in applications:
            application.start()
        try:
            yield found
        finally:
            found.migration.end()
            for application in applications:
                application.stopping.set()
                application.join(10)
