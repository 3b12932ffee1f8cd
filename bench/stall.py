"""What those who write and read notice of a cutover and of a rollback, while both go on.

One phase is one run of pgbench: single rows in autocommit by four clients at a steady rate, into
the narrow table; beside it a session reads the ship with pymig.read(), every few milliseconds. In
the middle of it a ship is cut over, or rolled back; in the control nothing happens. It is the only
ship that is migrated, so its rollback takes the triggers of the narrow table away, too.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from bench.backfill import move_chunks
from bench.lag import sample_waits
from bench.load import Load, Worker, beside, ingest
from bench.server import connect, execute, render
from bench.sync import prepare

SHIP = "SHIP1"
CLIENTS, RATE = 4, 400.0  # statements a second, of all clients
BEFORE, AFTER = 3.0, 3.0  # seconds of a phase before and after what happens
QUIET = 1.0  # seconds of the control that are looked at
CONTROL, CUT_OVER, ROLL_BACK = "nothing", "cutover", "rollback, triggers included"
PHASES = (CONTROL, CUT_OVER, ROLL_BACK)
GOAL = 0.1  # seconds
_PAUSE = 0.002


@dataclass
class Taken:
    """Seconds: how long the call took, and the slowest of those beside it, in every repetition."""

    call: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    statements: int = 0


def run(
    url: str, channels: int, types: str, repeats: int, say: Callable[[str], None]
) -> dict[str, Taken]:
    """All phases, so many times."""
    prepare(url, 4, channels, types, ())
    load = Load("single", render("pgbench_single", rows=1, channels=channels), 1, CLIENTS)
    taken: dict[str, Taken] = defaultdict(Taken)
    with Worker(url) as worker, worker.working():
        for n in range(repeats):
            call = {"ship": SHIP, "types": types, "strategy": "auto"}
            with connect(url) as connection:
                connection.execute(render("pymig", call="start_sync", **call))
                move_chunks(url, render("pymig", call="backfill_chunk", **call))
                connection.execute("CALL pymig.certify(%s)", [SHIP])
            for phase in PHASES:
                _phase(url, load, phase, taken[phase])
            say(f"stall: repetition {n + 1} of {repeats}")
    return taken


def _phase(url: str, load: Load, phase: str, taken: Taken) -> None:
    window: list[float] = []
    reads: list[tuple[float, float]] = []
    with (
        beside(sample_waits, url, taken.waits),
        beside(_read, url, reads),
        beside(_act, url, phase, window),
    ):
        runs = ingest(url, load, rate=RATE, seconds=BEFORE + AFTER)
    began, ended = window
    taken.call.append(ended - began)
    taken.write.append(_slowest([(run.ended, run.took) for run in runs], began, ended))
    taken.read.append(_slowest(reads, began, ended))
    taken.statements += len(runs) + len(reads)
    with connect(url) as connection:
        execute(connection, render("sync_clean"))


def _slowest(runs: list[tuple[float, float]], began: float, ended: float) -> float:
    """Of those (end, duration) that were under way at some time between."""
    return max((t for end, t in runs if end >= began and end - t <= ended), default=0.0)


def _act(stop: threading.Event, url: str, phase: str, window: list[float]) -> None:
    with psycopg.connect(url, autocommit=True, application_name="pymig bench") as connection:
        stop.wait(BEFORE)
        window.append(time.time())
        if phase == CONTROL:
            stop.wait(QUIET)
        elif phase == CUT_OVER:
            connection.execute("CALL pymig.cut_over(%s)", [SHIP])
        else:
            connection.execute(render("pymig", call="roll_back", ship=SHIP))
        window.append(time.time())


def _read(stop: threading.Event, url: str, reads: list[tuple[float, float]]) -> None:
    """Read one channel's newest minute, again and again; an error ends the benchmark."""
    with connect(url) as connection:
        row = connection.execute(render("sync_names")).fetchone()
        assert row
        query = "SELECT count(*) FROM pymig.read(%s, ARRAY[%s], '2026-01-01', '2026-01-01 00:01')"
        while not stop.wait(_PAUSE):
            began = time.time()
            connection.execute(query, [SHIP, row[0]])
            reads.append((time.time(), time.time() - began))


def table(taken: dict[str, Taken]) -> str:
    """Phases as rows; the worst of all repetitions counts."""
    lines = [
        "Milliseconds, the worst of all repetitions.",
        "",
        "| what happens | takes | slowest write beside | slowest read beside | longest lock wait |"
        " statements |",
        "|---|" + "--:|" * 5,
    ]
    for name, t in taken.items():
        shown = (max(values, default=0.0) for values in (t.call, t.write, t.read, t.waits))
        lines.append(
            f"| {name} | {' | '.join(f'{1000 * s:.0f}' for s in shown)} | {t.statements:,} |"
        )
    lines.append("")
    for name in PHASES[1:]:
        worst = max([*taken[name].write, *taken[name].read])
        met = "met" if worst < GOAL else "**missed**"
        lines.append(f"- {name}: goal < {1000 * GOAL:.0f} ms: {1000 * worst:.0f} ms, {met}")
    return "\n".join(lines)
