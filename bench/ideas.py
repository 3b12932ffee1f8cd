"""What might make a backfill faster: each idea beside what pymig does, in turn."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from bench.backfill import job_of, migrate
from bench.report import spread
from bench.server import connect, execute, render, tidy

SHIP = "SHIP1"
TIMED = "-- timed\n"


@dataclass(frozen=True)
class Idea:
    """Two sides of ideas.sql.j2: what pymig does, and what it might do."""

    title: str
    done: str
    tried: str


IDEAS = (
    Idea(
        "rows in the order of the key, without a hash", "gather", "gather in the order of the key"
    ),
    Idea("a pass over the heap for each type of columns", "gather types", "gather type by type"),
    Idea("rows joined to their channel's type", "gather types", "gather types by a join"),
    Idea("parallel query in a chunk", "gather", "gather with parallel workers"),
    Idea("rows of a time together, their channels as one string", "gather", "gather by time"),
    Idea("all ships in one pass", "gather ship by ship", "gather all ships at once"),
    Idea("plans kept (a chunk in ten slices)", "slices planned", "slices prepared"),
    Idea("ten slices, plans kept, for one large chunk", "statement", "slices prepared"),
    Idea("JIT", "statement", "statement, compiled"),
    Idea("the key made afterwards", "write", "write, key afterwards"),
    Idea("an unlogged staging table", "write", "write by an unlogged table"),
    Idea("COPY with FREEZE from a file that is there", "write", "write by COPY with FREEZE"),
    Idea("fillfactor 50", "write", "write with room for updates"),
    Idea("wal_compression", "write", "write with compressed WAL"),
    Idea("commits that wait for the disk", "commits", "commits that wait for the disk"),
)


def run(
    url: str, ships: int, times: int, repeats: int, say: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of both sides of each idea, in every repetition."""
    job = job_of(url, SHIP, "native")
    migrate(job, "transpose", 1)
    with connect(url) as connection:
        parts = [name for (name,) in connection.execute(render("axes_parts", ship=SHIP)).fetchall()]
        execute(connection, render("ideas", side="setup"))
    names = [f"SHIP{n}" for n in range(1, ships + 1)]
    taken: dict[str, dict[str, list[float]]] = {idea.title: defaultdict(list) for idea in IDEAS}
    order = random.Random(1)
    for n in range(repeats):
        for idea in IDEAS:
            tidy(url)
            for side in order.sample([idea.done, idea.tried], 2):
                script = render("ideas", side=side, parts=parts, ships=names, times=times)
                taken[idea.title][side].append(_seconds(url, script))
        say(f"ideas: repetition {n + 1} of {repeats}")
    return taken


def _seconds(url: str, script: str) -> float:
    """Of what follows the line -- timed, in a session of its own."""
    before, timed = script.split(TIMED)
    with connect(url) as connection:
        execute(connection, before)
        started = time.perf_counter()
        execute(connection, timed)
        return time.perf_counter() - started


def table(taken: dict[str, dict[str, list[float]]]) -> str:
    """A row an idea: its time to that of what pymig does."""
    lines = ["| idea | ÷ what pymig does | s | s as it is |", "|---|--:|--:|--:|"]
    for idea in IDEAS:
        done, tried = taken[idea.title][idea.done], taken[idea.title][idea.tried]
        each = [t / d for t, d in zip(tried, done, strict=True)]
        ratio = spread(statistics.median(each), min(each), max(each), len(each))
        lines.append(
            f"| {idea.title} | {ratio} | {statistics.median(tried):.3f} "
            f"| {statistics.median(done):.3f} |"
        )
    return "\n".join(lines)
