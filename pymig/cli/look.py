"""Look before and meanwhile: precheck, analyze, plan, status. They change nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pymig import db, disk, show
from pymig.cli.app import app
from pymig.cli.options import AllowScan, AsJson, Html, Ship, Source, Types
from pymig.cli.output import ERR, OUT, say, show_rows
from pymig.cli.session import check_source, conninfo, open_session, options_of, resolve, status_rows
from pymig.errors import UsageError
from pymig.progress import waiting

if TYPE_CHECKING:
    from pymig.migrate import Options


@app.command(epilog="Example: pymig precheck --html report.html")
def precheck(source: Source = None, as_json: AsJson = False, html: Html = None) -> None:
    """Look at backups, disk, locks and settings before a migration. Changes nothing."""
    from pymig import report

    options = options_of(source=source)
    with open_session() as session, waiting(OUT, "precheck"):
        check_source(options, session)
        rows = _checks(session, options)
    if html:
        report.write(html, report.page("pymig: before the migration", rows))
    show_rows(rows, as_json, show.findings)
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

    options = options_of(source=source, column_types=column_types, allow_scan=allow_scan)
    with open_session() as session:
        check_source(options, session)
        with ERR.status("") as line:
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
    show_rows(found.rows, as_json, show.findings)
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
    options = options_of(source=source, column_types=column_types, allow_scan=allow_scan)
    rows: list[db.Row] = []
    names = resolve(ship, options)
    with open_session() as session, waiting(OUT, "plan"):
        for name in names:
            rows += session.select(
                "plan",
                p_entity=name,
                p_source=options.source,
                p_column_types=options.column_types,
                p_allow_scan=options.allow_scan,
            )
    show_rows(rows, as_json, show.plan)
    if any(row["is_blocker"] for row in rows):
        raise UsageError(
            "Something stands in the way of the migration.", "See the rows marked blocker."
        )


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
    options = options_of(source=source)
    if not watch:
        show_rows(status_rows(options), as_json, show.status)
        return
    from pymig.watch import run

    check_source(options)
    with suppress(KeyboardInterrupt):
        run(conninfo(), options.source, as_json=as_json, say=say)


def _refuse_red(rows: list[db.Row]) -> None:
    """Raise UsageError where a check is red."""
    if red := dict.fromkeys(row["item"] for row in rows if row["level"] == "red"):
        raise UsageError(f"To be mended first: {', '.join(red)}.", "See the rows marked red.")


def _checks(session: db.Session, options: Options) -> list[db.Row]:
    free = session.run(disk.free_bytes)
    return session.select("precheck", p_source=options.source, p_free_bytes=free)
