"""What dashboards ask: of the narrow table and of the wide one, in turn, answers compared.

Warm: the session has asked it before, as one of a pool has; planned anew each time. Prepared:
planned once. Cold: the server was started anew and its files put out of the kernel's cache, before
each query. Covered: the wide table with an index of pymig.index_statements that holds the channels.
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.backfill import FORMATS, move_chunks
from bench.server import connect, render
from pymig.server import Cluster

SHIP = "SHIP1"
NARROW, WIDE, COVERED = "narrow", "wide", "covered"
WARM_RUNS = 9
GOAL = 2.0  # how many times as fast as the narrow table the wide one should answer
Answer = dict[tuple[str, Any], Any]


@dataclass(frozen=True)
class Question:
    """One kind of query: `span` days of `channels` channels; 0 channels: all.

    Where channels are named, the wide table is asked once more with an index that covers them.
    """

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
    """Seconds of every question, side and repetition: warm, prepared, (own server) cold; sizes."""
    with connect(url) as connection:
        call = {"ship": SHIP, "types": types, "strategy": "auto"}
        connection.execute(render("pymig", call="start_sync", **call))
        move_chunks(url, render("pymig", call="backfill_chunk", **call))
        connection.execute("CALL pymig.tune_wide(%s)", [SHIP])
        connection.execute("VACUUM")  # of all parts; autovacuum is off here
        channels = _channels(connection)
        row = connection.execute(render("sizes", ship=SHIP)).fetchone()
    assert row
    seconds: dict[str, dict[str, list[float]]] = {}
    for n in range(repeats):
        for question in QUESTIONS:
            asked = _asked(question, channels)
            answers = []
            for side in (NARROW, WIDE, COVERED) if question.channels else (NARROW, WIDE):
                statement = render(
                    "questions",
                    side=NARROW if side == NARROW else WIDE,
                    question=question.name,
                    span=question.span,
                    days=days,
                    channels=asked,
                )
                with _index_on(url, asked if side == COVERED else []):
                    taken, answer = _ask(cluster, url, side, statement)
                answers.append(answer)
                for mode, time_taken in taken.items():
                    sides = seconds.setdefault(f"{question.title}, {mode}", {})
                    sides.setdefault(side, []).append(time_taken)
            if any(answer != answers[0] for answer in answers):
                raise RuntimeError(f"{question.title}: the wide table answers otherwise")
        say(f"queries: repetition {n + 1} of {repeats}")
    return {"seconds": seconds, "narrow_bytes": int(row[0]), "wide_bytes": int(row[1])}


def _channels(connection: psycopg.Connection[Any]) -> list[dict[str, str]]:
    formats = dict(connection.execute(render("channels", ship=SHIP)).fetchall())
    columns = connection.execute("SELECT m.channel, m.wide_column FROM pymig.channel_map AS m")
    return [
        {"name": name, "column": column, "value": FORMATS[formats[name]]}
        for name, column in sorted(columns.fetchall())
    ]


def _asked(question: Question, channels: list[dict[str, str]]) -> list[dict[str, str]]:
    """The channels a question is about. The same ones every time."""
    able = [c for c in channels if c["value"] == "double_v" or not question.numbers]
    if len(able) < question.channels:
        raise SystemExit(
            f"{question.title}: the ship has {len(able)} decimal channels; ask for more --channels."
        )
    return random.Random(1).sample(able, question.channels or len(able))


@contextmanager
def _index_on(url: str, channels: list[dict[str, str]]) -> Iterator[None]:
    """The wide table has an index that covers these channels, if any, until the block ends."""
    if not channels:
        yield
        return
    with connect(url) as connection:
        names = [channel["name"] for channel in channels]
        statements = connection.execute(
            "SELECT * FROM pymig.index_statements(%s, %s, p_covering => true)", [SHIP, names]
        ).fetchall()
        for (statement,) in statements:
            connection.execute(statement)
    try:
        yield
    finally:
        with connect(url) as connection:
            for (name,) in connection.execute(render("covering_indexes", ship=SHIP)).fetchall():
                connection.execute(f"DROP INDEX {name}")


def _ask(
    cluster: Cluster | None, url: str, side: str, statement: str
) -> tuple[dict[str, float], Answer]:
    """Seconds of each mode: the median of several times after the first, or cold; the answer."""
    taken = {}
    with connect(url) as connection:
        connection.execute("SET jit = off")
        cursor = connection.execute(statement)
        names = [column.name for column in cursor.description or ()]
        answer = _answer(side, names, cursor.fetchall(), connection)
        for mode, prepare in (("warm", False), ("prepared", True)):
            runs = []
            for _ in range(WARM_RUNS + 1):
                started = time.perf_counter()
                connection.execute(statement, prepare=prepare).fetchall()
                runs.append(time.perf_counter() - started)
            taken[mode] = statistics.median(runs[1:])
    if cluster:
        taken["cold"] = _ask_cold(cluster, url, statement)
    return taken, answer


def _ask_cold(cluster: Cluster, url: str, statement: str) -> float:
    cluster.stop()
    for path in Path(cluster.data).rglob("*"):
        if path.is_file():
            _forget(path)
    cluster.start()
    with connect(url) as connection:
        connection.execute("SET jit = off")
        started = time.perf_counter()
        connection.execute(statement).fetchall()
        return time.perf_counter() - started


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
    if side != NARROW:
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
