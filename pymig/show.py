"""Tables for people, made of the rows of pymig's views."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pymig.db import Row

#: Of the states of a ship.
COLOURS: Final = {
    "finalized": "bold green",
    "cut_over": "bold green",
    "verified": "green",
    "backfilled": "cyan",
    "syncing": "yellow",
    "failed": "bold red",
    "known": "dim",
    "rolled_back": "dim",
}
_STATUS_COLUMNS: Final = (
    "ship",
    "state",
    "done",
    "rows",
    "rows/s",
    "left",
    "lag",
    "p99",
    "pending",
    "quarantined",
    "table",
)
#: What goes where there is no room for all, in this order.
_LEAVE_OUT: Final = ("p99", "table", "left", "rows/s", "rows", "quarantined", "lag")
_LONG_ITEMS: Final = ("column name", "blocker")
_CERTIFICATE_ITEMS: Final = (
    "certified_at",
    "certified_by",
    "lsn",
    "from_time",
    "to_time",
    "buckets",
    "cells",
    "wide_rows",
    "quarantined",
    "digest",
    "code_hash",
)
_SOURCE_ITEMS: Final = {
    "entity_column": "entity",
    "channel_column": "channel",
    "time_column": "time",
    "value_columns": "values",
    "column_types": "column types",
    "new_entities": "new ships",
}


@dataclass(frozen=True)
class StatusTable:
    """pymig.status: a line per ship, as many columns as there is room for, the errors below."""

    rows: list[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Leave columns out, the least important first, until no line is too long."""
        if not self.rows:
            yield "No ship is known yet: `pymig plan` shows what is there."
            return
        # These two are only there when they have something to say.
        optional = {"quarantined": "quarantined", "eta": "left"}
        hidden = [
            shown for name, shown in optional.items() if not any(row[name] for row in self.rows)
        ]
        table = _status_table(self.rows, hidden)
        unbounded = options.update_width(10_000)
        for name in _LEAVE_OUT:
            if Measurement.get(console, unbounded, table).maximum <= options.max_width:
                break
            hidden.append(name)
            table = _status_table(self.rows, hidden)
        yield table
        for row in self.rows:
            if row["last_error"]:
                yield Text(f"{row['entity']}: {row['last_error']}", style="red")
        if warning := _warning(self.rows):
            yield Text(warning, style="yellow")


@dataclass(frozen=True)
class PlanList:
    """pymig.plan(): a paragraph per ship, a line per item."""

    rows: list[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Short items in two columns; names, which may be long, each on a line of its own."""
        for ship, items in groupby(self.rows, key=lambda row: str(row["entity"])):
            listed = list(items)
            yield Text(ship, style="bold")
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for row in listed:
                if row["item"] not in _LONG_ITEMS:
                    table.add_row(f"  {row['item']}", Text(row["value"]))
            yield table
            for row in listed:
                if row["item"] in _LONG_ITEMS:
                    style = "bold red" if row["is_blocker"] else ""
                    yield Text(f"  {row['item']}: {row['value']}", style=style)


@dataclass(frozen=True)
class FindingList:
    """Checks: a line per item, what to do below it; a heading per ship where there are ships."""

    rows: list[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Level, item and value in columns."""
        for ship, group in groupby(self.rows, key=lambda row: row.get("entity")):
            if ship is not None:
                yield Text(str(ship), style="bold")
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for row in group:
                level = Text(row["level"], style=row["level"])
                table.add_row(level, row["item"], Text(row["value"]))
                if row["advice"]:
                    table.add_row("", "", Text(row["advice"], style="dim"))
            yield table


def status(rows: list[Row]) -> StatusTable:
    """pymig.status for people."""
    return StatusTable(rows)


def plan(rows: list[Row]) -> PlanList:
    """pymig.plan() for people."""
    return PlanList(rows)


def findings(rows: list[Row]) -> FindingList:
    """pymig.precheck() and pymig.analyze() for people."""
    return FindingList(rows)


def sources(rows: list[Row]) -> Table | str:
    """pymig.source: a paragraph per source."""
    if not rows:
        return "No source is registered: `pymig source add` does it."
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(Text(row["source"], style="bold"), Text(str(row["narrow"])))
        for name, shown in _SOURCE_ITEMS.items():
            value = row[name]
            table.add_row(
                f"  {shown}", Text(", ".join(value) if isinstance(value, list) else str(value))
            )
    return table


def certificates(rows: list[Row]) -> Table | str:
    """pymig.certificate: a paragraph per ship, the fault first where there is one."""
    if not rows:
        return "No ship is certified: `pymig certify` does it."
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in sorted(rows, key=lambda row: (row["source"], row["entity"])):
        style, counts = ("red", f"no: {row['fault']}") if row["fault"] else ("green", "yes")
        table.add_row(Text(row["entity"], style="bold"), Text(row["wide_table"]))
        table.add_row("  counts", Text(counts, style=style))
        for name in _CERTIFICATE_ITEMS:
            value = row[name]
            table.add_row(
                f"  {name.replace('_', ' ')}",
                Text(_number(value) if isinstance(value, int) else str(value)),
            )
    return table


def routing(rows: list[Row]) -> Table | str:
    """pymig.routing: a line per ship."""
    if not rows:
        return "No ship is migrated: all are read from the narrow table."
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("ship", "state", "read from"):
        table.add_column(name, no_wrap=True)
    for name in ("shadow reads", "differing", "narrow", "wide"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda row: (row["source"], row["entity"])):
        percent = "" if row["percent"] is None else f" {row['percent']}"
        times = [row["narrow_ms"], row["wide_ms"]]
        table.add_row(
            Text(row["entity"]),
            row["state"],
            f"{row['routing']}{percent}",
            _number(row["shadow_reads"] or None),
            _number(row["shadow_differing"] if row["shadow_reads"] else None),
            *("" if ms is None else f"{ms:.1f} ms" for ms in times),
        )
    return table


def throttle(rows: list[Row]) -> Table:
    """pymig.throttle: a line per condition; what holds work up in red."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("condition", no_wrap=True)
    for name in ("now", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("")
    for row in rows:
        limit, value = row["max_value"], row["value"]
        is_over = None not in (limit, value) and value > limit
        table.add_row(
            Text(row["condition"]),
            "" if value is None or limit is None else f"{value:,.0f}",
            "off" if limit is None else f"{limit:,.0f}",
            Text(row["unit"]),
            Text(row["error"] or (row["what_to_do"] if is_over else "")),
            style="red" if is_over else "dim" if limit is None else None,
        )
    return table


def _status_table(rows: list[Row], hidden: list[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = [name for name in _STATUS_COLUMNS if name not in hidden]
    for name in names:
        table.add_column(
            name,
            justify="left" if name in ("ship", "state", "table") else "right",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        cells = _status_cells(row)
        table.add_row(*(cells[name] for name in names))
    return table


def _status_cells(row: Row) -> dict[str, Text]:
    shown = {
        "ship": row["entity"],
        "state": row["state"],
        "done": "" if row["percent"] is None else f"{row['percent']:.0f} %",
        "rows": _number(row["rows_done"] or None),
        "rows/s": _number(row["rows_per_second"]),
        "left": _duration(row["eta"]),
        "lag": _duration(row["sync_lag"]),
        "p99": _duration(row["sync_lag_p99"]),
        "pending": _number(row["pending"]),
        "quarantined": _number(row["quarantined"]),
        "table": (row["wide_table"] or "").rpartition(".")[2],
    }
    cells = {name: Text(value) for name, value in shown.items()}
    cells["state"].stylize(COLOURS.get(row["state"], ""))
    return cells


def _warning(rows: list[Row]) -> str:
    warnings = []
    working = [row for row in rows if row["wide_table"]]
    if working and not any(row["workers_alive"] for row in rows):
        warnings.append("No worker is alive: start one with `pymig worker`.")
    if any(row["triggers"] != "armed" for row in working):
        warnings.append("Triggers are not as installed: run start-sync, then verify with repair.")
    if any(row["keys_lost"] for row in working):
        warnings.append("The queue was full and changes were not recorded: the worker repairs it.")
    for reason in sorted({row["held_up_by"] for row in rows} - {None}):
        ships = ", ".join(row["entity"] for row in rows if row["held_up_by"] == reason)
        warnings.append(f"History of {ships} waits, {reason}.")
    if any(row["sync"] == "direct, paused" for row in working):
        warnings.append("Direct writes pause, and the worker does them: see pymig.event.")
    return " ".join(warnings)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _duration(value: timedelta | None) -> str:
    if value is None:
        return ""
    seconds = value.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def alerts(rows: list[Row]) -> Table:
    """pymig.list_alerts: a line per rule, and per ship that is over its limit, in red."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("alert", no_wrap=True)
    for name in ("ship", "now", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("for", no_wrap=True)
    table.add_column("")
    for row in rows:
        limit, is_over = row["max_value"], row["value"] is not None
        table.add_row(
            Text(row["alert"]),
            Text(row["entity"] or ""),
            f"{row['value']:,.0f}" if is_over else "",
            "off" if limit is None else f"{limit:,.0f}",
            Text(row["unit"]),
            str(row["lasting"]),
            Text(row["error"] or (row["what_to_do"] if is_over else "")),
            style="red" if is_over else "dim" if limit is None else None,
        )
    return table
