"""What commands need of the database: a session, options, the ships that were named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pymig import db, steps
from pymig.cli.options import LOCK_WAIT
from pymig.cli.output import OUT, say
from pymig.errors import DifferenceError, NotDoneError, PymigError, UsageError
from pymig.progress import waiting
from pymig.settings import Settings

if TYPE_CHECKING:
    from pymig.migrate import Options


def conninfo() -> str:
    """The server the environment names, else the embedded one, started."""
    settings = Settings.load()
    if not settings.uses_embedded_server:
        return settings.conninfo
    from pymig.server import demo_cluster

    cluster = demo_cluster(settings.server_dir)
    with waiting(OUT, "the embedded server starts"):
        cluster.start()
    return cluster.url()


def open_session() -> db.Session:
    """A session of the command line: it does not wait for a server that is away."""
    return db.Session(conninfo(), "cli", patient=False)


def step(
    title: str, ship: str, options: Options, figures: Callable[[db.Row], steps.Figures]
) -> AbstractContextManager[None]:
    """A bar for a command on a ship, on a terminal; see steps.step."""
    return steps.step(OUT, conninfo(), title, ship, options.source, figures)


def options_of(
    *,
    source: str | None = None,
    workers: int | None = None,
    column_types: str | None = None,
    strategy: str | None = None,
    allow_scan: bool = False,
    lock_wait_seconds: float = LOCK_WAIT,
) -> Options:
    """What the flags say, else the environment; None leaves the choice to the database."""
    from pymig.migrate import Options

    settings = Settings.load()
    return Options(
        source=source or settings.source,
        workers=workers or settings.workers,
        column_types=column_types or settings.column_types,
        strategy=strategy or settings.strategy,
        allow_scan=allow_scan,
        lock_wait_seconds=lock_wait_seconds,
    )


def check_source(options: Options, session: db.Session | None = None) -> None:
    """Raise UsageError for a source that is not there."""
    names = [row["source"] for row in (session.read if session else read)("source")]
    if options.source not in (None, *names):
        raise UsageError(
            f"There is no source {options.source!r}.", f"Registered: {', '.join(names) or 'none'}."
        )


def read(relation: str) -> list[db.Row]:
    """All rows of a table or view of schema pymig, in a session of their own."""
    with open_session() as session:
        return session.read(relation)


def status_rows(options: Options, session: db.Session | None = None) -> list[db.Row]:
    """pymig.status, of one source where one is named."""
    check_source(options, session)
    rows = (session.read if session else read)("status")
    chosen = [row for row in rows if options.source in (None, row["source"])]
    return sorted(chosen, key=lambda row: (row["source"], row["entity"]))


def resolve(ships: str, options: Options) -> list[str]:
    """The ships a --ship names, in order. Raises UsageError for one that is not there."""
    from pymig.migrate import resolve_ships

    with waiting(OUT, "ships"):
        return resolve_ships(conninfo(), ships, options.source, allow_scan=options.allow_scan)


def migrated(ships: str, options: Options) -> list[str]:
    """Like resolve, but all means all that have been migrated."""
    if ships != "all":
        return resolve(ships, options)
    names = [
        row["entity"]
        for row in status_rows(options)
        if row["state"] not in ("known", "rolled_back")
    ]
    if not names:
        say("No ship is migrated: nothing to do.")
    return names


def is_source(row: db.Row, options: Options) -> bool:
    """Whether a row of a table is of the source that was named."""
    return options.source in (None, row["source"])


def is_asked(row: db.Row, names: list[str] | None, options: Options) -> bool:
    """Whether a row of a table is of the ships (None: all) and the source that were named."""
    return is_source(row, options) and (names is None or row["entity"] in names)


def raise_failed(failed: dict[str, PymigError], ships: int) -> None:
    """One ship's error as it is; of several that differ or are not done, which are left."""
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        differ = all(isinstance(error, DifferenceError) for error in failed.values())
        raise (DifferenceError if differ else NotDoneError)(
            f"{len(failed)} of {ships} ships are left: {', '.join(failed)}.",
            "Repair them: pymig verify --repair." if differ else "Run the same command again.",
        )
