"""A ship's way: migrate and its steps, the worker, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from pymig import logs
from pymig.cli.app import app
from pymig.cli.options import (
    LOCK_WAIT,
    AllowScan,
    LockWait,
    Logs,
    Pivot,
    Ship,
    Source,
    Types,
    Workers,
)
from pymig.cli.output import OUT, begin_log, progress_of, say, stoppable
from pymig.cli.serving import pushing, serve_metrics
from pymig.cli.session import (
    check_source,
    conninfo,
    migrated,
    open_session,
    options_of,
    raise_failed,
    resolve,
    status_rows,
)
from pymig.errors import UsageError
from pymig.progress import for_console, waiting
from pymig.settings import Settings


@app.command(epilog="Example: pymig migrate --ship SHIP1,SHIP2 --workers 2 --column-types native")
def migrate(
    ship: Ship,
    workers: Workers = None,
    column_types: Types = None,
    strategy: Pivot = None,
    source: Source = None,
    allow_scan: AllowScan = False,
    lock_wait: LockWait = LOCK_WAIT,
    log_format: Logs = None,
    canary: Annotated[
        str | None,
        typer.Option(help="A ship to go first; the others wait until pymig resume."),
    ] = None,
    canary_pause: Annotated[
        float | None,
        typer.Option(help="Seconds after which they follow by themselves.", min=0),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Try settings on the way, keep the fastest (pymig[tune])."),
    ] = False,
) -> None:
    """Bring ships into sync, move their history, verify every cell. Stop and rerun as you like."""
    from pymig.migrate import Canary, Tuning, migrate_ships

    if canary_pause is not None and not canary:
        raise UsageError("There is no canary to wait for.", "Name it: --canary SHIP.")

    begin_log(log_format)
    options = options_of(
        source=source,
        workers=workers,
        column_types=column_types,
        strategy=strategy,
        allow_scan=allow_scan,
        lock_wait_seconds=lock_wait,
    )
    tuning = Tuning(tunes_workers=not (workers or "workers" in Settings.load().model_fields_set))
    with stoppable() as stop:
        report = migrate_ships(
            conninfo(),
            ship,
            options=replace(options, tuning=tuning if tune else None),
            progress=progress_of(options.source),
            stop=stop,
            canary=Canary(canary, canary_pause) if canary else None,
        )
    raise_failed(report.failed, len(report.ships))


@app.command("start-sync", epilog="Example: pymig start-sync --ship SHIP1")
def start_sync(
    ship: Ship,
    column_types: Types = None,
    strategy: Pivot = None,
    source: Source = None,
    allow_scan: AllowScan = False,
    lock_wait: LockWait = LOCK_WAIT,
) -> None:
    """Create the wide tables of ships and keep them in sync; history comes with backfill."""
    options = options_of(
        source=source,
        column_types=column_types,
        strategy=strategy,
        allow_scan=allow_scan,
        lock_wait_seconds=lock_wait,
    )
    with open_session() as session:
        for name in resolve(ship, options):
            with waiting(OUT, f"{name}: start sync"):
                session.call(
                    "start_sync",
                    p_entity=name,
                    p_source=options.source,
                    p_column_types=options.column_types,
                    p_strategy=options.strategy,
                    p_allow_scan=options.allow_scan or None,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            states = [row["state"] for row in status_rows(options) if row["entity"] == name]
            say(f"{name}: {states[0]}")


@app.command(epilog="Example: pymig backfill --ship SHIP1 --workers 2")
def backfill(ship: Ship, workers: Workers = None, source: Source = None) -> None:
    """Move the history of ships that sync already."""
    from pymig.migrate import backfill_ships

    options = options_of(source=source, workers=workers)
    names = resolve(ship, options)
    with stoppable() as stop:
        report = backfill_ships(
            conninfo(), names, options=options, progress=for_console(OUT), stop=stop
        )
    raise_failed(report.failed, len(report.ships))


@app.command(epilog="Example: pymig verify --ship all --repair")
def verify(
    ship: Ship = "all",
    repair: Annotated[bool, typer.Option("--repair", help="Recompute what differs.")] = False,
    source: Source = None,
) -> None:
    """Compare every cell of ships with the narrow table, while it is written."""
    from pymig.migrate import verify_ships

    options = options_of(source=source)
    names = migrated(ship, options)
    with stoppable() as stop:
        report = verify_ships(
            conninfo(),
            names,
            source=options.source,
            repair=repair,
            progress=for_console(OUT),
            stop=stop,
        )
    raise_failed(report.failed, len(report.ships))


@app.command(epilog="Example: pymig worker")
def worker(
    source: Source = None,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", help="Address of the metrics.")
    ] = "127.0.0.1",
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Serve metrics, too.")
    ] = None,
    log_format: Logs = None,
) -> None:
    """Keep wide tables in sync, add channels and (by policy) ships, until stopped."""
    from pymig.worker import keep_in_sync

    begin_log(log_format)
    options, settings = options_of(source=source), Settings.load()
    check_source(options)  # says at once where there is no server, no pymig, no such source
    with stoppable() as stop, pushing(stop):
        if metrics_port is not None:
            serve_metrics(metrics_host, metrics_port)
        said = "The worker runs; Ctrl-C or SIGTERM ends it after the current pass."
        logs.say(said, source=options.source)
        keep_in_sync(conninfo(), stop, source=options.source, poll_seconds=settings.poll_seconds)


@app.command(epilog="Example: pymig rollback --ship SHIP1")
def rollback(ship: Ship, source: Source = None, lock_wait: LockWait = LOCK_WAIT) -> None:
    """Drop the wide tables of ships and stop their sync; the narrow table was never changed."""
    options = options_of(source=source, lock_wait_seconds=lock_wait)
    with open_session() as session:
        for name in migrated(ship, options):
            with waiting(OUT, f"{name}: roll back"):
                session.call(
                    "roll_back",
                    p_entity=name,
                    p_source=options.source,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            say(f"{name}: rolled back")
