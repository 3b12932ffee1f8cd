"""Ingest time with pymig's trigger, without one, and with a plain trigger that upserts per row."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any

from bench.backfill import PYMIG, job_of
from bench.peers import Job
from bench.server import connect, execute, render, tidy

LOADS = (
    "16,000-row batch",
    "4,000-row batch",
    "1,000 single rows, one transaction",
    "1,000 single rows, autocommit",
)
NONE, QUEUE, BESIDE = "no trigger", "pymig", "pymig, its worker beside"
PLAIN, DRAIN = "plain per-row upsert", "pymig: recompute afterwards"
START = datetime(2027, 1, 1)  # after all history: deleted again after each figure

Seconds = dict[str, dict[str, list[float]]]


def run(url: str, repeats: int, say: Callable[[str], None]) -> Seconds:
    """Each load under each trigger, in turn; every other repetition in reverse."""
    job = job_of(url, "SHIP1", "text")
    taken: Seconds = {load: {} for load in LOADS}
    with connect(url) as connection:
        connection.execute("SET synchronous_commit = off")
        execute(connection, job.sql("wide_table", name="trigger", key=True))
        execute(connection, render("plain_trigger"))
        for n in range(repeats):
            for load in LOADS:
                for name in (NONE, QUEUE, BESIDE, PLAIN)[:: 1 if n % 2 == 0 else -1]:
                    _figure(connection, job, load, name, taken[load])
            say(f"sync: repetition {n + 1} of {repeats}")
    return taken


def _figure(connection: Any, job: Job, load: str, name: str, taken: dict[str, list[float]]) -> None:
    def pymig(call: str) -> str:
        return job.sql("pymig", call=call, strategy="auto")

    before, after = {
        NONE: ("", ""),
        PLAIN: (render("trigger_on"), render("trigger_off")),
    }.get(name, (pymig("start_sync"), pymig("roll_back")))
    if before:
        connection.execute(before)
    tidy(job.url)
    with _worker(job.url) if name == BESIDE else nullcontext():
        started = time.perf_counter()
        _ingest(connection, [c["channel"] for c in job.channels], load)
        taken.setdefault(name, []).append(time.perf_counter() - started)
    if name == QUEUE:
        started = time.perf_counter()
        connection.execute(pymig("sync_pending"))
        taken.setdefault(DRAIN, []).append(time.perf_counter() - started)
    if after:
        connection.execute(after)
    execute(connection, render("clean_ingest", start=START))


@contextmanager
def _worker(url: str) -> Iterator[None]:
    """`pymig worker` in a process of its own, given the time to start."""
    worker = subprocess.Popen(
        [*PYMIG, "worker"],
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(2)
        assert worker.poll() is None, "pymig worker ended"
        yield
    finally:
        worker.terminate()
        worker.wait()


def _ingest(connection: Any, channels: list[str], load: str) -> None:
    batch = render("batch")
    if load.endswith("batch"):
        rows = int(load.split("-")[0].replace(",", ""))
        connection.execute(batch, [channels, max(1, rows // len(channels)), START])
        return
    with connection.transaction() if load.endswith("transaction") else nullcontext():
        for i in range(1000):
            at = START + timedelta(seconds=i // len(channels))
            connection.execute(batch, [[channels[i % len(channels)]], 1, at])
