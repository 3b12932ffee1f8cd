"""Tables for people, made of the rows of pymig's views."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from rich.table import Table
from rich.text import Text

from pymig.db import Row

_COLOURS: Final = {
    "verified": "green",
    "backfilled": "cyan",
    "syncing": "yellow",
    "failed": "bold red",
    "known": "dim",
    "rolled_back": "dim",
}


def status(rows: list[Row]) -> Table:
    """pymig.status: a line per ship."""
    table = _table(
        "ship",
        "state",
        ">done",
        ">rows",
        ">rows/s",
        ">left",
        ">lag",
        ">pending",
        ">quarantined",
        "wide table",
        "last error",
    )
    for row in rows:
        table.add_row(
            Text(row["entity"]),
            Text(row["state"], style=_COLOURS.get(row["state"], "")),
            "" if row["percent"] is None else f"{row['percent']:.0f} %",
            _number(row["rows_done"] or None),
            _number(row["rows_per_second"]),
            _duration(row["eta"]),
            _duration(row["sync_lag"]),
            _number(row["pending"]),
            _number(row["quarantined"]),
            Text(row["wide_table"] or ""),
            Text(row["last_error"] or "", style="red"),
        )
    table.caption = _caption(rows)
    return table


def plan(rows: list[Row]) -> Table:
    """pymig.plan(): a line per item."""
    table = _table("ship", "item", "value")
    shown = None
    for row in rows:
        style = "bold red" if row["is_blocker"] else ""
        table.add_row(
            Text(row["entity"] if row["entity"] != shown else ""),
            Text(row["item"], style=style),
            Text(row["value"], style=style),
        )
        shown = row["entity"]
    return table


def sources(rows: list[Row]) -> Table:
    """pymig.source: a line per source."""
    table = _table(
        "source", "narrow table", "entity", "channel", "time", "values", "column types", "new ships"
    )
    for row in rows:
        names = ("source", "narrow", "entity_column", "channel_column", "time_column")
        table.add_row(
            *(Text(str(row[name])) for name in names),
            Text(", ".join(row["value_columns"])),
            row["column_types"],
            row["new_entities"],
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(
            name.removeprefix(">"),
            justify="right" if name.startswith(">") else "left",
            overflow="fold",
        )
    return table


def _caption(rows: list[Row]) -> Text:
    warnings = []
    working = [row for row in rows if row["wide_table"]]
    if working and not any(row["workers_alive"] for row in rows):
        warnings.append("No worker is alive: start one with `pymig worker`.")
    if any(row["triggers"] != "armed" for row in working):
        warnings.append("Triggers are not as installed: run start-sync, then verify with repair.")
    return Text(" ".join(warnings), style="yellow")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _duration(value: timedelta | None) -> str:
    if value is None:
        return ""
    seconds = value.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
