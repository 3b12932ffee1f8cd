"""How the cost of a narrow row grows, along one axis at a time.

Each point of an axis is a database of its own on one server, with 0.2 to 10 million narrow rows to
move. All points of an axis are measured in turn, in a new
order each repetition; a figure is a ratio to another of the same repetition. The floors of a point
are reading its rows with their values cast to text, and copying the finished wide tables with their
keys.
"""

import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from bench.backfill import job_of, migrate, read_floor
from bench.chart import Curve
from bench.report import spread
from bench.server import another_database, connect, execute, load, render

SHIP = "SHIP1"
STEP = 15


@dataclass(frozen=True)
class Point:
    """What one ship and the table around it look like."""

    label: str
    channels: int = 1000
    times: int = 1000
    ships: int = 1
    fill: int = 100
    """Percent of the channels that have a row at each time."""
    types: str = "native"
    workers: int = 1
    strategy: str = "transpose"
    """auto would try others on chunks of a long history, which is no growth."""


@dataclass(frozen=True)
class Axis:
    """Points, one of which is the base the others are compared with."""

    name: str
    title: str
    points: tuple[Point, ...]
    base: str
    goal: float | None = None
    """At most this multiple of the base's cost per narrow row, at the last point."""


AXES = (
    Axis(
        "channels",
        "channels",
        (
            Point("10", channels=10, times=100_000),
            Point("100", channels=100, times=10_000),
            Point("1,000"),
            Point("3,000", channels=3000, times=334),
        ),
        "100",
        1.5,
    ),
    Axis(
        "history",
        "history, in rows",
        (Point("1 million"), Point("10 million", times=10_000)),
        "1 million",
        1.1,
    ),
    Axis(
        "ships",
        "ships in the table",
        (
            Point("1", channels=100, times=2000),
            Point("8", channels=100, times=2000, ships=8),
            Point("64", channels=100, times=2000, ships=64),
        ),
        "1",
        1.3,
    ),
    Axis(
        "workers",
        "workers",
        (
            Point("1", times=3840),
            Point("2", times=3840, workers=2),
            Point("4", times=3840, workers=4),
        ),
        "1",
    ),
    Axis(
        "kinds",
        "rows and columns",
        (
            Point("dense, native"),
            Point("dense, text", types="text"),
            *(
                Point(f"5 % of the channels, {t}, `{s}`", times=20_000, fill=5, types=t, strategy=s)
                for t in ("native", "text")
                for s in ("transpose", "json", "crosstab")
            ),
        ),
        "dense, native",
    ),
)
# Added by --big: hours, and some 40 GB of disk.
BIG = {
    "history": (Point("100 million", times=100_000),),
    "ships": (Point("256", channels=100, times=2000, ships=256),),
}


def axes(big: bool, only: str | None, quick: bool) -> tuple[Axis, ...]:
    """The axes asked for; quick: with a fiftieth of the times."""
    chosen = tuple(a for a in AXES if only in (None, a.name))
    if not chosen:
        raise SystemExit(f"There is no axis {only!r}: {', '.join(a.name for a in AXES)}.")
    if big:
        chosen = tuple(replace(a, points=(*a.points, *BIG.get(a.name, ()))) for a in chosen)
    if quick:
        chosen = tuple(
            replace(a, points=tuple(replace(p, times=max(20, p.times // 50)) for p in a.points))
            for a in chosen
        )
    return chosen


def run(url: str, axis: Axis, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Rows, seconds of every repetition and rates within the run, by the labels of the points."""
    found: dict[str, Any] = {}
    urls: dict[tuple[int, int, int, int], str] = {}
    with ExitStack() as stack:
        for point in axis.points:
            data = (point.ships, point.channels, point.times, point.fill)
            if data not in urls:
                say(f"{axis.name}: loading {point.label}")
                urls[data] = stack.enter_context(another_database(url, f"{axis.name}{len(urls)}"))
                load(urls[data], point.ships, point.channels, point.times, STEP, point.fill)
            found[point.label] = {"seconds": {"pymig": [], "read floor": [], "write floor": []}}
        order = random.Random(1)
        for n in range(repeats):
            for point in order.sample(axis.points, len(axis.points)):
                data = (point.ships, point.channels, point.times, point.fill)
                _measure(urls[data], point, found[point.label])
            say(f"{axis.name}: repetition {n + 1} of {repeats}")
    return found


def _measure(url: str, point: Point, found: dict[str, Any]) -> None:
    """One migration of the ship, then its floors."""
    job = job_of(url, SHIP, point.types)
    read_floor(job)  # other points may have taken its place in shared_buffers
    found["seconds"]["pymig"].append(migrate(job, point.strategy, point.workers)[0])
    found["seconds"]["read floor"].append(read_floor(job))
    with connect(url) as connection:
        chunks = connection.execute(render("axes_chunks", ship=SHIP)).fetchall()
        parts = [name for (name,) in connection.execute(render("axes_parts", ship=SHIP)).fetchall()]
        taken = 0.0
        for part in parts:
            execute(connection, render("axes_copy", part=part, fill=False))
            connection.execute("CHECKPOINT")
            started = time.perf_counter()
            connection.execute(render("axes_copy", part=part, fill=True))
            taken += time.perf_counter() - started
        found["seconds"]["write floor"].append(taken)
    found["rows"] = sum(rows for rows, _ in chunks)
    found["chunks"] = len(chunks)
    tenth = max(1, len(chunks) // 10)
    first, last = (
        sum(rows for rows, _ in part) / sum(seconds for _, seconds in part)
        for part in (chunks[:tenth], chunks[-tenth:])
    )
    # The rate of the last tenth of the chunks to that of the first.
    found.setdefault("last tenth", []).append(last / first)


def per_row(found: dict[str, Any], name: str = "pymig") -> list[float]:
    """Seconds a narrow row took, of every repetition."""
    return [seconds / found["rows"] for seconds in found["seconds"][name]]


def relative(axis: Axis, found: dict[str, Any], label: str) -> list[float]:
    """Cost of a row at a point to that at the axis's base, of every repetition."""
    base = per_row(found[axis.base])
    return [t / b for t, b in zip(per_row(found[label]), base, strict=True)]


def of_floors(found: dict[str, Any]) -> list[float]:
    """Time to that of both floors together, of every repetition."""
    seconds = found["seconds"]
    return [
        t / (r + w)
        for t, r, w in zip(
            seconds["pymig"], seconds["read floor"], seconds["write floor"], strict=True
        )
    ]


def curves(figures: dict[str, Any]) -> dict[str, Curve]:
    """For a chart: of each axis with a goal its labels and the relative costs."""
    result: dict[str, Curve] = {}
    for axis in AXES:
        if axis.goal and axis.name in figures:
            found = figures[axis.name]
            each = [relative(axis, found, label) for label in found]
            result[axis.title] = (
                list(found),
                [statistics.median(e) for e in each],
                [min(e) for e in each],
                [max(e) for e in each],
            )
    return result


def table(axis: Axis, found: dict[str, Any]) -> str:
    """Points as rows: cost of a row to the base's, time to the floors."""
    lines = [
        f"| {axis.title} | narrow rows | µs a row | ÷ that at {axis.base} "
        "| ÷ (read + write floor) | last tenth's rate ÷ first's |",
        "|---|" + "--:|" * 5,
    ]
    for point in axis.points:
        f = found[point.label]
        last = _spread(f["last tenth"]) if f["chunks"] >= 10 else "–"  # noqa: RUF001
        lines.append(
            f"| {point.label} | {f['rows']:,} | {1e6 * statistics.median(per_row(f)):.2f} "
            f"| {_spread(relative(axis, found, point.label))} | {_spread(of_floors(f))} | {last} |"
        )
    if axis.goal:
        last = axis.points[-1].label
        ratio = statistics.median(relative(axis, found, last))
        met = "met" if ratio <= axis.goal else "**missed**"
        lines += ["", f"- {last} {axis.title}: goal ≤ {axis.goal}: {ratio:.2f}, {met}"]
    return "\n".join(lines)


def _spread(each: list[float]) -> str:
    return spread(statistics.median(each), min(each), max(each), len(each))
