"""The migration as the command line runs it: start_sync, backfill and verify of one ship or many.

Every step is a routine of the database; `pymig.fleet` has several connections take them in turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pymig import db
from pymig.errors import NotDoneError, PymigError, UsageError
from pymig.fleet import Fleet, Options, Ship, Step, Tuning
from pymig.progress import Progress, QuietProgress
from pymig.worker import BackgroundWorker

__all__ = [
    "Canary",
    "MigrationReport",
    "Options",
    "Tuning",
    "backfill_ships",
    "migrate_ships",
    "resolve_ships",
    "verify_ships",
]

_VERIFIED: Final = ("verified", "cut_over", "finalized")


@dataclass(frozen=True)
class Canary:
    """The ship that goes first, and how long it is watched before the others follow by themselves.

    pause_seconds None: until somebody resumes them.
    """

    ship: str
    pause_seconds: float | None = None


@dataclass(frozen=True)
class MigrationReport:
    """What came of the ships, in the order they were taken."""

    ships: Sequence[Ship] = field(default_factory=tuple)

    @property
    def failed(self) -> dict[str, PymigError]:
        """The ships that did not come to the end, and why."""
        return {ship.name: ship.error for ship in self.ships if ship.error}


def resolve_ships(
    conninfo: str, ships: str, source: str | None, *, allow_scan: bool = False
) -> list[str]:
    """Entities meant by one name, a comma list or `all`: by priority, then smallest first.

    Raises PymigError.
    """
    with db.Session(conninfo, "cli", patient=False) as session:
        rows = session.select(
            "resolve_entities", p_entities=ships, p_source=source, p_allow_scan=allow_scan
        )
    return [row["entity"] for row in rows]


def migrate_ships(
    conninfo: str,
    ships: str = "all",
    *,
    options: Options | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    canary: Canary | None = None,
) -> MigrationReport:
    """Migrate ships with options.workers connections, and a sync worker beside.

    ships: one, a comma list, or all. One failing ship doesn't stop the others: the report says
    which. canary: this one first; the others follow when it has verified and they are resumed.
    stop: set it and the chunks that run are finished, then InterruptedByUser is raised. Raises
    PymigError where nothing could be begun.
    """
    chosen, shown = options or Options(), progress or QuietProgress()
    look_on = _tuner(chosen, shown)
    with shown.waiting("ships"):
        names = resolve_ships(conninfo, ships, chosen.source, allow_scan=chosen.allow_scan)
    watch = _CanaryWatch(conninfo, canary, names, chosen.source, shown) if canary else None
    if watch:
        look_on.append(watch.look)
    fleet = Fleet(conninfo, watch.order if watch else names, chosen, shown, stop)
    worker = BackgroundWorker(conninfo, chosen.source)
    worker.start()
    try:
        fleet.run(look_on)
    finally:
        worker.stop()
    return MigrationReport(fleet.ships)


def backfill_ships(
    conninfo: str,
    names: Sequence[str],
    *,
    options: Options,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> MigrationReport:
    """Move the history of ships that sync already. Raises InterruptedByUser."""
    shown = progress or QuietProgress()
    look_on = _tuner(options, shown)
    fleet = Fleet(
        conninfo, names, options, shown, stop,
        first=Step.MOVE, last=Step.MOVE, done="all of its history is moved",
    )  # fmt: skip
    fleet.run(look_on)
    return MigrationReport(fleet.ships)


def verify_ships(
    conninfo: str,
    names: Sequence[str],
    *,
    source: str | None,
    repair: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> MigrationReport:
    """Compare every cell of ships; repair: recompute what differs. Raises InterruptedByUser."""
    options = Options(source=source, workers=1, repair=repair)
    fleet = Fleet(
        conninfo, names, options, progress or QuietProgress(), stop,
        first=Step.VERIFY, last=Step.VERIFY, done="every cell is equal",
    )  # fmt: skip
    fleet.run()
    return MigrationReport(fleet.ships)


def _tuner(options: Options, progress: Progress) -> list[Callable[[Fleet, db.Session], None]]:
    """What looks for faster settings while ships are moved, where that is asked for."""
    if not options.tuning:
        return []
    try:
        from pymig.tuner import Tuner
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--tune needs more packages; {error.name} is missing.",
            "Install them: pip install 'pymig[tune]'.",
        ) from error
    return [Tuner(options.tuning, options.workers, progress).look]


class _CanaryWatch:
    """Holds the other ships back by pausing them, which survives this process, until it is time."""

    def __init__(
        self,
        conninfo: str,
        canary: Canary,
        names: Sequence[str],
        source: str | None,
        progress: Progress,
    ) -> None:
        if canary.ship not in names:
            raise UsageError(
                f"The canary {canary.ship} is not among the ships to migrate.",
                "Name one of --ship, as pymig plan shows it.",
            )
        self.order: Final = [canary.ship, *(name for name in names if name != canary.ship)]
        self._canary: Final = canary
        self._source: Final = source
        self._progress: Final = progress
        self._reason: Final = f"until {canary.ship}, the canary, has shown how it goes"
        self._since: float | None = None
        with db.Session(conninfo, "cli", patient=False) as session:
            states = {row["entity"]: row["state"] for row in self._entities(session)}
            if states.get(canary.ship) not in _VERIFIED:
                for name in self.order[1:]:
                    if states.get(name) not in _VERIFIED:
                        session.call("pause", p_entity=name, p_source=source, p_reason=self._reason)

    def look(self, fleet: Fleet, session: db.Session) -> None:
        """Give the others up where the canary failed; resume them once it was watched."""
        first = fleet.ships[0]
        if first.step is not Step.DONE:
            return
        if first.error:
            why = f"It was not begun, for {first.name}, the canary, failed."
            fleet.leave(NotDoneError(why, "Remove the cause and run the same command again."))
            return
        pause = self._canary.pause_seconds
        if self._since is None:
            self._since = time.monotonic()
            if waiting := self._waiting(session):
                when = "pymig resume lets them go" if pause is None else f"for {pause:g} s"
                self._progress.say(f"{first.name} is verified; {len(waiting)} others wait: {when}")
        elif pause is not None and time.monotonic() - self._since >= pause:
            for name in self._waiting(session):
                session.call("resume", p_entity=name, p_source=self._source)

    def _waiting(self, session: db.Session) -> list[str]:
        return [e["entity"] for e in self._entities(session) if e["paused_for"] == self._reason]

    def _entities(self, session: db.Session) -> list[db.Row]:
        return [e for e in session.read("entity") if self._source in (None, e["source"])]
