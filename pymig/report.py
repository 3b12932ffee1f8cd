"""A report one can mail: one HTML file without scripts and links, of what pymig's checks say."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from pymig import __version__
from pymig.db import Row
from pymig.errors import UsageError

LEVELS: Final = ("red", "yellow", "green")


def page(title: str, checks: list[Row], ships: list[Row] | None = None, rows: Any = ()) -> str:
    """The report as HTML; whatever the data says is escaped.

    checks: rows of pymig.precheck(). ships: entity and estimated_rows of all ships, and rows: those
    of pymig.analyze(), in the order of the ships; None: there is no part about data.
    """
    environment = Environment(
        loader=PackageLoader("pymig"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        levels=LEVELS,
        parts=[
            (name, part, Counter(row["level"] for row in part))
            for name, part in (("Data", list(rows)), ("Server and settings", checks))
            if part
        ],
        checks=checks,
        ships=ships,
        looked_at=_by_ship(rows),
        general=[row for row in rows if row["entity"] is None],
    )


def write(path: Path, html: str) -> None:
    """Write a report to a file. Raises UsageError where that can't be."""
    try:
        path.write_text(html, "utf-8")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.", "Name another.") from error


def _by_ship(rows: Any) -> dict[str, dict[str, Any]]:
    """Of each ship: its rows, its worst level, and the figures of its items by name."""
    ships = {}
    for name, group in groupby(rows, key=lambda row: row["entity"]):
        if name is None:
            continue
        found = list(group)
        ships[name] = {
            "rows": found,
            "level": min((row["level"] for row in found), key=LEVELS.index),
            "detail": {row["item"]: row["detail"] or {} for row in found},
            "hours": next((r["detail"] for r in found if "hours" in (r["detail"] or {})), None),
        }
    return ships
