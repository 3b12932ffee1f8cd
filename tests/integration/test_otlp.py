"""The metrics by OTLP: a real HTTP receiver decodes what is pushed, and finds what is scraped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pymig.metrics import Ships
from tests.conftest import Database
from tests.waiting import until

receiving = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
pytestmark = pytest.mark.once

CREATE = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT 'X', 'c', '2024-01-01'::timestamp + t * interval '1 h', t
FROM generate_series(1, 20) AS t;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}');
CALL pymig.migrate('X');
DELETE FROM pymig.worker
"""
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Receiver(ThreadingHTTPServer):
    """Keeps what is pushed to /v1/metrics, decoded."""

    def __init__(self) -> None:
        self.pushed: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/metrics"
                receiver.pushed.append(receiving.ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a port of its own."""
    server = Receiver()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def pushed(request: Any) -> Samples:
    """What one push says, as a scrape would."""
    (resource,) = request.resource_metrics
    found: Samples = {}
    for metric in resource.scope_metrics[0].metrics:
        is_counter = metric.WhichOneof("data") == "sum"
        assert is_counter == (metric.name == "pymig_events")
        assert not is_counter or metric.sum.is_monotonic
        assert metric.description.endswith(".")
        for point in (metric.sum if is_counter else metric.gauge).data_points:
            labels = {item.key: item.value.string_value for item in point.attributes}
            name = f"{metric.name}_total" if is_counter else metric.name
            found[name, frozenset(labels.items())] = point.as_double or float(point.as_int)
    return found


def scraped(db: Database) -> Samples:
    """What Prometheus would get just now."""
    with closing(Ships(db.url)) as ships:
        return {
            (sample.name, frozenset(sample.labels.items())): float(sample.value)
            for family in ships.collect()
            for sample in family.samples
        }


@pytest.mark.parametrize("command", [("metrics", "--port", "0"), ("worker",)])
def test_what_is_pushed_is_what_is_scraped(
    db: Database, receiver: Receiver, command: tuple[str, ...]
) -> None:
    """The same names, labels and values; the last ones when the command ends."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    process = subprocess.Popen(
        [sys.executable, "-c", "from pymig.cli import main; main()", *command],
        env={
            **os.environ,
            "DATABASE_URL": db.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until(lambda: len(receiver.pushed) >= 2, "nothing is pushed")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
    found, now = pushed(receiver.pushed[-1]), scraped(db)
    assert set(found) == set(now)
    for key, value in now.items():
        if not key[0].startswith("pymig_throttle"):  # measured anew by each
            assert found[key] == value, key
    attributes = receiver.pushed[-1].resource_metrics[0].resource.attributes
    named = {item.key: item.value.string_value for item in attributes}
    assert named["service.name"] == "pymig" and named["service.instance.id"]
