"""Hold work up, let it go on, and say how much of it there may be."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from pymig import disk, show
from pymig.cli.app import app
from pymig.cli.options import AsJson, Held, Reason, Ship, Source, limit_of
from pymig.cli.output import OUT, say, show_rows
from pymig.cli.session import open_session, options_of, resolve
from pymig.errors import PrivilegeError
from pymig.progress import waiting


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
    options = options_of(source=source)
    with open_session() as session:
        for name in resolve(ship, options):
            params = {"p_entity": name, "p_priority": priority, "p_source": options.source}
            session.call("set_priority", **params)
            say(f"{name}: priority {priority}")


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
    chosen = [(name, None) for name in off or []] + [limit_of(pair) for pair in limits or []]
    with open_session() as session, waiting(OUT, "throttle"):
        for condition, limit in chosen:
            session.call("set_throttle", p_condition=condition, p_max=limit)
        with suppress(PrivilegeError):  # who may only look sees what was measured last
            session.run(disk.report)
            session.select("look_at_throttle")
        rows = session.read("throttle")
    show_rows(sorted(rows, key=lambda row: row["condition"]), as_json, show.throttle)


def _control(procedure: str, ships: str, source: str | None, said: str, **params: object) -> None:
    """Pause ships, say; all means the source, also ships that are still to come."""
    options = options_of(source=source)
    with open_session() as session:
        for name in [None] if ships == "all" else resolve(ships, options):
            session.call(procedure, p_entity=name, p_source=options.source, **params)
            say(f"{name or 'all ships'}: {said}")
