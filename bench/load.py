"""Ingest by pgbench: its scripts, its processes, its logs. Python only starts it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.server import connect, render
from pymig.server import find_binaries

# The narrow insert is planned once, as in an application that prepared it long ago.
SESSION = "-c synchronous_commit=off -c plan_cache_mode=force_generic_plan -c jit=off"
APPLICATION = "ingest"


@dataclass(frozen=True)
class Load:
    """One way to ingest: how many rows a run of its script writes, by how many clients."""

    name: str
    script: str
    rows: int
    clients: int = 1
    runs: int = 10
    """How often each client runs the script in a turn; the first one warms up and isn't counted."""


def loads(channels: int) -> tuple[Load, ...]:
    """What the tables show: batches of a minute, and single rows in three ways."""

    def single(rows: int) -> str:
        return render("pgbench_single", rows=rows, channels=channels)

    cores = os.cpu_count() or 2
    return (
        Load(
            f"{16 * channels:,}-row batch",
            render("pgbench_batch", ships=4, seconds=4),
            16 * channels,
            runs=6,
        ),
        Load(
            f"{4 * channels:,}-row batch",
            render("pgbench_batch", ships=1, seconds=4),
            4 * channels,
            runs=20,
        ),
        Load("200 single rows in one transaction", single(200), 200, runs=40),
        Load("single rows, autocommit", single(1), 1, runs=6000),
        Load(f"single rows, {2 * cores} clients on {cores} cores", single(1), 1, 2 * cores, 6000),
    )


@dataclass(frozen=True)
class Run:
    """One line of pgbench's log; seconds, from the epoch where it is a point in time."""

    client: int
    ended: float
    took: float
    late: float
    """How long after its scheduled time it began, where a rate was asked for."""


def ingest(
    url: str, load: Load, *, runs: int | None = None, rate: float = 0, seconds: float = 0
) -> list[Run]:
    """Run the load to its end: so many runs a client, or so many seconds at a rate of runs."""
    with tempfile.TemporaryDirectory(prefix="pymig-load-") as folder:
        script = Path(folder) / "script.sql"
        script.write_text(load.script + "\n")
        much = ["-T", str(int(seconds))] if seconds else ["-t", str(runs or load.runs)]
        threads = min(load.clients, os.cpu_count() or 1)
        command: list[str | Path] = [
            find_binaries().bindir / "pgbench",
            *("-n", "-M", "prepared", "-D", "n=0", "-f", script),
            *("-c", str(load.clients), "-j", str(threads), *much),
            *(["-R", str(rate)] if rate else []),
            *("-l", f"--log-prefix={folder}/log"),
            url,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "PGOPTIONS": SESSION, "PGAPPNAME": APPLICATION},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or "aborted" in done.stderr:
            raise RuntimeError(f"pgbench failed: {done.stderr.strip()}")
        return sorted(_read(Path(folder)), key=lambda run: run.ended)


def _read(folder: Path) -> Iterator[Run]:
    # client, number, microseconds, script, end in seconds, and its microseconds[, lag]
    for log in folder.glob("log.*"):
        for line in log.read_text().splitlines():
            client, _, took, _, second, micro, *lag = line.split()
            late = int(lag[0]) / 1e6 if lag else 0.0
            yield Run(int(client), int(second) + int(micro) / 1e6, int(took) / 1e6 - late, late)


def seconds_per_run(runs: Sequence[Run]) -> float:
    """Of all clients together, each one's first run left out."""
    rate = 0.0
    for client in {run.client for run in runs}:
        ends = sorted(run.ended for run in runs if run.client == client)
        rate += (len(ends) - 1) / (ends[-1] - ends[0])
    return 1 / rate


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so great a share of them doesn't exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Worker:
    """`pymig worker` in a process of its own; it stands still outside `working`."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from pymig.cli import main; main()", "worker"],
            env={**os.environ, "DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._url = url

    def __enter__(self) -> "Worker":
        with connect(self._url) as connection:
            while not connection.execute(render("sync_alive")).fetchone():
                if self._process.poll() is not None:
                    raise RuntimeError("pymig worker ended")
                time.sleep(0.05)
        self._process.send_signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @contextmanager
    def working(self) -> Iterator[None]:
        """The worker works; a pass that has begun when it is stopped still ends on the server."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)
            if self._process.poll() is not None:
                raise RuntimeError("pymig worker ended")


@contextmanager
def beside(work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Work in a thread until the block ends; what it raises is raised here."""
    stop, errors = threading.Event(), []

    def act() -> None:
        try:
            work(stop, *arguments)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]
