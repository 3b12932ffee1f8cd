"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from pymig.errors import UsageError
from pymig.settings import ColumnTypes, LogFormat, Strategy

LOCK_WAIT: Final = 600.0  # seconds


def named(ship: str) -> str:
    """What --ship names, unless that is nothing. Raises UsageError."""
    if not ship.strip():
        raise UsageError("No ship is named.", "Name one with --ship, a comma list, or all.")
    return ship


Ship = Annotated[
    str,
    typer.Option("--ship", callback=named, help="One ship, a comma list, or all (smallest first)."),
]
Held = Annotated[
    str,
    typer.Option("--ship", callback=named, help="One ship, a comma list, or all of the source."),
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


def limit_of(pair: str) -> tuple[str, float]:
    """CONDITION=LIMIT as a pair. Raises UsageError."""
    name, _, limit = pair.rpartition("=")
    try:
        return name.strip(), float(limit)
    except ValueError:
        raise UsageError(
            f"{pair!r} is not CONDITION=LIMIT.", "For example --set 'replica lag=1e9'."
        ) from None
