"""How long a committed row takes into the wide table, and what ingest notices, at a steady rate.

Four phases in turn, repeated: without pymig; with sync; with sync while another ship is migrated,
over and over; without pymig, while one session reads that ship, over and over: what ingest notices
of any that keeps a core busy. pgbench ingests a second of a ship a statement, at the rate asked
for. An independent probe commits a row and polls the wide table for it; a sampler looks for
sessions of ingest that wait for a lock of pymig's.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count

import psycopg

from bench.backfill import job_of
from bench.load import APPLICATION, Load, Run, Worker, beside, ingest, quantile
from bench.server import connect, execute, render
from bench.sync import SHIPS, prepare

CONTROL, SYNC, WORST = "without pymig", "sync", "sync, another ship back-filled"
BUSY = "without pymig, another ship read"
PHASES = (CONTROL, SYNC, WORST, BUSY)
HISTORY = "SHIP5"
_PROBE_PAUSE, _POLL, _SAMPLE = 0.1, 0.005, 0.02  # seconds
_GIVEN_UP = 30.0
# With a short history, tables of 1,000 columns made and dropped would be most of what is noticed.
_COPIES = 39
_POLLS = 25  # of a probe where nothing is to come: as many as it takes with sync

Figures = dict[str, dict[str, float]]


def run(
    url: str,
    channels: int,
    types: str,
    rate: int,
    seconds: int,
    repeats: int,
    say: Callable[[str], None],
) -> Figures:
    """The figures of each phase over all repetitions."""
    prepare(url, 4, channels, types, SHIPS)
    with connect(url) as connection:
        row = connection.execute(render("sync_names")).fetchone()
        assert row
        connection.execute(render("sync_triggers", on=False))
        execute(connection, render("lag_history", ship=HISTORY, copies=_COPIES))
        connection.execute(render("sync_triggers", on=True))
    load = Load("steady", render("pgbench_batch", ships=1, seconds=1), channels, clients=4)
    runs: dict[str, list[Run]] = defaultdict(list)
    lags: dict[str, list[float]] = defaultdict(list)
    waits: dict[str, list[float]] = defaultdict(list)
    ticks = count()
    with Worker(url) as worker:
        for n in range(repeats):
            for phase in PHASES[:: 1 if n % 2 == 0 else -1]:
                is_on = phase in (SYNC, WORST)
                with connect(url) as connection:
                    connection.execute(render("sync_triggers", on=is_on))
                    with (
                        worker.working() if is_on else nullcontext(),
                        beside(_probe, url, row[0], ticks, lags[phase] if is_on else None),
                        beside(sample_waits, url, waits[phase]),
                        beside(_migrate, url, types) if phase == WORST else nullcontext(),
                        beside(_read, url) if phase == BUSY else nullcontext(),
                    ):
                        runs[phase] += ingest(url, load, rate=rate / channels, seconds=seconds)
                    connection.execute(render("sync_triggers", on=True))
                    execute(connection, render("sync_clean"))
            say(f"lag: repetition {n + 1} of {repeats}")
    total = seconds * repeats
    return {p: _figures(runs[p], lags[p], waits[p], channels, total) for p in PHASES}


def _figures(
    runs: list[Run], lags: list[float], waits: list[float], rows: int, seconds: float
) -> dict[str, float]:
    took = [run.took for run in runs]
    return {
        "rows": len(runs) * rows / seconds,
        "probes": len(lags),
        "lag_p50": quantile(lags, 0.5),
        "lag_p99": quantile(lags, 0.99),
        "lag_max": max(lags, default=0.0),
        "ingest_p50": quantile(took, 0.5),
        "ingest_p99": quantile(took, 0.99),
        "ingest_max": max(took, default=0.0),
        "late_p99": quantile([run.late for run in runs], 0.99),
        "lock_wait": max(waits, default=0.0),
    }


def _probe(
    stop: threading.Event, url: str, channel: str, ticks: Iterator[int], lags: list[float] | None
) -> None:
    """Commit a row, poll for it; a lag is at most a poll too long. The same load without lags."""
    write, look = render("lag_probe", write=True), render("lag_probe", write=False)
    with connect(url) as connection:
        while not stop.wait(_PROBE_PAUSE):
            tick = next(ticks)
            connection.execute(write, [channel, tick])
            began = time.perf_counter()
            for n in count(1):
                found = connection.execute(look, [tick]).fetchone() != (0,)
                if found if lags is not None else n == _POLLS:
                    break
                if time.perf_counter() - began > _GIVEN_UP:
                    raise RuntimeError(f"a row was not in the wide table after {_GIVEN_UP} s")
                time.sleep(_POLL)
            if lags is not None:
                lags.append(time.perf_counter() - began)


def sample_waits(stop: threading.Event, url: str, waits: list[float]) -> None:
    """Note, many times a second, how long ingest has waited for a lock of pymig's."""
    query = render("lag_waits")
    with connect(url) as connection:
        while not stop.wait(_SAMPLE):
            row = connection.execute(query, [APPLICATION]).fetchone()
            waits.append(row[0] if row else 0.0)


def _read(stop: threading.Event, url: str) -> None:
    """Read the ship with the long history as a backfill has to, and again."""
    with connect(url) as connection:
        statement = job_of(url, HISTORY, "text").sql("read_floor")
        while not stop.is_set():
            connection.execute(statement)


def _migrate(stop: threading.Event, url: str, types: str) -> None:
    """Migrate the ship with the long history, and again."""

    def call(what: str) -> str:
        return render("pymig", call=what, ship=HISTORY, types=types, strategy="auto")

    with psycopg.connect(url, autocommit=True, application_name="pymig bench") as connection:
        while not stop.is_set():
            connection.execute(call("start_sync"))
            while not stop.is_set():
                row = connection.execute(call("backfill_chunk")).fetchone()
                assert row and row[0] != "failed"
                if row[0] == "done":
                    break
            connection.execute(call("roll_back"))
