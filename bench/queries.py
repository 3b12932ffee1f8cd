"""What dashboards ask: of the narrow table and of the wide one, in turn, answers compared.

Warm: the session has asked it before, as one of a pool has; planned anew each time. Cold: the
server was started anew and its files put out of the kernel's cache, before each query.
"""

import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.backfill import FORMATS, move_chunks
from bench.server import connect, render
from pymig.server import Cluster

SHIP = "SHIP1"
NARROW, WIDE = "narrow", "wide"
WARM_RUNS = 9
Answer = dict[tuple[str, Any], Any]


@dataclass(frozen=True)
class Question:
    """One kind of query: `span` days of `channels` channels; 0 channels: all."""

    name: str
    title: str
    channels: int
    span: int = 0
    numbers: bool = True
    """Only channels of decimal numbers."""


QUESTIONS = (
    Question("latest", "latest value of all channels", 0, numbers=False),
    Question("range", "10 channels × 1 day", 10, 1),  # noqa: RUF001
    Question("hourly", "20 channels, hourly average × 1 week", 20),  # noqa: RUF001
    Question("instant", "all channels at one instant", 0, numbers=False),
    Question("range", "1 channel × 30 days", 1, 30),  # noqa: RUF001
)


def run(
    cluster: Cluster | None,
    url: str,
    days: int,
    types: str,
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Seconds of every question, side and repetition, warm and (own server) cold; sizes."""
    with connect(url) as connection:
        call = {"ship": SHIP, "types": types, "strategy": "auto"}
        connection.execute(render("pymig", call="start_sync", **call))
        move_chunks(url, render("pymig", call="backfill_chunk", **call))
        connection.execute("CALL pymig.tune_wide(%s)", [SHIP])
        connection.execute("VACUUM")  # of all parts; autovacuum is off here
        channels = _channels(connection)
    seconds: dict[str, dict[str, list[float]]] = {}
    for n in range(repeats):
        for question in QUESTIONS:
            sides = _sides(question, channels, days)
            _ask_in_turn(url, question, sides, seconds.setdefault(f"{question.title}, warm", {}))
            if cluster:
                _ask_cold(cluster, url, sides, seconds.setdefault(f"{question.title}, cold", {}))
        say(f"queries: repetition {n + 1} of {repeats}")
    with connect(url) as connection:
        row = connection.execute(render("sizes", ship=SHIP)).fetchone()
    assert row
    return {"seconds": seconds, "narrow_bytes": int(row[0]), "wide_bytes": int(row[1])}


def _channels(connection: psycopg.Connection[Any]) -> list[dict[str, str]]:
    formats = dict(connection.execute(render("channels", ship=SHIP)).fetchall())
    columns = connection.execute("SELECT m.channel, m.wide_column FROM pymig.channel_map AS m")
    return [
        {"name": name, "column": column, "value": FORMATS[formats[name]]}
        for name, column in sorted(columns.fetchall())
    ]


def _sides(question: Question, channels: list[dict[str, str]], days: int) -> dict[str, str]:
    """The statement for each side. The same channels every time."""
    able = [c for c in channels if c["value"] == "double_v" or not question.numbers]
    if len(able) < question.channels:
        raise SystemExit(
            f"{question.title}: the ship has {len(able)} decimal channels; ask for more --channels."
        )
    asked = random.Random(1).sample(able, question.channels or len(able))
    values = {"question": question.name, "span": question.span, "days": days, "channels": asked}
    return {side: render("questions", side=side, **values) for side in (NARROW, WIDE)}


def _ask_in_turn(
    url: str, question: Question, sides: dict[str, str], taken: dict[str, list[float]]
) -> None:
    """The median of several times after the first of each; the answers must be equal."""
    answers = []
    with connect(url) as connection:
        connection.execute("SET jit = off")
        for side, statement in sides.items():
            connection.execute(statement).fetchall()
            runs = []
            for _ in range(WARM_RUNS):
                started = time.perf_counter()
                cursor = connection.execute(statement, prepare=False)
                rows = cursor.fetchall()
                runs.append(time.perf_counter() - started)
            taken.setdefault(side, []).append(statistics.median(runs))
            names = [column.name for column in cursor.description or ()]
            answers.append(_answer(side, names, rows, connection))
    if answers[0] != answers[1]:
        raise RuntimeError(f"{question.title}: the wide table answers otherwise")


def _ask_cold(
    cluster: Cluster, url: str, sides: dict[str, str], taken: dict[str, list[float]]
) -> None:
    for side, statement in sides.items():
        cluster.stop()
        for path in Path(cluster.data).rglob("*"):
            if path.is_file():
                _forget(path)
        cluster.start()
        with connect(url) as connection:
            connection.execute("SET jit = off")
            started = time.perf_counter()
            connection.execute(statement).fetchall()
            taken.setdefault(side, []).append(time.perf_counter() - started)


def _forget(path: Path) -> None:
    """Put a file out of the kernel's cache."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _answer(
    side: str, names: list[str], rows: list[tuple[Any, ...]], connection: psycopg.Connection[Any]
) -> Answer:
    """Value by (column, time), whichever shape it came in."""
    if side == WIDE:
        return {
            (name, row[0]): _number(value)
            for row in rows
            for name, value in zip(names[1:], row[1:], strict=True)
            if value is not None
        }
    columns = dict(
        connection.execute("SELECT m.channel, m.wide_column FROM pymig.channel_map AS m").fetchall()
    )
    return {
        (columns[channel], at): _number(next((v for v in values if v is not None), None))
        for channel, at, *values in rows
    }


def _number(value: Any) -> Any:
    """Averages of a different order of summation differ in their last digits."""
    return round(value, 6) if isinstance(value, float) else value
