"""Workers over many ships: each takes the first ship, in order, that has something to do.

A ship is begun, its chunks are moved by as many workers as find one free, then one worker verifies
it while the others go on with the next ship. What is done is in the database; this module decides
who does what next, and can be killed at any moment: the same call goes on where it stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Final

from pymig import db, disk
from pymig.errors import InterruptedByUser, NotDoneError, PymigError, ServerError, unexpected
from pymig.progress import Progress, Task

#: How often progress and settings are read, in seconds.
_LOOK_SECONDS: Final = 0.5
#: Pause before asking again where others hold the last chunks, or one is to be retried, in seconds.
_WAIT_SECONDS: Final = 0.1
#: Pause before asking again where work is paused or throttled, in seconds.
_HELD_SECONDS: Final = 0.3


@dataclass(frozen=True)
class Setting:
    """How a ship's chunks are moved, where nobody set it; None leaves it to the database."""

    strategy: str | None = None
    chunk_target: float | None = None
    """Seconds."""
    workers: int | None = None


@dataclass(frozen=True)
class Tuning:
    """How much may be tried to find faster settings: `pymig.tuner`."""

    share: float = 0.1
    """Of the time a ship takes, what may go to trials: at half the speed they cost half of it."""
    trials: int = 6
    """So many for a shape of ships, then the best is known; once more each that seems better."""
    seconds: float = 2.0
    """A trial takes so long at least, and until each worker has moved a chunk."""
    tunes_workers: bool = True
    """False: somebody said how many."""


@dataclass(frozen=True)
class Options:
    """How to migrate: None leaves a choice to the source's settings."""

    source: str | None = None
    workers: int = 2
    column_types: str | None = None
    strategy: str | None = None
    allow_scan: bool = False
    lock_wait_seconds: float = 600.0
    repair: bool = False
    tuning: Tuning | None = None


class Step(IntEnum):
    """What is done with a ship, in this order."""

    BEGIN = 0
    MOVE = 1
    VERIFY = 2
    DONE = 3


@dataclass
class Ship:
    """One ship on its way: the step it is at, how many workers are at it, and how it ended."""

    name: str
    step: Step
    last: Step
    workers: int = 0
    limit: int | None = None
    setting: Setting = field(default_factory=Setting)
    rests_until: float = 0.0
    held_up_by: str | None = None
    error: PymigError | None = None
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def is_free(self, now: float) -> bool:
        """Whether one more worker finds something to do."""
        if self.step is Step.DONE or now < self.rests_until:
            return False
        if self.step is Step.MOVE:
            return self.limit is None or self.workers < self.limit
        return self.workers == 0 and not (self.step is Step.BEGIN and self.held_up_by)

    def rest(self, seconds: float) -> None:
        """Leave it alone for a while."""
        self.rests_until = time.monotonic() + seconds

    def go_on(self, done: Step) -> None:
        """Take the step after the one that is done, unless another worker did."""
        if self.step is not done:
            return
        if done is self.last:
            self._end(None)
        else:
            self.step = Step(done + 1)

    def fail(self, error: PymigError) -> None:
        """End it; the first error counts."""
        if self.step is not Step.DONE:
            self._end(error)

    def _end(self, error: PymigError | None) -> None:
        self.step, self.error, self.seconds = Step.DONE, error, time.monotonic() - self.began


class Fleet:
    """Some ships, smallest first say, and the workers that take them from one step to another."""

    def __init__(
        self,
        conninfo: str,
        names: Sequence[str],
        options: Options,
        progress: Progress,
        stop: threading.Event | None,
        *,
        first: Step = Step.BEGIN,
        last: Step = Step.VERIFY,
        done: str = "verified after {:.1f} s",
    ) -> None:
        """done: what is said of a ship that has ended well; takes the seconds."""
        self.conninfo: Final = conninfo
        self.options: Final = options
        self.stop: Final = stop or threading.Event()
        self.ships: Final = [Ship(name, first, last) for name in names]
        self.wanted = options.workers
        self.workers_set: int | None = None
        self._board: Final = _Board(progress, done)
        self._lock: Final = threading.Lock()
        self._ended: Final = threading.Event()
        self._workers: Final[list[_Worker]] = []

    def run(self, look_on: Sequence[Callable[[Fleet, db.Session], None]] = ()) -> None:
        """Work until every ship is done; their errors are in the ships. Raises InterruptedByUser.

        look_on: each is called twice a second, with a connection.
        """
        with db.Session(self.conninfo, "progress", self.stop) as look:
            try:
                while not self._ended.is_set() and not self.stop.is_set():
                    self._start_missing()
                    self._look(look)
                    for each in look_on:
                        with suppress(PymigError):  # the workers will say what is wrong
                            each(self, look)
                    self._ended.wait(_LOOK_SECONDS)
            finally:
                self._wait_for_workers()
                self._board.close(self.ships)
        if self.stop.is_set():
            raise InterruptedByUser(
                "Stopped after the current chunks.", "The same command goes on where it stopped."
            )

    def leave(self, error: PymigError) -> None:
        """Give the ships up that are not begun."""
        with self._lock:
            for ship in self.ships:
                if ship.step is Step.BEGIN and not ship.workers:
                    ship.fail(error)
        self._note_end()

    def take(self) -> tuple[Ship, Step] | None:
        """A ship and what is to be done with it, for one worker; None: nothing just now."""
        now = time.monotonic()
        with self._lock:
            # One at a time: they would wait for each other at the narrow table's lock.
            is_beginning = any(ship.step is Step.BEGIN and ship.workers for ship in self.ships)
            for ship in self.ships:
                if ship.is_free(now) and not (ship.step is Step.BEGIN and is_beginning):
                    ship.workers += 1
                    return ship, ship.step
        return None

    def give_back(self, ship: Ship) -> None:
        """One worker less is at it."""
        with self._lock:
            ship.workers -= 1
        self._note_end()

    def needs(self, number: int) -> bool:
        """Whether the worker of this number is to go on."""
        return number < self.wanted and not self.stop.is_set() and not self._ended.is_set()

    def _note_end(self) -> None:
        if all(ship.step is Step.DONE and not ship.workers for ship in self.ships):
            self._ended.set()

    def _start_missing(self) -> None:
        alive = {worker.number for worker in self._workers if worker.is_alive()}
        for number in set(range(self.wanted)) - alive:
            self._workers.append(worker := _Worker(self, number))
            worker.start()

    def _wait_for_workers(self) -> None:
        while alive := [worker for worker in self._workers if worker.is_alive()]:
            for worker in alive:
                worker.cancel()
            alive[0].join(_LOOK_SECONDS)

    def _look(self, session: db.Session) -> None:
        """Show how far the ships are, and heed what was set meanwhile."""
        source = self.options.source
        try:
            session.run(disk.report)
            rows = session.select("fleet_settings", p_source=source)
            workers = {row["entity"]: row["workers"] for row in rows}
            held = {row["entity"]: row["held_up_by"] for row in rows}
            self.workers_set = workers[None]
            tuned = (s.setting.workers for s in self.ships if s.step is Step.MOVE)
            self.wanted = self.workers_set or next(filter(None, tuned), self.options.workers)
            for ship in self.ships:
                ship.limit = workers.get(ship.name)
                if (step := ship.step) is Step.BEGIN:
                    # One question for all: hundreds of ships may wait.
                    ship.held_up_by = held.get(ship.name) or held[None]
                if step is Step.BEGIN and ship.workers:
                    self._board.show(ship.name, step, [])
                elif step in (Step.MOVE, Step.VERIFY):
                    rows = session.select("progress", p_entity=ship.name, p_source=source)
                    self._board.show(ship.name, step, rows)
        except PymigError:
            pass  # the workers will say what is wrong
        self._board.say(self.ships)


class _Worker(threading.Thread):
    """One connection that does step after step, each a call of a routine of the database."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        super().__init__(name=f"pymig backfill {number + 1}", daemon=True)
        self.number: Final = number
        self._fleet: Final = fleet
        self._session: Final = db.Session(fleet.conninfo, f"backfill {number + 1}", fleet.stop)
        self._is_in_call = False

    def run(self) -> None:
        """Work as long as this worker is needed; an error ends the ship it is of."""
        fleet = self._fleet
        steps = {Step.BEGIN: self._begin, Step.MOVE: self._move, Step.VERIFY: self._verify}
        with self._session:
            while fleet.needs(self.number):
                taken = fleet.take()
                if taken is None:
                    fleet.stop.wait(_WAIT_SECONDS)
                    continue
                ship, step = taken
                try:
                    steps[step](ship)
                except Exception as error:  # raised again by whoever reads the ship
                    if not fleet.stop.is_set():
                        ship.fail(said := unexpected(error))
                        if isinstance(said, ServerError):
                            fleet.leave(said)
                finally:
                    fleet.give_back(ship)

    def cancel(self) -> None:
        """End a CALL that runs, once a stop is asked for; a chunk is finished."""
        if self._is_in_call and self._fleet.stop.is_set():
            self._session.cancel()

    def _begin(self, ship: Ship) -> None:
        options = self._fleet.options
        ship.held_up_by = self._select("held_up_by", ship)["held_up_by"]
        if ship.held_up_by:
            return
        ship.began = time.monotonic()
        self._call(
            "start_sync",
            ship,
            p_column_types=options.column_types,
            p_strategy=options.strategy,
            p_allow_scan=options.allow_scan or None,
            p_lock_wait=f"{options.lock_wait_seconds} seconds",
        )
        ship.go_on(Step.BEGIN)

    def _move(self, ship: Ship) -> None:
        fleet, setting = self._fleet, ship.setting
        step = self._select(
            "backfill_chunk",
            ship,
            p_workers=min(ship.limit or fleet.wanted, fleet.wanted),
            p_strategy=setting.strategy,
            p_target=setting.chunk_target and timedelta(seconds=setting.chunk_target),
        )
        ship.held_up_by = step["held_up_by"]
        match step["outcome"]:
            case "done":
                ship.go_on(Step.MOVE)
            case "held":
                ship.rest(_HELD_SECONDS)
            case "wait" | "retry":
                ship.rest(_WAIT_SECONDS)
            case "failed":
                # The procedure finds nothing to do but to say which chunks, and why.
                self._call("backfill", ship)
                raise NotDoneError(
                    f"The backfill of {ship.name} has chunks that failed.", "See pymig.chunk."
                )

    def _verify(self, ship: Ship) -> None:
        self._call("verify", ship, p_repair=self._fleet.options.repair or None)
        ship.go_on(Step.VERIFY)

    def _select(self, function: str, ship: Ship, **params: object) -> db.Row:
        source = self._fleet.options.source
        return self._session.select(function, p_entity=ship.name, p_source=source, **params)[0]

    def _call(self, procedure: str, ship: Ship, **params: object) -> None:
        self._is_in_call = True
        try:
            source = self._fleet.options.source
            self._session.call(procedure, p_entity=ship.name, p_source=source, **params)
        finally:
            self._is_in_call = False


class _Board:
    """What a person sees of it: a bar for each ship at work, who has to wait, how each ended."""

    _TITLES: Final = {Step.BEGIN: "start sync", Step.MOVE: "backfill", Step.VERIFY: "verify"}
    _COLUMNS: Final = {
        Step.MOVE: ("rows_done", "rows_estimated", "percent"),
        Step.VERIFY: ("buckets_verified", "buckets", "percent_verified"),
    }

    def __init__(self, progress: Progress, done: str) -> None:
        self._progress: Final = progress
        self._done: Final = done
        self._shown: Final[dict[str, tuple[Step, Task | None, ExitStack]]] = {}
        self._ended: Final[set[str]] = set()
        self._held: dict[str, list[str]] = {}

    def show(self, name: str, step: Step, rows: list[db.Row]) -> None:
        """Move the bar of a ship; rows: of pymig.progress."""
        if name in self._shown and self._shown[name][0] is not step:
            self._end(name, is_done=True)
        if name not in self._shown:
            end, title, task = ExitStack(), f"{name}: {self._TITLES[step]}", None
            if step is Step.BEGIN:
                end.enter_context(self._progress.waiting(title))
            else:
                task = end.enter_context(self._progress.task(title, name))
            self._shown[name] = (step, task, end)
        for row in rows:
            if task := self._shown[name][1]:
                task.show(*(row[column] for column in self._COLUMNS[step]))

    def say(self, ships: Sequence[Ship]) -> None:
        """Say what has changed: who waits, who goes on, who has ended."""
        for ship in ships:
            if ship.step is Step.DONE and ship.name not in self._ended:
                self._ended.add(ship.name)
                self._end(ship.name, is_done=not ship.error)
                if not ship.error:
                    said = f"{ship.name}: {self._done.format(ship.seconds)}"
                    self._progress.say(said, ship.name)
                elif len(ships) > 1:
                    said = f"{about(ship.name, ship.error)} {ship.error.hint}".rstrip()
                    self._progress.say(said, ship.name)
        self._say_held(ships)

    def close(self, ships: Sequence[Ship]) -> None:
        """Say the last of it and take all bars away."""
        self.say(ships)
        for name in list(self._shown):
            self._end(name, is_done=False)

    def _end(self, name: str, *, is_done: bool) -> None:
        if name in self._shown:
            _, task, end = self._shown.pop(name)
            with end:
                if task and is_done:
                    task.finish()

    def _say_held(self, ships: Sequence[Ship]) -> None:
        held: dict[str, list[str]] = {}
        for ship in ships:
            if ship.held_up_by and ship.step is not Step.DONE:
                # Without the measured values, which change all the time.
                held.setdefault(ship.held_up_by.partition(" (")[0], []).append(ship.name)
        for why, names in held.items():
            if why not in self._held:
                self._progress.say(f"{_who(names, 'waits', 'wait')}, {why}")
        for why, names in self._held.items():
            if why not in held:
                self._progress.say(_who(names, "goes on", "go on"))
        self._held = held


def about(ship: str, error: PymigError) -> str:
    """The error's sentence behind the ship's name, which stands there once."""
    in_sentence = "'" + ship.replace("'", "''") + "'"
    return f"{ship}: {error.message.removeprefix(in_sentence).lstrip()}"


def _who(names: Sequence[str], one: str, many: str) -> str:
    return f"{names[0]}: {one}" if len(names) == 1 else f"{len(names)} ships: {many}"
