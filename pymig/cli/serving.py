"""Metrics of a command that stays: served, and pushed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pymig import logs
from pymig.cli.session import conninfo
from pymig.errors import UsageError


def serve_metrics(host: str, port: int) -> None:
    from pymig.metrics import serve

    try:
        found = serve(conninfo(), host, port)
    except OSError as error:
        raise UsageError(
            f"Metrics can't be served on {host}:{port}: {error.strerror}.", "Choose another --port."
        ) from error
    logs.say(f"Metrics: http://{host}:{found}/metrics", host=host, port=found)


@contextmanager
def pushing(stop: threading.Event) -> Iterator[None]:
    """Metrics by OTLP, where OTEL_EXPORTER_OTLP_ENDPOINT is set; the last ones after stop."""
    from pymig.metrics import PUSH_SECONDS, push

    thread = push(conninfo(), stop)
    yield
    if thread:
        thread.join(PUSH_SECONDS)
