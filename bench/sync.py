"""Ingest time with pymig's triggers, without any, with `direct`, and with a plain per-row upsert.

Short turns, one variant after the other in changing order, so that what else the machine does hits
all alike. A figure is a ratio to the turn without trigger of the same repetition.
"""

import random
from collections.abc import Callable
from contextlib import nullcontext

from bench.load import Load, Worker, ingest, loads, seconds_per_run
from bench.server import connect, execute, render

NONE, QUEUE, BESIDE = "no trigger", "pymig", "pymig, its worker beside"
NONE_BESIDE = "no trigger, an idle worker beside"
DIRECT, PLAIN = "pymig, direct", "plain per-row upsert"
VARIANTS = (NONE, NONE_BESIDE, QUEUE, BESIDE, DIRECT, PLAIN)
SHIPS = ("SHIP1", "SHIP2", "SHIP3", "SHIP4")
# What issue 3 asks of `pymig`, in the order of the loads.
GOALS = (1.10, 1.10, 1.20, 1.25, 1.50)
PLAIN_REPEATS = 2  # dozens of times slower than the rest: the first repetitions say enough

Seconds = dict[str, dict[str, list[float]]]


def prepare(url: str, ships: int, channels: int, types: str, migrated: tuple[str, ...]) -> None:
    """Migrate the ships, so that the triggers are there, and make the bench's own tables."""
    with connect(url) as connection:
        for ship in migrated:
            call = {"ship": ship, "types": types, "strategy": "auto"}
            connection.execute(render("pymig", call="start_sync", **call))
            step = render("pymig", call="backfill_chunk", **call)
            while (row := connection.execute(step).fetchone()) and row[0] != "done":
                assert row[0] != "failed", "a chunk failed"
        names = [name for (name,) in connection.execute(render("sync_names")).fetchall()]
        values = {"ships": ships, "channels": channels, "names": names}
        execute(connection, render("sync_schema", **values))
        execute(connection, render("plain_trigger"))


def run(
    url: str, ships: int, channels: int, types: str, repeats: int, say: Callable[[str], None]
) -> Seconds:
    """Seconds per run of the script: of every load, every variant, every repetition."""
    prepare(url, ships, channels, types, SHIPS)
    every = loads(channels)
    taken: Seconds = {load.name: {} for load in every}
    order = random.Random(1)
    with Worker(url) as worker, connect(url) as connection:
        variants = [NONE, QUEUE, BESIDE, NONE_BESIDE, PLAIN]
        if (connection.execute(render("sync_has_direct")).fetchone() or [False])[0]:
            variants.insert(3, DIRECT)
        for n in range(repeats):
            for load in every:
                order.shuffle(variants)
                for name in variants:
                    if name != PLAIN or n < PLAIN_REPEATS:
                        seconds = _turn(url, load, name, worker)
                        taken[load.name].setdefault(name, []).append(seconds)
            say(f"sync: repetition {n + 1} of {repeats}")
    return taken


def _turn(url: str, load: Load, name: str, worker: Worker) -> float:
    is_ours = name in (QUEUE, BESIDE, DIRECT)
    with connect(url) as connection:
        connection.execute(render("sync_triggers", on=is_ours))
        if name == PLAIN:
            connection.execute(render("trigger_on"))
        if name == DIRECT:
            _set_sync(url, "direct")
        try:
            with worker.working() if name in (BESIDE, NONE_BESIDE) else nullcontext():
                runs = ingest(url, load, runs=max(3, load.runs // 20) if name == PLAIN else None)
        finally:
            if name == PLAIN:
                connection.execute(render("trigger_off"))
            if name == DIRECT:
                _set_sync(url, "pending")
            connection.execute(render("sync_triggers", on=True))
        execute(connection, render("sync_clean"))
    return seconds_per_run(runs)


def _set_sync(url: str, mode: str) -> None:
    with connect(url) as connection:
        for ship in SHIPS:
            connection.execute(render("sync_set", ship=ship, mode=mode))
