"""Figures over time: a sample every five seconds, kept in memory for six hours.

What it was before the console started, and what it is without one, Prometheus knows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from pymig import db
from pymig.console.database import Reader
from pymig.errors import PymigError

EVERY: Final = 5.0  # seconds
KEPT: Final = 6 * 3600  # seconds
_COUNTERS: Final = ("rows_done", "problems", "wal_bytes")
_GAUGES: Final = ("rows_done", "pending", "quarantined", "failed_chunks", "database_bytes")
_DURATIONS: Final = ("sync_lag", "sync_lag_p99")


@dataclass(frozen=True)
class Sample:
    """What was measured at a time (seconds since 1970); rates are since the sample before.

    Figures that could not be read are missing. cpu, memory and disk are of the console's machine.
    """

    at: float
    figures: dict[str, float]


class Sampler:
    """Takes samples in a thread of its own until it is stopped."""

    def __init__(self, reader: Reader) -> None:
        self._reader: Final = reader
        self._samples: Final[deque[Sample]] = deque(maxlen=int(KEPT / EVERY))
        self._stopping: Final = threading.Event()
        self._before: tuple[float, db.Row] | None = None
        self._thread: Final = threading.Thread(target=self._run, name="pymig sampler", daemon=True)

    def start(self) -> None:
        """Begin; a sample is taken at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def samples(self, seconds: float) -> Sequence[Sample]:
        """Those of the last seconds, oldest first."""
        since = time.time() - seconds
        return [sample for sample in tuple(self._samples) if sample.at >= since]

    def take(self) -> None:
        """Take one sample."""
        figures = _of_machine()
        now = time.time()
        try:
            row = self._reader.select("figures")[0]
        except PymigError:
            self._before = None
        else:
            figures |= _of_database(row)
            if self._before:
                figures |= _rates(row, self._before[1], now - self._before[0])
            self._before = now, row
        self._samples.append(Sample(now, figures))

    def _run(self) -> None:
        psutil.cpu_percent()  # the first call measures nothing
        while not self._stopping.wait(EVERY if self._samples else 0.1):
            self.take()


def _of_machine() -> dict[str, float]:
    return {
        "cpu": psutil.cpu_percent(),
        "memory": psutil.virtual_memory().percent,
        "disk": psutil.disk_usage("/").percent,
    }


def _of_database(row: db.Row) -> dict[str, float]:
    found = {name: float(row[name]) for name in _GAUGES if row[name] is not None}
    return found | {name: row[name].total_seconds() for name in _DURATIONS if row[name] is not None}


def _rates(row: db.Row, before: db.Row, seconds: float) -> dict[str, float]:
    """Increase a second; what fell (a ship that was rolled back) begins anew with 0."""
    if seconds <= 0:
        return {}
    rates = {
        f"{name}_rate": max(float(row[name] - before[name]), 0.0) / seconds
        for name in _COUNTERS
        if None not in (row[name], before[name])
    }
    if row["bytes_done"] and row["rows_done"]:  # by today's average row, which grows by itself
        rates["bytes_rate"] = rates["rows_done_rate"] * float(row["bytes_done"] / row["rows_done"])
    return rates
