"""The migration as the command line runs it: start_sync, backfill by several connections, verify.

Every step is a routine of the database; this module paces them, several at a time, and can be
killed at any moment: the same call goes on where it stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pymig import db, disk
from pymig.errors import InterruptedByUser, NotDoneError, PymigError, unexpected
from pymig.progress import Progress, QuietProgress
from pymig.worker import BackgroundWorker

#: Pause before asking again where others hold the last chunks, or one is to be retried, in seconds.
_WAIT_SECONDS: Final = 0.1
#: How often the progress is read, in seconds.
_LOOK_SECONDS: Final = 0.5
#: Pause before asking again where work is paused or throttled, in seconds.
_HELD_SECONDS: Final = 0.3


@dataclass(frozen=True)
class Options:
    """How to migrate: None leaves a choice to the source's settings."""

    source: str | None = None
    workers: int = 2
    column_types: str | None = None
    strategy: str | None = None
    allow_scan: bool = False
    lock_wait_seconds: float = 600.0


@dataclass(frozen=True)
class ShipResult:
    """What came of one ship: seconds it took, and the error that kept it from being verified."""

    ship: str
    seconds: float
    error: PymigError | None = None


@dataclass(frozen=True)
class MigrationReport:
    """What came of all of them, in the order they were done."""

    ships: Sequence[ShipResult] = field(default_factory=tuple)

    @property
    def failed(self) -> list[ShipResult]:
        """The ships that are not verified."""
        return [ship for ship in self.ships if ship.error]


def resolve_ships(
    conninfo: str, ships: str, source: str | None, *, allow_scan: bool = False
) -> list[str]:
    """Entities meant by one name, a comma list or `all`; smallest first. Raises PymigError."""
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
    workers: int | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> MigrationReport:
    """Migrate ships one after the other, smallest first, with a sync worker beside.

    ships: one, a comma list, or all. workers: overrides options.workers. One failing ship doesn't
    stop the others: the report says which. stop: set it and the chunks that run are finished, then
    InterruptedByUser is raised. Raises PymigError where nothing could be begun.
    """
    chosen = options or Options()
    migration = _Migration(
        conninfo, chosen, workers or chosen.workers, progress or QuietProgress(), stop
    )
    with migration.progress.waiting("ships"):
        names = resolve_ships(conninfo, ships, chosen.source, allow_scan=chosen.allow_scan)
    worker = BackgroundWorker(conninfo, chosen.source)
    worker.start()
    try:
        results = []
        for name in names:
            results.append(result := migration.migrate(name))
            if result.error and len(names) > 1:
                said = f"{about(name, result.error)} {result.error.hint}".rstrip()
                migration.progress.say(said, name)
        return MigrationReport(tuple(results))
    finally:
        worker.stop()


def backfill_ship(
    conninfo: str,
    ship: str,
    *,
    options: Options,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Move the history of a ship that syncs already. Raises PymigError."""
    migration = _Migration(conninfo, options, options.workers, progress or QuietProgress(), stop)
    migration.backfill(ship)


def verify_ship(
    conninfo: str,
    ship: str,
    *,
    source: str | None,
    repair: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Compare every cell of a ship; with repair, recompute what differs. Raises PymigError."""
    migration = _Migration(conninfo, Options(source=source), 1, progress or QuietProgress(), stop)
    migration.verify(ship, repair=repair)


def about(ship: str, error: PymigError) -> str:
    """The error's sentence behind the ship's name, which stands there once."""
    in_sentence = "'" + ship.replace("'", "''") + "'"
    return f"{ship}: {error.message.removeprefix(in_sentence).lstrip()}"


class _Migration:
    """One run: the connection string, the options, the progress shown and the wish to stop."""

    def __init__(
        self,
        conninfo: str,
        options: Options,
        workers: int,
        progress: Progress,
        stop: threading.Event | None,
    ) -> None:
        self.conninfo: Final = conninfo
        self.options: Final = options
        self.workers: Final = workers
        self.progress: Final = progress
        self.stop: Final = stop or threading.Event()

    def migrate(self, ship: str) -> ShipResult:
        """Do the three steps for one ship; errors but InterruptedByUser go into the result."""
        began = time.monotonic()
        try:
            self.start_sync(ship)
            self.backfill(ship)
            self.verify(ship)
        except InterruptedByUser:
            raise
        except PymigError as error:
            return ShipResult(ship, time.monotonic() - began, error)
        return ShipResult(ship, time.monotonic() - began)

    def start_sync(self, ship: str) -> None:
        """Arm the source and create the ship's wide tables."""
        options = self.options
        with self.progress.waiting(f"{ship}: start sync"):
            self._call_in_thread(
                "start_sync",
                p_entity=ship,
                p_source=options.source,
                p_column_types=options.column_types,
                p_strategy=options.strategy,
                p_allow_scan=options.allow_scan or None,
                p_lock_wait=f"{options.lock_wait_seconds} seconds",
            )

    def backfill(self, ship: str) -> None:
        """Move all chunks with several connections. Raises NotDoneError where chunks failed."""
        threads = [_ChunkMover(self, ship, number) for number in range(self.workers)]
        with (
            self.progress.task(f"{ship}: backfill", ship) as task,
            db.Session(self.conninfo, "progress", self.stop) as look,
        ):
            for thread in threads:
                thread.start()
            held = None
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(_LOOK_SECONDS)
                for row in self._look(look, ship):
                    task.show(row["rows_done"], row["rows_estimated"], row["percent"])
                before, held = held, next((t.held_up_by for t in alive if t.held_up_by), None)
                if bool(before) != bool(held):
                    self.progress.say(f"{ship}: {f'waits, {held}' if held else 'goes on'}", ship)
        self._raise_if_stopped()
        for thread in threads:
            if thread.error:
                raise thread.error
        if any(thread.outcome == "failed" for thread in threads):
            # The procedure finds nothing to do but to say which chunks, and why.
            self._call_in_thread("backfill", p_entity=ship, p_source=self.options.source)
            raise NotDoneError(
                f"The backfill of {ship} has chunks that failed.", "See pymig.chunk."
            )

    def verify(self, ship: str, *, repair: bool = False) -> None:
        """Drain, then compare every cell."""
        with (
            self.progress.task(f"{ship}: verify", ship) as task,
            db.Session(self.conninfo, "progress", self.stop) as look,
        ):

            def show() -> None:
                for row in self._look(look, ship):
                    task.show(row["buckets_verified"], row["buckets"], row["percent_verified"])

            self._call_in_thread(
                "verify", show, p_entity=ship, p_source=self.options.source, p_repair=repair or None
            )

    def _look(self, session: db.Session, ship: str) -> list[db.Row]:
        try:
            session.run(disk.report)
            return session.select("progress", p_entity=ship, p_source=self.options.source)
        except PymigError:
            return []  # the movers will say what is wrong

    def _call_in_thread(
        self, procedure: str, show: Callable[[], None] | None = None, **params: object
    ) -> None:
        """CALL a procedure that commits as it goes, and cancel it when a stop is asked for."""
        call = _Call(self, procedure, params)
        call.start()
        while call.is_alive():
            call.join(_LOOK_SECONDS)
            if self.stop.is_set():
                call.session.cancel()
            elif show:
                show()
        self._raise_if_stopped()
        if call.error:
            raise call.error

    def _raise_if_stopped(self) -> None:
        if self.stop.is_set():
            raise InterruptedByUser(
                "Stopped after the current chunks.", "The same command goes on where it stopped."
            )


class _Call(threading.Thread):
    """One CALL on a connection of its own."""

    def __init__(self, migration: _Migration, procedure: str, params: dict[str, object]) -> None:
        super().__init__(name=f"pymig {procedure}", daemon=True)
        self.session: Final = db.Session(migration.conninfo, procedure, migration.stop)
        self.error: PymigError | None = None
        self._procedure: Final = procedure
        self._params: Final = params

    def run(self) -> None:
        """Call, reconnecting where the connection is lost; keep the error."""
        try:
            with self.session as session:
                session.call(self._procedure, **self._params)
        except Exception as error:  # raised again by whoever waits for this thread
            self.error = unexpected(error)


class _ChunkMover(threading.Thread):
    """One connection that takes chunk after chunk until there is none."""

    def __init__(self, migration: _Migration, ship: str, number: int) -> None:
        super().__init__(name=f"pymig backfill {number + 1}", daemon=True)
        self.outcome = ""
        self.held_up_by: str | None = None
        self.error: PymigError | None = None
        self._migration: Final = migration
        self._ship: Final = ship
        self._number: Final = number

    def run(self) -> None:
        """Loop over pymig.backfill_chunk; each call is one transaction."""
        migration = self._migration
        params = {
            "p_entity": self._ship,
            "p_source": migration.options.source,
            "p_workers": migration.workers,
        }
        try:
            with db.Session(
                migration.conninfo, f"backfill {self._number + 1}", migration.stop
            ) as session:
                while self.outcome not in ("done", "failed") and not migration.stop.is_set():
                    step = session.select("backfill_chunk", **params)[0]
                    self.outcome, self.held_up_by = step["outcome"], step["held_up_by"]
                    if self.outcome == "held":
                        migration.stop.wait(_HELD_SECONDS)
                    elif self.outcome in ("wait", "retry"):
                        migration.stop.wait(_WAIT_SECONDS)
        except Exception as error:  # raised again by whoever waits for this thread
            self.error = unexpected(error)
