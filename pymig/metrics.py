"""What Prometheus scrapes: pymig.status and its neighbours, read anew for every scrape."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pymig import db, logs
from pymig.errors import PymigError

#: Column of pymig.status -> metric, and what it says. Durations are in seconds.
_OF_SHIPS: Final = {
    "rows_done": ("pymig_rows_moved", "Narrow rows the backfill has moved."),
    "rows_estimated": ("pymig_rows_estimated", "Narrow rows in all, by the planner's estimate."),
    "rows_per_second": ("pymig_rows_per_second", "Narrow rows a second, the last 20 chunks."),
    "eta": ("pymig_backfill_remaining_seconds", "Time the rest of the backfill takes."),
    "sync_lag": ("pymig_sync_lag_seconds", "Age of the oldest pending key."),
    "sync_lag_p99": ("pymig_sync_lag_p99_seconds", "99th percentile of the lag, last 5 minutes."),
    "pending": ("pymig_pending_keys", "Keys that wait for a recompute."),
    "quarantined": ("pymig_quarantined_rows", "Narrow rows that could not become a cell."),
    "failed_chunks": ("pymig_failed_chunks", "Chunks that failed for good."),
}
_STATES: Final = (
    "known", "planned", "syncing", "backfilled", "verified", "cut_over", "finalized", "failed",
    "rolled_back",
)  # fmt: skip

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
PUSH_SECONDS: Final = 5.0  # how long the end of a command waits for the last figures


class Ships(Collector):
    """The metrics of all sources of one database. Where that can't be read, pymig_up is 0."""

    def __init__(self, conninfo: str) -> None:
        self._session: Final = db.Session(conninfo, "metrics", patient=False)
        self._lock: Final = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Ask the database; a scrape that meets none says only that."""
        up = GaugeMetricFamily("pymig_up", "1: pymig's catalog could be read, 0: it could not.")
        try:
            with self._lock:
                found = list(self._read())
        except PymigError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from found

    def close(self) -> None:
        """Close the connection."""
        self._session.__exit__()

    def _read(self) -> Iterator[Metric]:
        status = self._session.read("status")
        yield from _ships(status)
        alive = GaugeMetricFamily("pymig_workers_alive", "Workers seen in the last 10 seconds.")
        alive.add_metric([], self._session.select("workers_alive")[0]["workers_alive"])
        yield alive
        yield from _throttle(self._session.read("throttle"))
        events = CounterMetricFamily("pymig_events", "Events by level.", labels=["level"])
        for row in self._session.select("event_counts"):
            events.add_metric([row["level"]], row["events"])
        yield events


def _ships(status: list[db.Row]) -> Iterator[Metric]:
    labels = ["source", "ship"]
    state = GaugeMetricFamily(
        "pymig_ship_state",
        "1 for the state a ship is in, 0 for the others.",
        labels=[*labels, "state"],
    )
    done = GaugeMetricFamily(
        "pymig_backfill_progress_ratio", "Share of the time range that is moved.", labels=labels
    )
    held = GaugeMetricFamily("pymig_held_up", "1: paused or throttled.", labels=labels)
    armed = GaugeMetricFamily("pymig_triggers_armed", "1: as installed, 0: not.", labels=["source"])
    figures = {
        column: GaugeMetricFamily(name, said, labels=labels)
        for column, (name, said) in _OF_SHIPS.items()
    }
    for row in status:
        ship = [row["source"], row["entity"]]
        for name in _STATES:
            state.add_metric([*ship, name], row["state"] == name)
        if row["percent"] is not None:
            done.add_metric(ship, float(row["percent"]) / 100)
        held.add_metric(ship, row["held_up_by"] is not None)
        for column, metric in figures.items():
            value = row[column]
            if value is not None:
                is_duration = hasattr(value, "total_seconds")
                metric.add_metric(ship, value.total_seconds() if is_duration else float(value))
    for source in sorted({row["source"] for row in status}):
        rows = [row for row in status if row["source"] == source and row["wide_table"]]
        if rows:
            armed.add_metric([source], all(row["triggers"] == "armed" for row in rows))
    yield from (state, done, held, armed, *figures.values())


def _throttle(rows: list[db.Row]) -> Iterator[Metric]:
    labels = ["condition"]
    value = GaugeMetricFamily("pymig_throttle_value", "As measured last.", labels=labels)
    limit = GaugeMetricFamily("pymig_throttle_limit", "History waits above it.", labels=labels)
    for row in rows:
        if row["max_value"] is not None:
            limit.add_metric([row["condition"]], row["max_value"])
            if row["value"] is not None:
                value.add_metric([row["condition"]], row["value"])
    yield from (value, limit)


def serve(conninfo: str, host: str, port: int) -> int:
    """Serve /metrics in threads of their own until the process ends; returns the port.

    port 0: any that is free. Raises OSError where it can't be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Ships(conninfo))
    server, _ = start_http_server(port, addr=host, registry=registry)
    return int(server.server_port)


def push(conninfo: str, stop: threading.Event) -> threading.Thread | None:
    """Push the same by OTLP until stop is set, in a thread, where the environment says where to."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from pymig import otlp
    except ImportError:
        said = "OTEL_EXPORTER_OTLP_ENDPOINT is set; `pip install 'pymig[otel]'` to push metrics."
        logs.say(said, logging.WARNING)
        return None

    def run() -> None:
        with closing(Ships(conninfo)) as ships:
            otlp.push(ships, stop)

    thread = threading.Thread(target=run, name="pymig otlp", daemon=True)
    thread.start()
    return thread
