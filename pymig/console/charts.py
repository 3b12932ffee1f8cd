"""Charts of the samples, drawn as SVG by pygal; the console's style sheet gives them colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from xml.etree.ElementTree import Element

import pygal
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from pygal.style import Style

from pymig.console.sampler import EVERY, Sample
from pymig.console.templatetags.figures import NOTHING, duration, number, size
from pymig.console.words import noop

POINTS: Final = 150
#: Beyond so many seconds without a sample the line is broken.
_GAP: Final = 4 * EVERY
_STYLE: Final = Style(label_font_size=11, major_label_font_size=11, font_family="inherit")


@dataclass(frozen=True)
class Chart:
    """One chart: a title and its lines, each a figure of a sample with its name."""

    name: str
    title: str
    lines: tuple[tuple[str, str], ...]
    shown: Callable[[float], str]
    highest: float | None = None
    of_machine: bool = False


def _rate(value: float) -> str:
    return f"{size(value)}/s"


def _percent(value: float) -> str:
    return f"{value:.0f} %"


CHARTS: Final = (
    Chart("moved", noop("Rows moved"), (("rows_done", ""),), number),
    Chart("rows", noop("Rows moved a second"), (("rows_done_rate", ""),), number),
    Chart("bytes", noop("Narrow bytes moved a second"), (("bytes_rate", ""),), _rate),
    Chart("lag", noop("Sync lag"), (("sync_lag", noop("now")), ("sync_lag_p99", "p99")), duration),
    Chart("pending", noop("Pending keys"), (("pending", ""),), number),
    Chart("problems", noop("Warnings and errors a minute"), (("problems_rate", ""),), number),
    Chart(
        "faults",
        noop("Faults"),
        (("quarantined", noop("quarantined")), ("failed_chunks", noop("failed chunks"))),
        number,
    ),
    Chart("wal", noop("WAL written a second (server)"), (("wal_bytes_rate", ""),), _rate),
    Chart("database", noop("Size of the database"), (("database_bytes", ""),), size),
    Chart("cpu", noop("CPU"), (("cpu", ""),), _percent, 100, True),
    Chart("memory", noop("Memory"), (("memory", ""),), _percent, 100, True),
    Chart("disk", noop("Disk"), (("disk", ""),), _percent, 100, True),
)


@dataclass(frozen=True)
class Drawn:
    """A chart as it is shown: the newest value of each line, and the picture."""

    title: str
    newest: list[tuple[str, str]]
    svg: SafeString
    of_machine: bool


def draw(chart: Chart, samples: Sequence[Sample], seconds: float, now: float) -> Drawn:
    """Draw a chart of the seconds before now."""
    per_minute = 60.0 if chart.name == "problems" else 1.0
    lines = [
        (_(label) if label else "", _thinned(samples, figure, seconds, per_minute))
        for figure, label in chart.lines
    ]
    newest = [
        (label, chart.shown(points[-1][1]) if points and points[-1][1] is not None else NOTHING)
        for label, points in lines
    ]
    return Drawn(_(chart.title), newest, _svg(chart, lines, seconds, now), chart.of_machine)


Point = tuple[float, float | None]


def _thinned(samples: Sequence[Sample], figure: str, seconds: float, times: float) -> list[Point]:
    """Averages over equal spans: a chart of hours has no more points than one of minutes."""
    width = max(seconds / POINTS, EVERY)
    spans: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        if figure in sample.figures:
            pair = (sample.at, sample.figures[figure] * times)
            spans.setdefault(int(sample.at // width), []).append(pair)
    points: list[Point] = []
    for pairs in spans.values():
        at = sum(at for at, _value in pairs) / len(pairs)
        if points and at - points[-1][0] > max(_GAP, 2 * width):
            points.append(((at + points[-1][0]) / 2, None))
        points.append((at, sum(value for _at, value in pairs) / len(pairs)))
    return points


def _svg(
    chart: Chart, lines: Sequence[tuple[str, list[Point]]], seconds: float, now: float
) -> SafeString:
    highest = max(
        (value for _label, points in lines for _at, value in points if value is not None),
        default=0.0,
    )
    top = chart.highest or _round(highest)
    picture = pygal.XY(
        width=460,
        height=150,
        margin=2,
        margin_right=10,
        spacing=4,
        style=_STYLE,
        show_dots=False,
        show_legend=False,
        range=(0, top),
        xrange=(now - seconds, now),
        x_labels=[now - seconds * share for share in (1, 0.75, 0.5, 0.25, 0)],
        y_labels=[0, top / 2, top],
        value_formatter=chart.shown,
        x_value_formatter=_clock,
        no_data_text="",
        explicit_size=False,
        allow_interruptions=True,
        js=[],
    )
    for label, points in lines:
        picture.add(label, points)
    picture.add_xml_filter(_bare)
    svg = picture.render(is_unicode=True, disable_xml_declaration=True)
    return SafeString(svg)


def _round(value: float) -> float:
    """The next number that is easy to read: 1, 2, 3, 4, 5, 6 or 8 with zeros."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 3, 4, 5, 6, 8, 10) if unit * step >= value)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")


def _bare(root: Any) -> Any:
    """Without styles, scripts and tooltips in the picture: the page forbids them there."""
    _drop(root)
    return root


def _drop(node: Element) -> None:
    for child in list(node):
        if (
            not isinstance(child.tag, str)
            or child.tag.rpartition("}")[2] in ("style", "script", "title")
            or "tooltip" in (child.get("class") or "")
        ):
            node.remove(child)
        else:
            _drop(child)
