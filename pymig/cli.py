"""The command line: every command is a routine or a view of the database, shown to a person."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from pymig import db, disk, errors, logs, show, steps
from pymig.errors import (
    DifferenceError,
    InterruptedByUser,
    NotDoneError,
    OutputClosed,
    PrivilegeError,
    PymigError,
    ServerError,
    UsageError,
)
from pymig.progress import Progress, for_console, waiting
from pymig.settings import ColumnTypes, LogFormat, Routing, Settings, Strategy

if TYPE_CHECKING:
    from pymig.migrate import Options

LOCK_WAIT: Final = 600.0  # seconds
STOPPING: Final = "Stopping after the current chunks; once more to stop at once."

app = typer.Typer(
    help="Migrate a narrow time-series table online into one wide table per ship.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
source_app = typer.Typer(help="Register narrow tables, and list them.", no_args_is_help=True)
server_app = typer.Typer(help="The embedded server that `make demo` uses.", no_args_is_help=True)
archive_app = typer.Typer(help="Retired narrow rows in a compressed file.", no_args_is_help=True)
alert_app = typer.Typer(help="Limits whose crossing becomes an event.", no_args_is_help=True)
app.add_typer(source_app, name="source")
app.add_typer(alert_app, name="alert")
app.add_typer(archive_app, name="archive")
app.add_typer(server_app, name="server")


def _named(ship: str) -> str:
    if not ship.strip():
        raise UsageError("No ship is named.", "Name one with --ship, a comma list, or all.")
    return ship


Ship = Annotated[
    str,
    typer.Option(
        "--ship", callback=_named, help="One ship, a comma list, or all (smallest first)."
    ),
]
Held = Annotated[
    str,
    typer.Option("--ship", callback=_named, help="One ship, a comma list, or all of the source."),
]
Reason = Annotated[
    str | None, typer.Option("--reason", help="For whoever finds it so: status shows it.")
]
AlertConfig = Annotated[
    Path, typer.Option("--config", help="Configuration of apprise: addresses, each with a tag.")
]
MetricsHost = Annotated[
    str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets the network in.")
]
MetricsPort = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any.")]
Source = Annotated[
    str | None, typer.Option("--source", help="The source; not needed where one is registered.")
]
AllowScan = Annotated[
    bool, typer.Option("--allow-scan", help="Allow discovery to read all of the narrow table.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Html = Annotated[
    Path | None,
    typer.Option("--html", dir_okay=False, help="Write a report to this file, to be mailed."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, max=64, help="Connections that move chunks.")
]
Types = Annotated[
    ColumnTypes | None,
    typer.Option("--column-types", help="Type of the cells: text, or as in the narrow table."),
]
Pivot = Annotated[
    Strategy | None,
    typer.Option("--strategy", help="Pivot strategy; auto measures the candidates."),
]
Logs = Annotated[
    LogFormat | None,
    typer.Option("--log-format", help="text for people; json: an object a line on stderr."),
]
LockWait = Annotated[
    float, typer.Option("--lock-wait", help="Seconds to try for the triggers before giving up.")
]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """End without a word: there is nobody to read it."""
        _end_quietly()


_OUT: Final = _Console(soft_wrap=True)
_ERR: Final = _Console(stderr=True, soft_wrap=True)
_OFF: Final = ("", "0", "false", "no", "off", "f", "n")


def main() -> None:
    """Run the command line; every error is one sentence, a hint and an exit code."""
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        _fail(InterruptedByUser("Stopped.", "The same command goes on where it stopped."))
    except BrokenPipeError:
        _end_quietly()
    except Exception as error:
        _fail(errors.unexpected(error))


def _fail(error: PymigError) -> NoReturn:
    if logs.is_json():
        logs.fail(error)
        sys.exit(error.exit_code)
    _ERR.print(f"pymig: {error.message}", markup=False, highlight=False)
    if error.hint:
        _ERR.print(error.hint, markup=False, highlight=False)
    if os.environ.get("PYMIG_DEBUG", "").lower() not in _OFF:
        _ERR.print_exception()
    sys.exit(error.exit_code)


def _end_quietly() -> NoReturn:
    # What is still in Python's buffers would raise once more at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    sys.exit(OutputClosed.exit_code)


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["PYMIG_DEBUG"] = "1"


@app.command(epilog="Example: pymig install")
def install() -> None:
    """Install pymig (alembic upgrade head); register the default source where it exists."""
    from pymig.install import install as run

    with waiting(_OUT, "install"):
        run(_conninfo())
    _OUT.print("pymig is installed.")


@app.command(epilog="Example: pymig uninstall")
def uninstall() -> None:
    """Roll everything back and remove pymig (alembic downgrade base)."""
    from pymig.install import uninstall as run

    with waiting(_OUT, "uninstall"):
        run(_conninfo())
    _OUT.print("pymig is removed; the database is what it was before.")


@source_app.command(
    "add",
    epilog="Example: pymig source add --name plant --narrow plant.samples --entity machine "
    "--channel sensor --time ts --value v",
)
def source_add(
    narrow: Annotated[str, typer.Option(help="The narrow table, with its schema.")],
    entity: Annotated[str, typer.Option(help="Column that says whose row it is.")],
    channel: Annotated[str, typer.Option(help="Column that says which quantity it is.")],
    time_column: Annotated[str, typer.Option("--time", help="Time column.")],
    value: Annotated[list[str], typer.Option(help="Value column; repeat it for several.")],
    name: Annotated[str, typer.Option(help="Short name of the source.")],
    format_column: Annotated[
        str | None,
        typer.Option("--format-column", help="Column that says which value column counts."),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="CONTENT=COLUMN; repeat it.")
    ] = None,
    tie_break: Annotated[
        list[str] | None,
        typer.Option(help="Column whose highest value wins among duplicates; repeat it."),
    ] = None,
    time_unit: Annotated[str | None, typer.Option(help="s, ms or us for a bigint epoch.")] = None,
    time_grain: Annotated[
        str | None,
        typer.Option(help="Interval within which samples become one row, e.g. '1 second'."),
    ] = None,
    bucket: Annotated[str | None, typer.Option(help="Interval of a bucket (1 hour).")] = None,
    wide_schema: Annotated[
        str | None, typer.Option(help="Schema of the wide tables (the narrow table's).")
    ] = None,
    wide_name: Annotated[
        str | None, typer.Option(help="Their name, with {table} and {entity}.")
    ] = None,
    column_types: Types = None,
    new_ships: Annotated[
        str | None, typer.Option(help="ask or auto: what to do with ships that begin to send.")
    ] = None,
    dictionary: Annotated[
        str | None, typer.Option(help="Table with readable channel names: TABLE:KEY:NAME.")
    ] = None,
) -> None:
    """Register a narrow table and how to read it."""
    table, key, readable = _dictionary(dictionary)
    options = _options(column_types=column_types)
    with _session() as session, waiting(_OUT, "register"):
        session.call(
            "register_source",
            p_source=name,
            p_narrow=narrow,
            p_entity_column=entity,
            p_channel_column=channel,
            p_time_column=time_column,
            p_value_columns=value,
            p_format_column=format_column,
            p_formats=_formats(formats),
            p_tie_break=tie_break or None,
            p_time_unit=time_unit,
            p_time_grain=time_grain,
            p_bucket=bucket,
            p_wide_schema=wide_schema,
            p_wide_name=wide_name,
            p_column_types=options.column_types,
            p_new_entities=new_ships,
            p_dictionary=table,
            p_dictionary_key=key,
            p_dictionary_name=readable,
        )
    _OUT.print(f"{narrow} is registered as source {name}.", markup=False)


@source_app.command("list", epilog="Example: pymig source list --json")
def source_list(as_json: AsJson = False) -> None:
    """List the registered sources."""
    _show_rows(_read("source"), as_json, show.sources)


@app.command(epilog="Example: pymig precheck --html report.html")
def precheck(source: Source = None, as_json: AsJson = False, html: Html = None) -> None:
    """Look at backups, disk, locks and settings before a migration. Changes nothing."""
    from pymig import report

    options = _options(source=source)
    with _session() as session, waiting(_OUT, "precheck"):
        _check_source(options, session)
        rows = _checks(session, options)
    if html:
        report.write(html, report.page("pymig: before the migration", rows))
    _show_rows(rows, as_json, show.findings)
    _refuse_red(rows)


@app.command(epilog="Example: pymig analyze --ship SHIP1 --html report.html")
def analyze(
    ship: Ship = "all",
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Buckets of each ship that are looked at.")
    ] = 8,
    budget: Annotated[float, typer.Option("--budget", min=0, help="Seconds for each ship.")] = 20,
    source: Source = None,
    column_types: Types = None,
    allow_scan: AllowScan = False,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Look at the data of ships: how much, how it grows, what would go to quarantine."""
    from pymig import report
    from pymig.analyze import analyze as look

    options = _options(source=source, column_types=column_types, allow_scan=allow_scan)
    with _session() as session:
        _check_source(options, session)
        with _ERR.status("") as line:
            found = look(
                session,
                ship,
                options,
                sample=sample,
                budget=budget,
                tell=lambda what: line.update(Text(what)),
            )
        checks = _checks(session, options) if html else []
    if html:
        title = "pymig: the data and the server before the migration"
        report.write(html, report.page(title, checks, found.ships, found.rows))
    _show_rows(found.rows, as_json, show.findings)
    _refuse_red(found.rows)


@app.command(epilog="Example: pymig plan --ship SHIP1")
def plan(
    ship: Ship = "all",
    source: Source = None,
    column_types: Types = None,
    allow_scan: AllowScan = False,
    as_json: AsJson = False,
) -> None:
    """Show what migrate would do, and what stands in the way. Changes nothing."""
    options = _options(source=source, column_types=column_types, allow_scan=allow_scan)
    rows: list[db.Row] = []
    names = _resolve(ship, options)
    with _session() as session, waiting(_OUT, "plan"):
        for name in names:
            rows += session.select(
                "plan",
                p_entity=name,
                p_source=options.source,
                p_column_types=options.column_types,
                p_allow_scan=options.allow_scan,
            )
    _show_rows(rows, as_json, show.plan)
    if any(row["is_blocker"] for row in rows):
        raise UsageError(
            "Something stands in the way of the migration.", "See the rows marked blocker."
        )


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

    _begin_log(log_format)
    options = _options(
        source=source,
        workers=workers,
        column_types=column_types,
        strategy=strategy,
        allow_scan=allow_scan,
        lock_wait_seconds=lock_wait,
    )
    tuning = Tuning(tunes_workers=not (workers or "workers" in Settings.load().model_fields_set))
    with _stoppable() as stop:
        report = migrate_ships(
            _conninfo(),
            ship,
            options=replace(options, tuning=tuning if tune else None),
            progress=_progress(options.source),
            stop=stop,
            canary=Canary(canary, canary_pause) if canary else None,
        )
    _raise_failed(report.failed, len(report.ships))


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
    options = _options(
        source=source,
        column_types=column_types,
        strategy=strategy,
        allow_scan=allow_scan,
        lock_wait_seconds=lock_wait,
    )
    with _session() as session:
        for name in _resolve(ship, options):
            with waiting(_OUT, f"{name}: start sync"):
                session.call(
                    "start_sync",
                    p_entity=name,
                    p_source=options.source,
                    p_column_types=options.column_types,
                    p_strategy=options.strategy,
                    p_allow_scan=options.allow_scan or None,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            states = [row["state"] for row in _status(options) if row["entity"] == name]
            _say(f"{name}: {states[0]}")


@app.command(epilog="Example: pymig backfill --ship SHIP1 --workers 2")
def backfill(ship: Ship, workers: Workers = None, source: Source = None) -> None:
    """Move the history of ships that sync already."""
    from pymig.migrate import backfill_ships

    options = _options(source=source, workers=workers)
    names = _resolve(ship, options)
    with _stoppable() as stop:
        report = backfill_ships(
            _conninfo(), names, options=options, progress=for_console(_OUT), stop=stop
        )
    _raise_failed(report.failed, len(report.ships))


@app.command(epilog="Example: pymig verify --ship all --repair")
def verify(
    ship: Ship = "all",
    repair: Annotated[bool, typer.Option("--repair", help="Recompute what differs.")] = False,
    source: Source = None,
) -> None:
    """Compare every cell of ships with the narrow table, while it is written."""
    from pymig.migrate import verify_ships

    options = _options(source=source)
    names = _migrated(ship, options)
    with _stoppable() as stop:
        report = verify_ships(
            _conninfo(),
            names,
            source=options.source,
            repair=repair,
            progress=for_console(_OUT),
            stop=stop,
        )
    _raise_failed(report.failed, len(report.ships))


@app.command(epilog="Example: pymig status --watch")
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Show it live; q or Ctrl-C ends.")] = False,
    as_json: AsJson = False,
    source: Source = None,
) -> None:
    """Show a row per ship: state, progress, rate, lag, pending, quarantined, last error.

    --watch: a screen with keys; a line for each change where there is no terminal; with --json a
    document a line, each second.
    """
    options = _options(source=source)
    if not watch:
        _show_rows(_status(options), as_json, show.status)
        return
    from pymig.watch import run

    _check_source(options)
    with suppress(KeyboardInterrupt):
        run(_conninfo(), options.source, as_json=as_json, say=_say)


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

    _begin_log(log_format)
    options, settings = _options(source=source), Settings.load()
    _check_source(options)  # says at once where there is no server, no pymig, no such source
    with _stoppable() as stop, _pushing(stop):
        if metrics_port is not None:
            _serve_metrics(metrics_host, metrics_port)
        said = "The worker runs; Ctrl-C or SIGTERM ends it after the current pass."
        logs.say(said, source=options.source)
        keep_in_sync(_conninfo(), stop, source=options.source, poll_seconds=settings.poll_seconds)


@app.command(epilog="Example: pymig certify --ship SHIP1")
def certify(ship: Ship, source: Source = None) -> None:
    """Compare every cell of ships, and record in a certificate that all are equal."""
    options = _options(source=source)
    names = _migrated(ship, options)
    failed: dict[str, PymigError] = {}
    with _session() as session:
        for name in names:
            try:
                with _step(f"{name}: certify", name, options, steps.verified):
                    session.call("certify", p_entity=name, p_source=options.source)
                _say(f"{name}: certified")
            except ServerError:
                raise
            except PymigError as error:
                failed[name] = error
                if len(names) > 1:
                    _say(f"{name}: {error.message}")
    _raise_failed(failed, len(names))


@app.command(epilog="Example: pymig certificate --ship SHIP1 --json")
def certificate(ship: Ship = "all", as_json: AsJson = False, source: Source = None) -> None:
    """Show the newest certificate of ships, and whether it still counts."""
    options = _options(source=source)
    asked = None if ship == "all" else _resolve(ship, options)
    with _session() as session:
        found = {
            row["entity"]: row
            for row in session.read("certificate")
            if _is_asked(row, asked, options)
        }
        for name, row in found.items():
            fault = session.select("certificate_fault", p_entity=name, p_source=row["source"])
            row["fault"] = fault[0]["certificate_fault"]
    if missing := [name for name in asked or [] if name not in found]:
        raise UsageError(f"{missing[0]} was never certified.", f"pymig certify --ship {missing[0]}")
    _show_rows(list(found.values()), as_json, show.certificates)


@app.command(epilog="Example: pymig route --ship SHIP1 --to percent --percent 10")
def route(
    ship: Ship,
    to: Annotated[
        Routing, typer.Option("--to", help="Where read() and the compat view take its rows from.")
    ],
    percent: Annotated[
        int | None,
        typer.Option("--percent", min=0, max=100, help="Sessions of 100 that read wide."),
    ] = None,
    source: Source = None,
    lock_wait: LockWait = LOCK_WAIT,
) -> None:
    """Set where readers get the rows of ships from, at once and for every session."""
    options = _options(source=source, lock_wait_seconds=lock_wait)
    with _session() as session:
        for name in _migrated(ship, options):
            with waiting(_OUT, f"{name}: route"):
                session.call(
                    "set_routing",
                    p_entity=name,
                    p_routing=to,
                    p_percent=percent,
                    p_source=options.source,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            _say(f"{name}: read from {to if percent is None else f'wide by {percent} %'}")


@app.command(epilog="Example: pymig routing")
def routing(as_json: AsJson = False, source: Source = None) -> None:
    """Show where readers get the rows of each ship from, and what shadow reads found."""
    options = _options(source=source)
    _check_source(options)
    rows = [row for row in _read("routing") if _is_asked(row, None, options)]
    _show_rows(rows, as_json, show.routing)


@app.command("compat-view", epilog="Example: pymig compat-view")
def compat_view(
    name: Annotated[str | None, typer.Option(help="Its name (<narrow table>_compat).")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop it.")] = False,
    source: Source = None,
) -> None:
    """Make the narrow-shaped view that follows the routing, for applications that keep theirs."""
    options = _options(source=source)
    with _session() as session, waiting(_OUT, "compat view"):
        if drop:
            session.call("drop_compat_view", p_source=options.source)
            _say("The view is dropped.")
            return
        session.call("create_compat_view", p_source=options.source, p_name=name)
        views = [row["compat_view"] for row in session.read("source") if _is_source(row, options)]
    _say(f"{', '.join(view for view in views if view)} can be read in place of the narrow table.")


@app.command("cut-over", epilog="Example: pymig cut-over --ship SHIP1 --hold")
def cut_over(
    ship: Ship,
    hold: Annotated[
        bool, typer.Option("--hold", help="Prepare all, then wait for `pymig release`.")
    ] = False,
    source: Source = None,
    lock_wait: LockWait = LOCK_WAIT,
) -> None:
    """Let applications read the wide tables of ships, and write them in the wide shape."""
    options = _options(source=source, lock_wait_seconds=lock_wait)
    with _session() as session:
        for name in _migrated(ship, options):
            if hold:
                _say(f"{name}: held until `pymig release --ship {name}`")
            with waiting(_OUT, f"{name}: {'held' if hold else 'cut over'}"):
                session.call(
                    "cut_over",
                    p_entity=name,
                    p_source=options.source,
                    p_hold=hold or None,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            _say(f"{name}: cut over")


@app.command(epilog="Example: pymig release --ship SHIP1")
def release(ship: Ship, source: Source = None) -> None:
    """Let the cutover of ships go on that is held back."""
    options = _options(source=source)
    with _session() as session:
        for name in _migrated(ship, options):
            session.call("release_cut_over", p_entity=name, p_source=options.source)
            _say(f"{name}: released")


@app.command(epilog="Example: pymig tune --ship SHIP1 --index /main/temp --index /main/speed")
def tune(
    ship: Ship,
    index: Annotated[
        list[str] | None, typer.Option("--index", help="A channel to index; again for more.")
    ] = None,
    cover: Annotated[
        list[str] | None,
        typer.Option("--cover", help="A channel whose series is read often; again for more."),
    ] = None,
    reindex: Annotated[
        bool, typer.Option("--reindex", help="Rebuild the indexes that are there.")
    ] = False,
    source: Source = None,
) -> None:
    """Analyze wide tables, set autovacuum for them, index channels. Nobody waits for it.

    --index is for questions about values. --cover makes one index by time that holds all channels
    it names (numbers, 31 at most): their series are read from it alone.
    """
    wanted: list[tuple[list[str] | None, bool]] = [(None, False)] if reindex else []
    wanted += [(index, False)] if index else []
    wanted += [(cover, True)] if cover else []
    options = _options(source=source)
    with _session() as session:
        for name in _migrated(ship, options):
            with waiting(_OUT, f"{name}: analyze"):
                session.call("tune_wide", p_entity=name, p_source=options.source)
            _say(f"{name}: analyzed")
            for channels, covering in wanted:
                for row in session.select(
                    "index_statements",
                    p_entity=name,
                    p_channels=channels,
                    p_source=options.source,
                    p_covering=covering,
                ):
                    _run_concurrently(session, row["index_statements"])


@app.command(epilog="Example: pymig finalize --ship SHIP1 --keep '2 days'")
def finalize(
    ship: Ship,
    keep: Annotated[str, typer.Option("--keep", help="Interval: older narrow rows are retired.")],
    archive: Annotated[
        bool, typer.Option(help="Keep what is retired in the table <narrow table>_archive.")
    ] = True,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between two buckets.")] = 0,
    source: Source = None,
) -> None:
    """Retire old narrow rows of ships that are cut over; the wide tables keep theirs."""
    options = _options(source=source)
    with _session() as session:
        for name in _migrated(ship, options):
            with _step(f"{name}: retire", name, options, steps.retired):
                session.call(
                    "finalize",
                    p_entity=name,
                    p_keep=keep,
                    p_source=options.source,
                    p_archive=archive,
                    p_pause=f"{pause} seconds",
                )
            _say(f"{name}: finalized; narrow rows older than {keep} are retired")


@app.command("restore-narrow", epilog="Example: pymig restore-narrow --ship SHIP1")
def restore_narrow(
    ship: Ship,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between two buckets.")] = 0,
    source: Source = None,
) -> None:
    """Bring the narrow rows back that finalize retired, from the archive or from wide."""
    options = _options(source=source)
    with _session() as session:
        for name in _migrated(ship, options):
            with _step(f"{name}: restore", name, options, steps.Restored()):
                session.call(
                    "restore_narrow",
                    p_entity=name,
                    p_source=options.source,
                    p_pause=f"{pause} seconds",
                )
            _say(f"{name}: the narrow table has all of it again")


@archive_app.command("export", epilog="Example: pymig archive export --ship X --to x.csv.gz")
def archive_export(
    ship: Annotated[str, typer.Option("--ship", callback=_named, help="One ship.")],
    to: Annotated[Path, typer.Option("--to", dir_okay=False, help="The new file.")],
    source: Source = None,
) -> None:
    """Move a ship's retired rows from the archive table to a compressed file (CSV, gzip)."""
    from pymig.archive import export

    options, moved = _options(source=source), steps.Moved()
    with _session() as session, waiting(_OUT, f"{ship}: export", moved):
        rows = session.run(lambda conn: export(conn, options.source, ship, to, moved.note))
    _say(f"{ship}: {rows:,} rows are in {to}, and no longer in the archive table")


@archive_app.command("import", epilog="Example: pymig archive import --from x.csv.gz")
def archive_import(
    file: Annotated[Path, typer.Option("--from", dir_okay=False, help="A file of export.")],
    source: Source = None,
) -> None:
    """Put the rows of a file back into the archive table, as restore-narrow needs them there."""
    from pymig.archive import bring_in

    options = _options(source=source)
    moved = steps.Moved(file.stat().st_size if file.exists() else None)
    with _session() as session, waiting(_OUT, "import", moved):
        rows = session.run(lambda conn: bring_in(conn, options.source, file, moved.note))
    _say(f"{rows:,} rows are in the archive table again; the file stays")


@app.command(epilog="Example: pymig metrics --port 9188")
def metrics(
    host: MetricsHost = "127.0.0.1", port: MetricsPort = 9188, log_format: Logs = None
) -> None:
    """Serve metrics for Prometheus at /metrics, until Ctrl-C."""
    _begin_log(log_format)
    with _stoppable() as stop, _pushing(stop):
        _serve_metrics(host, port)
        stop.wait()


@app.command(epilog="Example: pymig console --port 8808")
def console(
    host: MetricsHost = "127.0.0.1",
    port: MetricsPort = 8808,
    url: Annotated[
        str | None, typer.Option("--url", help="Where people find it, behind a proxy with TLS.")
    ] = None,
    require_login: Annotated[
        bool, typer.Option("--require-login", help="Show nothing to who has not logged in.")
    ] = False,
) -> None:
    """Show it all in a browser, with controls for who logs in as a role, until Ctrl-C."""
    try:
        from pymig.console.serve import Options as Served
        from pymig.console.serve import serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The console needs more packages; {error.name} is missing.",
            "Install them: pip install 'pymig[console]', or `make console` in a checkout.",
        ) from error
    with _stoppable("Stopping.") as stop:
        serve(_conninfo(), Served(host, port, url, require_login), _say, stop)


@app.command(epilog="Example: pymig notify --config alerts.yml")
def notify(
    config: AlertConfig,
    digest: Annotated[
        float, typer.Option("--digest", min=0, help="Seconds between two digests of warnings.")
    ] = 900,
    test: Annotated[
        bool, typer.Option("--test", help="Send everybody a message, and end.")
    ] = False,
    log_format: Logs = None,
) -> None:
    """Tell people about events: CRITICAL at once, WARNING in a digest, all of them as a log."""
    from pymig import notify as notifier

    _begin_log(log_format)
    if test:
        alert_test(config)
        return
    everybody = notifier.targets(config)
    _read("source")  # says at once where there is no server, or no pymig
    with _stoppable() as stop:
        notifier.watch(_conninfo(), everybody, stop, digest)


@alert_app.command("test", epilog="Example: pymig alert test --config alerts.cfg")
def alert_test(config: AlertConfig) -> None:
    """Send everybody of the notifier's configuration a message."""
    from pymig import notify as notifier

    with waiting(_OUT, "send"):
        everybody = notifier.test(config)
    for reached in everybody:
        _say(f"Sent to {reached}")


@alert_app.command("list", epilog="Example: pymig alert list")
def alert_list(as_json: AsJson = False) -> None:
    """The rules with their limits, and what is over one now."""
    with _session() as session:
        with suppress(PrivilegeError):  # who may only look sees what was measured last
            session.select("look_at_alerts")
        rows = session.select("list_alerts")
    _show_rows(rows, as_json, show.alerts)


@alert_app.command("set", epilog="Example: pymig alert set 'sync lag' 5 --lasting '30 s'")
def alert_set(
    alert: Annotated[str, typer.Argument(help="Name of the rule, as in pymig alert list.")],
    limit: Annotated[str, typer.Argument(help="What is greater is told; off: nothing is.")],
    lasting: Annotated[
        str | None, typer.Option(help="How long it has to be greater before.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="INFO, WARNING or CRITICAL.")] = None,
) -> None:
    """Change the limit of a rule, at once for all that look."""
    with _session() as session:
        session.call(
            "set_alert",
            p_alert=alert,
            p_max=None if limit == "off" else _limit(f"{alert}={limit}")[1],
            p_lasting=lasting,
            p_level=level,
        )
    _say(f"{alert}: {'not looked at' if limit == 'off' else f'told above {limit}'}")


@app.command(epilog="Example: pymig pause --ship SHIP1")
def pause(ship: Held = "all", reason: Reason = None, source: Source = None) -> None:
    """Let the history of ships wait, until resume; sync goes on."""
    _control("pause", ship, source, "paused: no chunk is begun; sync goes on", p_reason=reason)


@app.command(epilog="Example: pymig resume --ship SHIP1")
def resume(ship: Held = "all", source: Source = None) -> None:
    """Go on with the history of ships that were paused; cancelled ones may be started again."""
    _control("resume", ship, source, "goes on")


@app.command(epilog="Example: pymig cancel --ship SHIP1 --reason 'disk is needed'")
def cancel(ship: Held, reason: Reason = None, source: Source = None) -> None:
    """End the commands that move the history of ships, until resume; what is done stays."""
    _control("cancel", ship, source, "cancelled: commands at it end; sync goes on", p_reason=reason)


@app.command("set-workers", epilog="Example: pymig set-workers 4")
def set_workers(
    workers: Annotated[int, typer.Argument(min=0, max=64, help="How many; 0: as started.")],
    ship: Held = "all",
    source: Source = None,
) -> None:
    """How many connections move history, while it runs; with --ship how many at that ship."""
    said = f"{workers} workers" if workers else "workers as the command is started"
    _control("set_workers", ship, source, said, p_workers=workers or None)


@app.command("set-chunk-target", epilog="Example: pymig set-chunk-target '500 ms'")
def set_chunk_target(
    target: Annotated[str, typer.Argument(help="How long a chunk should take.")],
    ship: Held = "all",
    source: Source = None,
) -> None:
    """How long chunks should take from the next one on, for the source or for --ship."""
    _control("set_chunk_target", ship, source, f"chunks of {target}", p_target=target)


@app.command("set-priority", epilog="Example: pymig set-priority 10 --ship SHIP1")
def set_priority(
    priority: Annotated[int, typer.Argument(help="Higher ones are migrated first; all have 0.")],
    ship: Ship,
    source: Source = None,
) -> None:
    """Which ships are migrated before others when several are."""
    options = _options(source=source)
    with _session() as session:
        for name in _resolve(ship, options):
            params = {"p_entity": name, "p_priority": priority, "p_source": options.source}
            session.call("set_priority", **params)
            _say(f"{name}: priority {priority}")


@app.command(epilog="Example: pymig throttle --set 'replica lag=1e9' --off 'lock waits'")
def throttle(
    limits: Annotated[
        list[str] | None, typer.Option("--set", help="CONDITION=LIMIT; as often as you like.")
    ] = None,
    off: Annotated[
        list[str] | None, typer.Option("--off", help="A condition that holds nothing up any more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What makes history wait: conditions with their limits, and the values just now."""
    chosen = [(name, None) for name in off or []] + [_limit(pair) for pair in limits or []]
    with _session() as session, waiting(_OUT, "throttle"):
        for condition, limit in chosen:
            session.call("set_throttle", p_condition=condition, p_max=limit)
        with suppress(PrivilegeError):  # who may only look sees what was measured last
            session.run(disk.report)
            session.select("look_at_throttle")
        rows = session.read("throttle")
    _show_rows(sorted(rows, key=lambda row: row["condition"]), as_json, show.throttle)


@app.command(epilog="Example: pymig rollback --ship SHIP1")
def rollback(ship: Ship, source: Source = None, lock_wait: LockWait = LOCK_WAIT) -> None:
    """Drop the wide tables of ships and stop their sync; the narrow table was never changed."""
    options = _options(source=source, lock_wait_seconds=lock_wait)
    with _session() as session:
        for name in _migrated(ship, options):
            with waiting(_OUT, f"{name}: roll back"):
                session.call(
                    "roll_back",
                    p_entity=name,
                    p_source=options.source,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            _say(f"{name}: rolled back")


@app.command(epilog="Example: pymig demo")
def demo(workers: Workers = None) -> None:
    """Simulate a fleet that sends, migrate it meanwhile, verify every cell, show the figures."""
    from pymig.demo import run_demo
    from pymig.server import demo_cluster

    options, settings = _options(workers=workers), Settings.load()
    cluster = demo_cluster(settings.server_dir) if settings.uses_embedded_server else None
    code = run_demo(_conninfo(), workers=options.workers, cluster=cluster, console=_OUT)
    if code:
        raise NotDoneError("The demonstration failed.", "The table above says which ship.")


@server_app.command("start", epilog="Example: pymig server start")
def server_start() -> None:
    """Start the embedded server, making it first where there is none."""
    from pymig.server import demo_cluster

    cluster = demo_cluster(Settings.load().server_dir)
    with waiting(_OUT, "the embedded server starts"):
        cluster.start()
    _OUT.print(cluster.url(), markup=False)


@server_app.command("stop", epilog="Example: pymig server stop")
def server_stop() -> None:
    """Stop the embedded server; its data stays."""
    from pymig import companions
    from pymig.server import demo_cluster

    cluster = demo_cluster(Settings.load().server_dir)
    companions.stop(cluster.root)
    if cluster.is_running():
        with waiting(_OUT, "the embedded server stops"):
            cluster.stop()
    _OUT.print("The server is stopped.")


@server_app.command("clean", epilog="Example: pymig server clean")
def server_clean() -> None:
    """Stop the embedded server and remove its data."""
    from pymig import companions
    from pymig.server import demo_cluster

    cluster = demo_cluster(Settings.load().server_dir)
    companions.stop(cluster.root)
    with waiting(_OUT, "the embedded server is removed"):
        cluster.remove()
    _OUT.print("The server and its data are removed.")


def _conninfo() -> str:
    """The server the environment names, else the embedded one, started."""
    settings = Settings.load()
    if not settings.uses_embedded_server:
        return settings.conninfo
    from pymig.server import demo_cluster

    cluster = demo_cluster(settings.server_dir)
    with waiting(_OUT, "the embedded server starts"):
        cluster.start()
    return cluster.url()


def _session() -> db.Session:
    return db.Session(_conninfo(), "cli", patient=False)


def _begin_log(log_format: LogFormat | None) -> None:
    logs.begin(log_format or Settings.load().log_format, _say)


def _progress(source: str | None) -> Progress:
    """Bars on a terminal, lines elsewhere, records for programs."""
    return logs.LogProgress(source) if logs.is_json() else for_console(_OUT)


def _step(
    title: str, ship: str, options: Options, figures: Callable[[db.Row], steps.Figures]
) -> AbstractContextManager[None]:
    """A bar for a command on a ship, on a terminal; see steps.step."""
    return steps.step(_OUT, _conninfo(), title, ship, options.source, figures)


def _say(sentence: str) -> None:
    _OUT.print(sentence, markup=False, highlight=False)


def _options(
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


def _check_source(options: Options, session: db.Session | None = None) -> None:
    """Raise UsageError for a source that is not there."""
    names = [row["source"] for row in (session.read if session else _read)("source")]
    if options.source not in (None, *names):
        raise UsageError(
            f"There is no source {options.source!r}.", f"Registered: {', '.join(names) or 'none'}."
        )


def _read(relation: str) -> list[db.Row]:
    with _session() as session:
        return session.read(relation)


def _status(options: Options, session: db.Session | None = None) -> list[db.Row]:
    """pymig.status, of one source where one is named."""
    _check_source(options, session)
    rows = (session.read if session else _read)("status")
    chosen = [row for row in rows if options.source in (None, row["source"])]
    return sorted(chosen, key=lambda row: (row["source"], row["entity"]))


def _resolve(ships: str, options: Options) -> list[str]:
    from pymig.migrate import resolve_ships

    with waiting(_OUT, "ships"):
        return resolve_ships(_conninfo(), ships, options.source, allow_scan=options.allow_scan)


def _migrated(ships: str, options: Options) -> list[str]:
    """Like _resolve, but all means all that have been migrated."""
    if ships != "all":
        return _resolve(ships, options)
    names = [
        row["entity"] for row in _status(options) if row["state"] not in ("known", "rolled_back")
    ]
    if not names:
        _say("No ship is migrated: nothing to do.")
    return names


def _is_source(row: db.Row, options: Options) -> bool:
    return options.source in (None, row["source"])


def _is_asked(row: db.Row, names: list[str] | None, options: Options) -> bool:
    """Whether a row of a table is of the ships (None: all) and the source that were named."""
    return _is_source(row, options) and (names is None or row["entity"] in names)


def _raise_failed(failed: dict[str, PymigError], ships: int) -> None:
    """One ship's error as it is; of several that differ or are not done, which are left."""
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        differ = all(isinstance(error, DifferenceError) for error in failed.values())
        raise (DifferenceError if differ else NotDoneError)(
            f"{len(failed)} of {ships} ships are left: {', '.join(failed)}.",
            "Repair them: pymig verify --repair." if differ else "Run the same command again.",
        )


@contextmanager
def _stoppable(said: str = STOPPING) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
    stop = threading.Event()

    def ask(signum: int, _frame: object) -> None:
        if stop.is_set():
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        stop.set()
        if logs.is_json():
            logs.say(said)
        else:
            _ERR.print(said)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_rows(rows: list[db.Row], as_json: bool, table: Callable[[list[db.Row]], Any]) -> None:
    if as_json:
        _OUT.print(
            json.dumps(rows, default=str, indent=2, ensure_ascii=False),
            markup=False,
            highlight=False,
        )
    else:
        _OUT.print(table(rows))


def _serve_metrics(host: str, port: int) -> None:
    from pymig.metrics import serve

    try:
        found = serve(_conninfo(), host, port)
    except OSError as error:
        raise UsageError(
            f"Metrics can't be served on {host}:{port}: {error.strerror}.", "Choose another --port."
        ) from error
    logs.say(f"Metrics: http://{host}:{found}/metrics", host=host, port=found)


@contextmanager
def _pushing(stop: threading.Event) -> Iterator[None]:
    """Metrics by OTLP, where OTEL_EXPORTER_OTLP_ENDPOINT is set; the last ones after stop."""
    from pymig.metrics import PUSH_SECONDS, push

    thread = push(_conninfo(), stop)
    yield
    if thread:
        thread.join(PUSH_SECONDS)


def _control(procedure: str, ships: str, source: str | None, said: str, **params: object) -> None:
    """Pause ships, say; all means the source, also ships that are still to come."""
    options = _options(source=source)
    with _session() as session:
        for name in [None] if ships == "all" else _resolve(ships, options):
            session.call(procedure, p_entity=name, p_source=options.source, **params)
            _say(f"{name or 'all ships'}: {said}")


def _limit(pair: str) -> tuple[str, float]:
    name, _, limit = pair.rpartition("=")
    try:
        return name.strip(), float(limit)
    except ValueError:
        raise UsageError(
            f"{pair!r} is not CONDITION=LIMIT.", "For example --set 'replica lag=1e9'."
        ) from None


def _run_concurrently(session: db.Session, statement: str) -> None:
    """Run a statement that can't be in a transaction, and say so: it may take long."""
    _say(f"  {statement}")
    with waiting(_OUT, "  index"):
        session.run(lambda conn: conn.execute(statement.encode()))


def _refuse_red(rows: list[db.Row]) -> None:
    """Raise UsageError where a check is red."""
    if red := dict.fromkeys(row["item"] for row in rows if row["level"] == "red"):
        raise UsageError(f"To be mended first: {', '.join(red)}.", "See the rows marked red.")


def _checks(session: db.Session, options: Options) -> list[db.Row]:
    free = session.run(disk.free_bytes)
    return session.select("precheck", p_source=options.source, p_free_bytes=free)


def _formats(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise UsageError(
            f"{wrong[0]!r} is not CONTENT=COLUMN.", "For example --format Decimal=double_v."
        )
    return dict(pair.rsplit("=", 1) for pair in pairs)


def _dictionary(given: str | None) -> tuple[str | None, str | None, str | None]:
    if given is None:
        return None, None, None
    table, _, rest = given.partition(":")
    key, _, name = rest.partition(":")
    if not (table and key and name):
        raise UsageError(
            f"{given!r} is not TABLE:KEY:NAME.", "For example --dictionary plant.channel:id:name."
        )
    return table, key, name


if __name__ == "__main__":
    main()
