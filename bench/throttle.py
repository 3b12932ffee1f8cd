"""What the throttle does to history, and to ingest: a migration held up twice, by real conditions.

A ship after the other is migrated while single rows arrive. A replication slot that nobody reads
keeps WAL until history has to wait, and is dropped; later a session waits for a lock, and gets it.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from bench.load import Load, Run, Worker, beside, ingest, quantile
from bench.server import connect, execute, render
from bench.sync import prepare
from pymig.errors import InterruptedByUser
from pymig.migrate import Options, migrate_ships

CLIENTS, RATE = 4, 400.0  # statements a second, of all clients
BEFORE, HELD, BETWEEN, AFTER = 4.0, 4.0, 5.0, 4.0  # seconds
BIN = 0.25  # seconds
GOAL = 2.0  # seconds until work stops
#: Condition -> its limit here; nothing else is looked at.
LIMITS = {"wal kept by slots": 1e6, "lock waits": 0.0}


@dataclass
class Hold:
    """One condition: when it began and ended, by the clock of this machine."""

    condition: str
    began: float = 0.0
    ended: float = 0.0


@dataclass
class Taken:
    """What happened: seconds since the start; narrow rows of each chunk by its end; ingest."""

    holds: list[Hold] = field(default_factory=list)
    chunks: list[tuple[float, int]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    started: float = 0.0

    def stopped_after(self, hold: Hold) -> float:
        """Seconds from the condition to the end of the last chunk before work stood still."""
        ends = [end for end, _ in self.chunks if hold.began <= end <= hold.ended]
        return max(ends, default=hold.began) - hold.began

    def resumed_after(self, hold: Hold) -> float:
        """Seconds from its end to the end of the next chunk."""
        return min(end for end, _ in self.chunks if end > hold.ended) - hold.ended

    def ingest_p99(self, since: float, until: float) -> float:
        """Of the statements that ended between; seconds."""
        return quantile([run.took for run in self.runs if since <= run.ended <= until], 0.99)


def run(url: str, channels: int, ships: int, say: Callable[[str], None]) -> Taken:
    """One run of about twenty seconds."""
    prepare(url, 4, channels, "native", ())
    taken = Taken()
    with connect(url) as connection:
        execute(connection, render("throttle", what="begin", limits=LIMITS))
    load = Load("single", render("pgbench_single", rows=1, channels=channels), 1, CLIENTS)
    with Worker(url) as worker, worker.working():
        say("throttle: a migration, and ingest beside it")
        with beside(_migrate, url), beside(_hold, url, taken.holds):
            taken.started = time.time()
            taken.runs = ingest(url, load, rate=RATE, seconds=BEFORE + 2 * HELD + BETWEEN + AFTER)
    with connect(url) as connection:
        rows = connection.execute(render("throttle", what="chunks")).fetchall()
    taken.chunks = [(float(end), int(narrow)) for end, narrow in rows]
    return taken


def _migrate(stop: threading.Event, url: str) -> None:
    # One worker, and not the fastest strategy: the history lasts for as long as we look.
    options = Options(workers=1, column_types="text", strategy="json")
    with suppress(InterruptedByUser):
        migrate_ships(url, options=options, stop=stop)


def _hold(stop: threading.Event, url: str, holds: list[Hold]) -> None:
    stop.wait(BEFORE)
    for condition in LIMITS:
        hold = Hold(condition)
        with (
            psycopg.connect(url, autocommit=True, application_name="bench") as one,
            psycopg.connect(url, autocommit=True, application_name="bench") as other,
        ):
            hold.began = time.time()
            waiting = _cause(condition, one, other)
            stop.wait(HELD)
            execute(one, render("throttle", what=f"end {condition}"))
            hold.ended = time.time()
            waiting.join()
        holds.append(hold)
        stop.wait(BETWEEN)


def _cause(condition: str, one: psycopg.Connection, other: psycopg.Connection) -> threading.Thread:
    """Bring it about; the thread is what waits."""
    execute(one, render("throttle", what=f"cause {condition}"))
    wait = render("throttle", what=f"wait {condition}")
    thread = threading.Thread(target=lambda: execute(other, wait), daemon=True)
    thread.start()
    return thread


def table(taken: Taken) -> str:
    """A line for each condition."""
    first = taken.holds[0].began
    before = taken.ingest_p99(first - BEFORE / 2, first)
    lines = [
        "| condition, caused for real | history stops after | goes on after | ingest p99 before |"
        " while it waits |",
        "|---|--:|--:|--:|--:|",
    ]
    for hold in taken.holds:
        during = taken.ingest_p99(hold.began, hold.ended)
        lines.append(
            f"| {hold.condition} | {taken.stopped_after(hold):.1f} s "
            f"| {taken.resumed_after(hold):.1f} s | {1000 * before:.1f} ms "
            f"| {1000 * during:.1f} ms |"
        )
    worst = max(taken.stopped_after(hold) for hold in taken.holds)
    met = "met" if worst < GOAL else "**missed**"
    return "\n".join([*lines, "", f"- history stops: goal < {GOAL:.0f} s: {worst:.1f} s, {met}"])
