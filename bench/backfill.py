"""The backfill suite: floors, pymig and the other tools in turn, repeated, outputs compared."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers import PEERS, Job
from bench.server import connect, render

VIEW = "tenant.tbl_data_timeseries_ship1"
FORMATS = {"Decimal": "double_v", "Integer": "long_v", "String": "str_v", "Boolean": "bool_v"}
NATIVE = {"Decimal": "float8", "Integer": "int8", "String": "text", "Boolean": "bool"}
ONCE = {"filter", "pymig filter"}  # many times slower than the rest: one repetition says enough


@dataclass
class Figures:
    """Seconds of every repetition by name, and digests of what was written."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    driver_peak_mb: float = 0.0


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
    """Everything in turn, `repeats` times."""
    job = job_of(url, "SHIP1", types)
    figures = Figures()
    for n in range(repeats):
        _floors(job, figures)
        for strategy in ("auto", "transpose", "json", "crosstab", "filter"):
            if n == 0 or f"pymig {strategy}" not in ONCE:
                _pymig(job, figures, f"pymig {strategy}", strategy, workers=1)
        _pymig(job, figures, "pymig auto, 2 workers", "auto", workers=2)
        _write_floor(job, figures)
        for name in PEERS:
            if n == 0 or name not in ONCE:
                _peer(job, figures, name, check=n == 0)
        say(f"{types}: repetition {n + 1} of {repeats}")
    figures.driver_peak_mb = _driver_peak(job)
    return figures


def _note(figures: Figures, name: str, started: float) -> None:
    figures.seconds.setdefault(name, []).append(time.perf_counter() - started)


def _floors(job: Job, figures: Figures) -> None:
    with connect(job.url) as connection:
        query = job.sql("read_floor", cell=job.cells["text"])
        connection.execute(query)  # warm for both
        started = time.perf_counter()
        connection.execute(query)
        _note(figures, "read floor", started)
        for setting in ("enable_seqscan", "enable_bitmapscan"):
            connection.execute(f"SET {setting} = off")
        started = time.perf_counter()
        connection.execute(query)
        _note(figures, "read through the key", started)


def _pymig(job: Job, figures: Figures, name: str, strategy: str, workers: int) -> None:
    def call(what: str) -> str:
        return job.sql("pymig", call=what, strategy=strategy)

    with connect(job.url) as connection:
        connection.execute(call("roll_back"))
        connection.execute(call("start_sync"))
        started = time.perf_counter()
        threads = [
            threading.Thread(target=_chunks, args=(job.url, call("backfill_chunk")))
            for _ in range(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _note(figures, name, started)
        if name not in figures.digests:
            figures.digests[name] = _digest(job, VIEW)
        if strategy == "auto" and workers == 1:
            started = time.perf_counter()
            connection.execute(call("verify"))
            _note(figures, "pymig verify", started)


def _chunks(url: str, call: str) -> None:
    with connect(url) as connection:
        while True:
            row = connection.execute(call).fetchone()
            assert row, "backfill_chunk returned nothing"
            if row[0] == "failed":
                raise RuntimeError("a chunk failed")
            if row[0] == "done":
                return
            if row[0] in ("wait", "retry"):
                time.sleep(0.01)


def _write_floor(job: Job, figures: Figures) -> None:
    """INSERT … SELECT of the finished wide rows: of the view, from a plain copy of it."""
    with connect(job.url) as connection:
        for name, key in (("finished", False), ("write_floor", True)):
            connection.execute(f"DROP TABLE IF EXISTS bench.wide_{name}")
            connection.execute(job.sql("wide_table", name=f"wide_{name}", key=key))
        insert = "INSERT INTO bench.wide_{} ({}) SELECT {} FROM {}"
        connection.execute(insert.format("finished", job.columns, job.columns, VIEW))
        started = time.perf_counter()
        source = "bench.wide_finished"
        connection.execute(insert.format("write_floor", job.columns, job.columns, source))
        _note(figures, "write floor", started)


def _peer(job: Job, figures: Figures, name: str, check: bool) -> None:
    with connect(job.url) as connection:
        connection.execute(f"DROP TABLE IF EXISTS bench.wide_{name}")
        connection.execute(job.sql("wide_table", name=f"wide_{name}", key=True))
        started = time.perf_counter()
        PEERS[name](job)
        _note(figures, name, started)
        if check:
            figures.digests[name] = _digest(job, f"bench.wide_{name}")


def _digest(job: Job, table: str) -> str:
    with connect(job.url) as connection:
        row = connection.execute(job.sql("digest", table=table)).fetchone()
        return str(row[0]) if row else ""


def _driver_peak(job: Job) -> float:
    """Peak memory of a process that only drives pymig: this module's loop, in a fresh process."""
    with connect(job.url) as connection:
        connection.execute(job.sql("pymig", call="roll_back"))
        connection.execute(job.sql("pymig", call="start_sync", strategy="auto"))
    done = subprocess.run(
        [sys.executable, "-m", "bench", "drive"],
        input=job.url,
        text=True,
        capture_output=True,
        check=True,
    )
    return float(done.stdout)


def drive() -> None:
    """The body of that process: reads the URL, prints its peak in MB."""
    _chunks(sys.stdin.read(), render("pymig", call="backfill_chunk", ship="SHIP1"))
    # VmHWM is this program's own; getrusage's peak also counts the parent's before exec.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)
