"""What the doors for readers cost: read() and the compat view beside queries by hand, in turn."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from bench.backfill import move_chunks
from bench.server import connect, render

ROUTED, OTHER = "SHIP1", "SHIP2"
START = datetime(2026, 1, 1)  # where load() begins

BY_HAND = "wide, unpivoted by hand"
NARROW = "narrow"
READ = "read, routed wide"
COMPAT_OTHER = "compat, not routed"
PREPARED = ", prepared"
#: Side -> what it is compared with. Those of one base return the same rows.
SIDES = {
    BY_HAND: BY_HAND,
    "wide, as it is": BY_HAND,
    READ: BY_HAND,
    "compat, routed wide": BY_HAND,
    f"{BY_HAND}{PREPARED}": f"{BY_HAND}{PREPARED}",
    f"{READ}{PREPARED}": f"{BY_HAND}{PREPARED}",
    NARROW: NARROW,
    "read, routed narrow": NARROW,
    COMPAT_OTHER: NARROW,
    f"{NARROW}{PREPARED}": f"{NARROW}{PREPARED}",
    f"{COMPAT_OTHER}{PREPARED}": f"{NARROW}{PREPARED}",
}
#: At most this multiple of its base. read() is given ship, channels and span, so by hand it is
#: another statement each time; an application that moves to the compat view keeps its own, which
#: drivers prepare once it comes back (psycopg at the sixth time).
GOALS = {READ: 1.3, f"{COMPAT_OTHER}{PREPARED}": 1.1}
RUNS = 5
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Span:
    """So many channels (0: all) over so many seconds."""

    title: str
    channels: int
    seconds: int


SPANS = (
    Span("1 channel × 1 day", 1, 86400),  # noqa: RUF001
    Span("20 channels × 1 day", 20, 86400),  # noqa: RUF001
    Span("all channels × 1 minute", 0, 60),  # noqa: RUF001
)


def run(
    url: str, times: int, step: int, types: str, repeats: int, say: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every span, side and repetition: the median of five runs, the answers compared."""
    with connect(url) as connection:
        for ship in (ROUTED, OTHER):
            call = {"ship": ship, "types": types, "strategy": "auto"}
            connection.execute(render("pymig", call="start_sync", **call))
            move_chunks(url, render("pymig", call="backfill_chunk", **call))
            connection.execute("CALL pymig.verify(%s)", [ship])
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CALL pymig.create_compat_view()")
        connection.execute("CALL pymig.set_routing(%s, 'wide')", [ROUTED])
        columns = connection.execute(
            "SELECT m.channel, m.wide_column FROM pymig.channel_map AS m WHERE m.entity = %s",
            [ROUTED],
        ).fetchall()
    channels = [{"name": name, "column": column} for name, column in sorted(columns)]
    seconds: dict[str, dict[str, list[float]]] = {}
    end = START + timedelta(seconds=times * step)
    for n in range(repeats):
        for span in SPANS:
            chosen = random.Random(1).sample(channels, span.channels or len(channels))
            first = max(START, end - timedelta(seconds=max(span.seconds, step)))
            values = {"channels": chosen, "is_all": not span.channels, "first": first, "last": end}
            _in_turn(url, span, values, seconds.setdefault(span.title, {}))
        say(f"read: repetition {n + 1} of {repeats}")
    return seconds


def _in_turn(url: str, span: Span, values: dict[str, Any], taken: dict[str, list[float]]) -> None:
    answers: dict[str, Rows] = {}
    sides = list(SIDES)
    random.shuffle(sides)
    with connect(url) as connection:
        connection.execute("SET jit = off")
        for side in sides:
            statement = render("reads", side=side.removesuffix(PREPARED), **values)
            seconds, rows = _median(connection, statement, prepare=side.endswith(PREPARED))
            taken.setdefault(side, []).append(seconds)
            if side != "wide, as it is":
                answers[side] = sorted(rows)
    for side, rows in answers.items():
        if rows != answers[SIDES[side]]:
            raise RuntimeError(f"{span.title}: {side} answers otherwise than {SIDES[side]}")


def _median(
    connection: psycopg.Connection[Any], statement: str, *, prepare: bool
) -> tuple[float, Rows]:
    found: Rows = []
    runs = []
    for _ in range(RUNS + 1):  # the first one fills caches
        started = time.perf_counter()
        found = connection.execute(statement.encode(), prepare=prepare).fetchall()
        runs.append(time.perf_counter() - started)
    return sorted(runs[1:])[RUNS // 2], found
