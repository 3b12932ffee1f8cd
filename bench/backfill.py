"""The backfill suite: floors, pymig and the other tools in turn, repeated, outputs compared."""

import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.peers import PEERS, Job
from bench.server import connect, execute, render, tidy

VIEW = "tenant.tbl_data_timeseries_ship1"
FORMATS = {"Decimal": "double_v", "Integer": "long_v", "String": "str_v", "Boolean": "bool_v"}
NATIVE = {"Decimal": "float8", "Integer": "int8", "String": "text", "Boolean": "bool"}
ONCE = {
    "filter",
    "case",
    "pymig filter",
    "executemany",
    "upserts",
}  # slower than the rest: one repetition says enough
STRATEGIES = ("auto", "transpose", "json", "crosstab", "filter")
PYMIG = [sys.executable, "-c", "from pymig.cli import main; main()"]


@dataclass
class Figures:
    """Seconds of every repetition by name, digests of all that was written, drivers' memory, bytes
    of WAL of what wrote in SQL alone, dead tuples for each live one of the wide tables."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    digests: dict[str, list[str]] = field(default_factory=dict)
    driver_peak_mb: dict[str, float] = field(default_factory=dict)
    wal_bytes: dict[str, list[int]] = field(default_factory=dict)
    dead_per_live: list[float] = field(default_factory=list)

    @property
    def differing(self) -> list[str]:
        """Outputs that were not equal to the first one, in whichever repetition."""
        right = self.digests["pymig auto"][0]
        return [name for name, found in self.digests.items() if set(found) != {right}]


def job_of(url: str, ship: str, types: str) -> Job:
    """The channels of a ship with their column types."""
    cast = "::text" if types == "text" else ""
    text = " ".join(f"WHEN '{f}' THEN n.{c}::text" for f, c in FORMATS.items())
    cells = {
        t: f"CASE n.value_format WHEN '{f}' THEN n.{FORMATS[f]}{cast} END"
        for f, t in NATIVE.items()
    }
    cells["text"] = f"CASE n.value_format {text} END"
    with connect(url) as connection:
        found = connection.execute(render("channels", ship=ship)).fetchall()
    channels = [{"channel": c, "type": "text" if types == "text" else NATIVE[f]} for c, f in found]
    return Job(url, ship, types, channels, cells)


def run(url: str, types: str, repeats: int, say: Callable[[str], None]) -> Figures:
    """Everything in turn and in a new order, `repeats` times; the floors in three places of it."""
    job = job_of(url, "SHIP1", types)
    figures = Figures()
    order = random.Random(1)
    _pymig(job, Figures(), "", "auto", workers=1)  # the write floor copies what it leaves
    for n in range(repeats):
        turns = _turns(job, figures, first=n == 0)
        order.shuffle(turns)
        floors: list[float] = []
        for i, turn in enumerate(turns):
            if i % math.ceil(len(turns) / 3) == 0:
                floors.append(read_floor(job))
            turn()
        _note(figures, "read floor", statistics.median(floors))
        say(f"{types}: repetition {n + 1} of {repeats}")
    _drivers(job, figures)
    return figures


def _turns(job: Job, figures: Figures, *, first: bool) -> list[Callable[[], None]]:
    """What a repetition measures; the slowest only in the first one."""
    turns: list[Callable[[], None]] = [
        partial(_pymig, job, figures, f"pymig {strategy}", strategy, workers=1)
        for strategy in STRATEGIES
        if first or f"pymig {strategy}" not in ONCE
    ]
    turns.append(partial(_pymig, job, figures, "pymig auto, 2 workers", "auto", workers=2))
    turns.append(partial(_read_in_parallel, job, figures))
    turns.append(partial(_write_floor, job, figures))
    turns += [partial(_peer, job, figures, p) for p in PEERS if first or p not in ONCE]
    return turns


def _note(figures: Figures, name: str, seconds: float) -> None:
    figures.seconds.setdefault(name, []).append(seconds)


def read_floor(job: Job, *, parallel: bool = False) -> float:
    """Seconds to scan the ship's rows, cast each value to text, count; the second time."""
    with connect(job.url, parallel=parallel) as connection:
        connection.execute("SET jit = off")
        query = job.sql("read_floor")
        connection.execute(query)
        started = time.perf_counter()
        connection.execute(query)
        return time.perf_counter() - started


def _read_in_parallel(job: Job, figures: Figures) -> None:
    _note(figures, "read floor, parallel workers", read_floor(job, parallel=True))


def _pymig(job: Job, figures: Figures, name: str, strategy: str, workers: int) -> None:
    seconds, wal = migrate(job, strategy, workers)
    _note(figures, name, seconds)
    figures.wal_bytes.setdefault(name, []).append(wal)
    _compare(job, figures, name, VIEW)
    if strategy == "auto" and workers == 1:
        with connect(job.url) as connection:
            row = connection.execute(job.sql("dead_tuples")).fetchone()
            assert row
            figures.dead_per_live.append(float(row[0]))
            started = time.perf_counter()
            connection.execute(job.sql("pymig", call="verify", strategy=strategy))
            _note(figures, "pymig verify", time.perf_counter() - started)


def migrate(job: Job, strategy: str, workers: int) -> tuple[float, int]:
    """Start the ship anew; seconds and bytes of WAL of its chunk loop in so many sessions."""

    def call(what: str) -> str:
        return job.sql("pymig", call=what, strategy=strategy, workers=workers)

    with connect(job.url) as connection:
        connection.execute(call("roll_back"))
        connection.execute(call("start_sync"))
    tidy(job.url)
    wal = wal_position(job.url)
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        step = call("backfill_chunk")
        movers = [pool.submit(move_chunks, job.url, step) for _ in range(workers)]
    # Who comes back first has seen the end; the others are about to look again.
    ended = min(mover.result() for mover in movers)  # raises what was raised there
    return ended - started, wal_position(job.url) - wal


def wal_position(url: str) -> int:
    """Bytes of WAL the server has ever written."""
    with connect(url) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row
    return int(row[0])


def move_chunks(url: str, step: str) -> float:
    """What each of pymig's connections does: chunk after chunk. When it was done; raises where
    one failed."""
    with connect(url) as connection:
        while True:
            row = connection.execute(step).fetchone()
            assert row, "backfill_chunk returned nothing"
            if row[0] == "failed":
                raise RuntimeError("A chunk failed for good; see pymig.chunk.")
            if row[0] == "done":
                return time.perf_counter()
            if row[0] in ("wait", "retry"):
                time.sleep(0.01)


def _write_floor(job: Job, figures: Figures) -> None:
    """INSERT … SELECT of the finished wide rows into an empty table with its key."""
    with connect(job.url) as connection:
        for name, key in (("finished", False), ("write_floor", True)):
            execute(connection, job.sql("wide_table", name=name, key=key))
        connection.execute(job.sql("write_floor", name="finished", table=VIEW))
        copy = job.sql("write_floor", name="write_floor", table="bench.wide_finished")
        tidy(job.url)
        wal = wal_position(job.url)
        started = time.perf_counter()
        connection.execute(copy)
        _note(figures, "write floor", time.perf_counter() - started)
        figures.wal_bytes.setdefault("write floor", []).append(wal_position(job.url) - wal)
    _compare(job, figures, "write floor", "bench.wide_write_floor")


def _peer(job: Job, figures: Figures, name: str) -> None:
    with connect(job.url) as connection:
        execute(connection, job.sql("wide_table", name=name, key=True))
    tidy(job.url)
    started = time.perf_counter()
    PEERS[name](job)
    _note(figures, name, time.perf_counter() - started)
    _compare(job, figures, name, f"bench.wide_{name}")


def _compare(job: Job, figures: Figures, name: str, table: str) -> None:
    with connect(job.url) as connection:
        row = connection.execute(job.sql("digest", table=table)).fetchone()
    figures.digests.setdefault(name, []).append(str(row[0]) if row else "")


def _drivers(job: Job, figures: Figures) -> None:
    """Whole commands in fresh processes: one ship with one worker, then all ships with two."""
    for name, ship, workers in (
        ("pymig migrate, the whole command", job.ship, 1),
        ("pymig migrate, all ships, 2 workers", "all", 2),
    ):
        driver(job.url, ["rollback", "--ship", "all"])
        tidy(job.url)
        options = ["--ship", ship, "--workers", str(workers), "--column-types", job.types]
        peak, seconds = driver(job.url, ["migrate", *options])
        figures.driver_peak_mb[name] = peak
        _note(figures, name, seconds)
        _compare(job, figures, name, VIEW)


def driver(url: str, command: list[str]) -> tuple[float, float]:
    """Peak memory in MB and seconds of a pymig command."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("peak.py")), *PYMIG, *command],
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"pymig {' '.join(command)} failed: {done.stdout}{done.stderr}")
    kilobytes, seconds = done.stdout.splitlines()[-1].split()
    return int(kilobytes) / 1024, float(seconds)
