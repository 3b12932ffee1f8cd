"""After the cutover: indexes, retiring narrow rows, bringing them back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pymig import db, steps
from pymig.cli.app import app, archive_app
from pymig.cli.options import Ship, Source, named
from pymig.cli.output import OUT, say
from pymig.cli.session import migrated, open_session, options_of, step
from pymig.progress import waiting


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
    options = options_of(source=source)
    with open_session() as session:
        for name in migrated(ship, options):
            # First, since it refuses channels that are not there or can't be covered.
            statements = [
                row["index_statements"]
                for channels, covering in wanted
                for row in session.select(
                    "index_statements",
                    p_entity=name,
                    p_channels=channels,
                    p_source=options.source,
                    p_covering=covering,
                )
            ]
            with waiting(OUT, f"{name}: analyze"):
                session.call("tune_wide", p_entity=name, p_source=options.source)
            say(f"{name}: analyzed")
            for statement in statements:
                _run_concurrently(session, statement)


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
    options = options_of(source=source)
    with open_session() as session:
        for name in migrated(ship, options):
            with step(f"{name}: retire", name, options, steps.retired):
                session.call(
                    "finalize",
                    p_entity=name,
                    p_keep=keep,
                    p_source=options.source,
                    p_archive=archive,
                    p_pause=f"{pause} seconds",
                )
            say(f"{name}: finalized; narrow rows older than {keep} are retired")


@app.command("restore-narrow", epilog="Example: pymig restore-narrow --ship SHIP1")
def restore_narrow(
    ship: Ship,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between two buckets.")] = 0,
    source: Source = None,
) -> None:
    """Bring the narrow rows back that finalize retired, from the archive or from wide."""
    options = options_of(source=source)
    with open_session() as session:
        for name in migrated(ship, options):
            with step(f"{name}: restore", name, options, steps.Restored()):
                session.call(
                    "restore_narrow",
                    p_entity=name,
                    p_source=options.source,
                    p_pause=f"{pause} seconds",
                )
            say(f"{name}: the narrow table has all of it again")


@archive_app.command("export", epilog="Example: pymig archive export --ship X --to x.csv.gz")
def archive_export(
    ship: Annotated[str, typer.Option("--ship", callback=named, help="One ship.")],
    to: Annotated[Path, typer.Option("--to", dir_okay=False, help="The new file.")],
    source: Source = None,
) -> None:
    """Move a ship's retired rows from the archive table to a compressed file (CSV, gzip)."""
    from pymig.archive import export

    options, moved = options_of(source=source), steps.Moved()
    with open_session() as session, waiting(OUT, f"{ship}: export", moved):
        rows = session.run(lambda conn: export(conn, options.source, ship, to, moved.note))
    say(f"{ship}: {rows:,} rows are in {to}, and no longer in the archive table")


@archive_app.command("import", epilog="Example: pymig archive import --from x.csv.gz")
def archive_import(
    file: Annotated[Path, typer.Option("--from", dir_okay=False, help="A file of export.")],
    source: Source = None,
) -> None:
    """Put the rows of a file back into the archive table, as restore-narrow needs them there."""
    from pymig.archive import bring_in

    options = options_of(source=source)
    moved = steps.Moved(file.stat().st_size if file.exists() else None)
    with open_session() as session, waiting(OUT, "import", moved):
        rows = session.run(lambda conn: bring_in(conn, options.source, file, moved.note))
    say(f"{rows:,} rows are in the archive table again; the file stays")


def _run_concurrently(session: db.Session, statement: str) -> None:
    """Run a statement that can't be in a transaction, and say so: it may take long."""
    say(f"  {statement}")
    with waiting(OUT, "  index"):
        session.run(lambda conn: conn.execute(statement.encode()))
