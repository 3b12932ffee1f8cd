"""T9: what ingest notices while pymig arms and uninstalls behind a long SELECT and a long writer.

CREATE TRIGGER waits for writers, DROP TRIGGER for readers too, and whatever comes after them waits
behind: so both are tried for a moment only, again and again, until the long ones have ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from pymig import install

SHIP = "imo9000001"
CREATE = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text, data_channel_id text, created_time timestamp,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
INSERT INTO tenant.tbl_data_timeseries
    (ship_id, data_channel_id, created_time, double_v, value_format)
SELECT 'imo9000001', 'c' || c, '2024-01-01'::timestamp + t * interval '1 minute', t, 'Decimal'
FROM generate_series(1, 5) c, generate_series(1, 60) t
"""
INSERT = """
INSERT INTO tenant.tbl_data_timeseries
    (ship_id, data_channel_id, created_time, double_v, value_format)
VALUES ('imo9000001', %s, '2024-01-02'::timestamp + %s * interval '1 second', 1, 'Decimal')
"""
TRIGGERS = """
SELECT count(*) FROM pg_trigger t
WHERE t.tgrelid = 'tenant.tbl_data_timeseries'::regclass AND t.tgname LIKE 'pymig%'
"""


@dataclass(frozen=True)
class Waits:
    """What one of them cost: the longest statement of ingest, in seconds, and how many it did."""

    longest: float
    statements: int
    took: float
    """From its call to its end; the long sessions lasted `held` of it."""
    held: float

    def __str__(self) -> str:
        return (
            f"done by itself after {self.took:.1f} s ({self.held:.1f} s of them held up); ingest:"
            f" {self.statements} statements, the longest {1000 * self.longest:.0f} ms"
        )


def arm(url: str) -> None:
    """Begin to sync the ship: creates the triggers."""
    with psycopg.connect(url, autocommit=True, application_name="pymig arming") as conn:
        conn.execute("CALL pymig.start_sync(%s)", [SHIP])


def disarm(url: str) -> None:
    """Uninstall pymig: drops them."""
    install.uninstall(url)


def triggers(url: str) -> int:
    """How many triggers of pymig's the narrow table has."""
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(TRIGGERS).fetchone()
    assert row
    return int(row[0])


def measure(url: str, work: Callable[[str], None], seconds: float) -> Waits:
    """Do the work while a SELECT and a writer hold the narrow table for so many seconds."""
    stop, taken = threading.Event(), []
    errors: list[BaseException] = []

    def ingest() -> None:
        with psycopg.connect(url, autocommit=True, application_name="ingest") as conn:
            tick = int(time.time() * 1000) % 10**8
            while not stop.wait(0.005):
                tick += 1
                began = time.monotonic()
                conn.execute(INSERT, ["ingest", tick])
                taken.append(time.monotonic() - began)

    def guarded() -> None:
        try:
            ingest()
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    with _held(url, seconds) as holders:
        thread.start()
        began = time.monotonic()
        work(url)
        took = time.monotonic() - began
        still = any(holder.is_alive() for holder in holders)
    stop.set()
    thread.join(60)
    if errors:
        raise errors[0]
    assert not still, "done while the table was held: nothing was measured"
    return Waits(max(taken), len(taken), took, seconds)


@contextmanager
def _held(url: str, seconds: float) -> Iterator[list[threading.Thread]]:
    """A SELECT that runs so long, and a transaction that has written and goes on for so long."""
    began = threading.Barrier(3)

    def select() -> None:
        with psycopg.connect(url) as conn:
            conn.execute("SELECT FROM tenant.tbl_data_timeseries LIMIT 1")
            began.wait()
            conn.execute(
                "SELECT pg_sleep(%s) FROM (SELECT FROM tenant.tbl_data_timeseries LIMIT 1) n",
                [seconds],
            )

    def write() -> None:
        with psycopg.connect(url) as conn:
            conn.execute(INSERT, ["long", int(time.time()) % 10**8])
            began.wait()
            conn.execute("SELECT pg_sleep(%s)", [seconds])

    holders = [threading.Thread(target=t, daemon=True) for t in (select, write)]
    for holder in holders:
        holder.start()
    began.wait(30)
    try:
        yield holders
    finally:
        for holder in holders:
            holder.join(seconds + 60)


def both(url: str, seconds: float) -> dict[str, Waits]:
    """Arm, then uninstall, both under long sessions; raises where either left something undone."""
    found = {"arming": measure(url, arm, seconds)}
    assert triggers(url) > 0
    found["uninstalling"] = measure(url, disarm, seconds)
    assert triggers(url) == 0
    return found
