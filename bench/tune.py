"""Does `pymig migrate --tune` pay? The fixed default against the tuner, in turn.

Each point is a ship in a database of its own. What the tuner learns with comes first: migrations of
the same ship that are nothing but trials, with the strategy that auto found. Then in each
repetition, in a new order: the default; the tuner where nothing was learned yet; the tuner with
what was learned.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench.axes import SHIP, STEP, Point
from bench.backfill import job_of, read_floor
from bench.peers import Job
from bench.report import spread
from bench.server import another_database, connect, load, render, tidy
from pymig.migrate import Options, Tuning, backfill_ships
from pymig.progress import QuietProgress

DEFAULT, COLD, LEARNED = "default", "tuned, nothing learned", "tuned, learned"
VARIANTS = (DEFAULT, COLD, LEARNED)
#: At most so many migrations to learn with; fewer where nothing is left to be tried.
LEARN_RUNS = 6
LEARNING = Tuning(share=1000.0, seconds=0.5)
# What the issue asks for.
BEATS, WORSE, POINTS = 1.05, 0.95, 3


@dataclass(frozen=True)
class Case:
    """A point, and whose trials it begins with where its own history is too short for any."""

    point: Point
    learns_from: str | None = None


LONG = "1,000 channels, 16 million rows"
CASES = (
    Case(Point("10 channels, 2 million rows", channels=10, times=200_000)),
    Case(Point("100 channels, 8 million rows", channels=100, times=80_000)),
    Case(Point(LONG, times=16_000)),
    Case(Point("the same, text", times=16_000, types="text")),
    Case(Point("1,000 channels, 1 million rows", times=1000), LONG),
    Case(Point("3,000 channels, 9 million rows", channels=3000, times=3000)),
    Case(Point("1,000 channels, 5 % filled, 2 million rows", times=40_000, fill=5)),
)


def run(url: str, repeats: int, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Rows, seconds of every repetition, and what was learned, by the labels of the points."""
    found: dict[str, Any] = {}
    learned: dict[str, list[tuple[Any, ...]]] = {}
    urls: dict[tuple[int, int, int], str] = {}
    order = random.Random(1)
    with ExitStack() as stack:
        for number, case in enumerate(CASES):
            point, label = case.point, case.point.label
            times = point.times // 20 if quick else point.times
            data = (point.channels, times, point.fill)
            if data not in urls:
                say(f"tune: loading {label}")
                urls[data] = stack.enter_context(another_database(url, f"tune{number}"))
                load(urls[data], 1, point.channels, times, STEP, point.fill)
            job = job_of(urls[data], SHIP, point.types)
            read_floor(job)  # other points may have taken its place in shared_buffers
            learned[label] = learned[case.learns_from] if case.learns_from else _learn(job)
            found[label] = _measure(job, learned[label], repeats, order)
            say(f"{label}: {found[label]['seconds']}")
    return found


def _learn(job: Job) -> list[tuple[Any, ...]]:
    """Migrate until nothing is left to be tried; the trials."""
    _recall(job, [])
    _migrate(job, None)
    with connect(job.url) as connection:
        row = connection.execute(render("tune", what="strategy", ship=SHIP)).fetchone()
    strategy = str(row[0]) if row else "auto"
    trials: list[tuple[Any, ...]] = []
    for _ in range(LEARN_RUNS):
        before = len(trials)
        _migrate(job, LEARNING, strategy)
        with connect(job.url) as connection:
            trials = connection.execute(render("tune", what="read")).fetchall()
        if before == len(trials) > 0:
            break
    return trials


def _recall(job: Job, trials: Sequence[tuple[Any, ...]]) -> None:
    """These are what was learned, and nothing else."""
    with connect(job.url) as connection:
        connection.execute(render("tune", what="forget"))
        connection.cursor().executemany(render("tune", what="recall"), trials)


def _measure(
    job: Job, learned: Sequence[tuple[Any, ...]], repeats: int, order: random.Random
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    said: list[str] = []
    for _ in range(repeats):
        for name in order.sample(VARIANTS, len(VARIANTS)):
            _recall(job, learned if name == LEARNED else [])
            taken, words = _migrate(job, None if name == DEFAULT else Tuning())
            seconds[name].append(round(taken, 4))
            if name == LEARNED:
                said += words
    _recall(job, learned)
    with connect(job.url) as connection:
        row = connection.execute(render("tune", what="rows", ship=SHIP)).fetchone()
        known = connection.execute(render("tune", what="known", ship=SHIP)).fetchall()
    return {
        "rows": int(row[0]) if row else 0,
        "seconds": seconds,
        "known": [list(each) for each in known],
        "said": said,
    }


class _Said(QuietProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Keep what the tuner says."""
        if "learned" in sentence or "goes on with" in sentence:
            self.said.append(sentence.partition(": ")[2])


def _migrate(job: Job, tuning: Tuning | None, strategy: str = "auto") -> tuple[float, list[str]]:
    """Start the ship anew; seconds its history takes as the command moves it, and what is said."""
    with connect(job.url) as connection:
        for call in ("roll_back", "start_sync"):
            connection.execute(job.sql("pymig", call=call, strategy=strategy))
    tidy(job.url)
    progress = _Said()
    started = time.perf_counter()
    report = backfill_ships(job.url, [SHIP], options=Options(tuning=tuning), progress=progress)
    taken = time.perf_counter() - started
    if report.failed:
        raise report.failed[SHIP]
    return taken, progress.said


def speeds(found: dict[str, Any], name: str) -> list[float]:
    """How many times as fast as the default, of every repetition."""
    seconds = found["seconds"]
    return [d / t for d, t in zip(seconds[DEFAULT], seconds[name], strict=True)]


def table(figures: dict[str, Any]) -> str:
    """Points as rows; then what the issue asks for."""
    lines = [
        "| | default, s | tuned, nothing learned: times as fast | tuned, learned: times as fast "
        "| what it begins with |",
        "|---|--:|--:|--:|---|",
    ]
    for label, found in figures.items():
        shown = " | ".join(_spread(speeds(found, name)) for name in (COLD, LEARNED))
        begins = next((s for s in found["said"] if s.startswith("begins")), f": {_unsaid(found)}")
        default = statistics.median(found["seconds"][DEFAULT])
        lines.append(f"| {label} | {default:.2f} | {shown} | {begins.partition(': ')[2]} |")
    lines.append("")
    for name in (COLD, LEARNED):
        medians = {
            label: statistics.median(speeds(found, name)) for label, found in figures.items()
        }
        better = sum(min(speeds(found, name)) >= BEATS for found in figures.values())
        worst = min(medians, key=lambda label: medians[label])
        lines += [
            f"- {name}: over 5 % faster in every repetition on {better} of {len(medians)}: "
            f"goal ≥ {POINTS}, {_met(better >= POINTS)}",
            f"- {name}: never over 5 % slower (median): {medians[worst]:.2f} times as fast "
            f"on {worst}, {_met(medians[worst] >= WORSE)}",
        ]
    return "\n".join(lines)


def _unsaid(found: dict[str, Any]) -> str:
    """Why it does not begin with what was learned."""
    return "the default, with trials left" if found["known"] else "the default: too short to learn"


def _spread(each: list[float]) -> str:
    return spread(statistics.median(each), min(each), max(each), len(each))


def _met(met: bool) -> str:
    return "met" if met else "**missed**"
