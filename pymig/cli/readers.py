"""Certificates, and how readers and writers move to the wide tables."""

from __future__ import annotations

from typing import Annotated

import typer

from pymig import show, steps
from pymig.cli.app import app
from pymig.cli.options import LOCK_WAIT, AsJson, LockWait, Ship, Source
from pymig.cli.output import OUT, say, show_rows
from pymig.cli.session import (
    check_source,
    is_asked,
    is_source,
    migrated,
    open_session,
    options_of,
    raise_failed,
    read,
    resolve,
    step,
)
from pymig.errors import PymigError, ServerError, UsageError
from pymig.progress import waiting
from pymig.settings import Routing


@app.command(epilog="Example: pymig certify --ship SHIP1")
def certify(ship: Ship, source: Source = None) -> None:
    """Compare every cell of ships, and record in a certificate that all are equal."""
    options = options_of(source=source)
    names = migrated(ship, options)
    failed: dict[str, PymigError] = {}
    with open_session() as session:
        for name in names:
            try:
                with step(f"{name}: certify", name, options, steps.verified):
                    session.call("certify", p_entity=name, p_source=options.source)
                say(f"{name}: certified")
            except ServerError:
                raise
            except PymigError as error:
                failed[name] = error
                if len(names) > 1:
                    say(f"{name}: {error.message}")
    raise_failed(failed, len(names))


@app.command(epilog="Example: pymig certificate --ship SHIP1 --json")
def certificate(ship: Ship = "all", as_json: AsJson = False, source: Source = None) -> None:
    """Show the newest certificate of ships, and whether it still counts."""
    options = options_of(source=source)
    asked = None if ship == "all" else resolve(ship, options)
    with open_session() as session:
        found = {
            row["entity"]: row
            for row in session.read("certificate")
            if is_asked(row, asked, options)
        }
        for name, row in found.items():
            fault = session.select("certificate_fault", p_entity=name, p_source=row["source"])
            row["fault"] = fault[0]["certificate_fault"]
    if missing := [name for name in asked or [] if name not in found]:
        raise UsageError(f"{missing[0]} was never certified.", f"pymig certify --ship {missing[0]}")
    show_rows(list(found.values()), as_json, show.certificates)


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
    options = options_of(source=source, lock_wait_seconds=lock_wait)
    with open_session() as session:
        for name in migrated(ship, options):
            with waiting(OUT, f"{name}: route"):
                session.call(
                    "set_routing",
                    p_entity=name,
                    p_routing=to,
                    p_percent=percent,
                    p_source=options.source,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            say(f"{name}: read from {to if percent is None else f'wide by {percent} %'}")


@app.command(epilog="Example: pymig routing")
def routing(as_json: AsJson = False, source: Source = None) -> None:
    """Show where readers get the rows of each ship from, and what shadow reads found."""
    options = options_of(source=source)
    check_source(options)
    rows = [row for row in read("routing") if is_asked(row, None, options)]
    show_rows(rows, as_json, show.routing)


@app.command("compat-view", epilog="Example: pymig compat-view")
def compat_view(
    name: Annotated[str | None, typer.Option(help="Its name (<narrow table>_compat).")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop it.")] = False,
    source: Source = None,
) -> None:
    """Make the narrow-shaped view that follows the routing, for applications that keep theirs."""
    options = options_of(source=source)
    with open_session() as session, waiting(OUT, "compat view"):
        if drop:
            session.call("drop_compat_view", p_source=options.source)
            say("The view is dropped.")
            return
        session.call("create_compat_view", p_source=options.source, p_name=name)
        views = [row["compat_view"] for row in session.read("source") if is_source(row, options)]
    say(f"{', '.join(view for view in views if view)} can be read in place of the narrow table.")


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
    options = options_of(source=source, lock_wait_seconds=lock_wait)
    with open_session() as session:
        for name in migrated(ship, options):
            if hold:
                say(f"{name}: held until `pymig release --ship {name}`")
            with waiting(OUT, f"{name}: {'held' if hold else 'cut over'}"):
                session.call(
                    "cut_over",
                    p_entity=name,
                    p_source=options.source,
                    p_hold=hold or None,
                    p_lock_wait=f"{options.lock_wait_seconds} seconds",
                )
            say(f"{name}: cut over")


@app.command(epilog="Example: pymig release --ship SHIP1")
def release(ship: Ship, source: Source = None) -> None:
    """Let the cutover of ships go on that is held back."""
    options = options_of(source=source)
    with open_session() as session:
        for name in migrated(ship, options):
            session.call("release_cut_over", p_entity=name, p_source=options.source)
            say(f"{name}: released")
