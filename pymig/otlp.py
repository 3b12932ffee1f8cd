"""The same metrics by OTLP: what pymig/metrics.py collects, pushed where OTEL_* variables say.

Names, labels and values are those that Prometheus scrapes. Needs `pip install 'pymig[otel]'`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pymig import __version__, db, logs

_STARTED: Final = time.time_ns()
_SCOPE: Final = InstrumentationScope("pymig", __version__)


def push(collector: Collector, stop: threading.Event) -> None:
    """Push every OTEL_METRIC_EXPORT_INTERVAL milliseconds (60,000), and when stop is set.

    A receiver that is away costs the figures of that time, and is said once.
    """
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    exporter = OTLPMetricExporter()  # the endpoint, headers, certificates: by OTEL_*
    name = os.environ.get("OTEL_SERVICE_NAME", "pymig")
    resource = Resource.create({"service.name": name, "service.instance.id": db.worker_name()})
    seconds = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "60000")) / 1000
    is_last, went = False, otel.MetricExportResult.SUCCESS
    while not is_last:
        is_last = stop.wait(seconds)
        metrics = [_metric(family) for family in collector.collect()]
        scope = otel.ScopeMetrics(_SCOPE, metrics, "")
        before, went = (
            went,
            exporter.export(otel.MetricsData([otel.ResourceMetrics(resource, [scope], "")])),
        )
        if went != before:
            is_back = went == otel.MetricExportResult.SUCCESS
            said = "Metrics are pushed again." if is_back else "Metrics can't be pushed by OTLP."
            logs.say(said, logging.INFO if is_back else logging.WARNING)
    exporter.shutdown()


def _metric(family: Metric) -> otel.Metric:
    now = time.time_ns()
    points = [
        otel.NumberDataPoint(sample.labels, _STARTED, now, float(sample.value))
        for sample in family.samples
    ]
    data: otel.Sum | otel.Gauge = otel.Gauge(points)
    if family.type == "counter":
        data = otel.Sum(points, otel.AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return otel.Metric(family.name, family.documentation, "", data)
