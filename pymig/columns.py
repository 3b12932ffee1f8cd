"""The columns of the screen of `pymig status --watch`: what stands in them, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.text import Text

from pymig.show import COLOURS
from pymig.watch import Rates, Row

#: Those that need somebody to look at them first, then those that work, then those that are done.
STATES: Final = (
    "failed",
    "syncing",
    "backfilled",
    "planned",
    "verified",
    "cut_over",
    "finalized",
    "known",
    "rolled_back",
)
_BAR, _SPARK, _NAME = 8, 12, 28  # characters
_REASON: Final = "held up by"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Column:
    """A heading, a width in characters, and what stands in a ship's line."""

    name: str
    width: int
    show: Callable[[Row, Rates], Text]
    is_figure: bool = False

    def heading(self) -> Text:
        """The heading, above the figures where they stand on the right."""
        return Text(f"{self.name:>{self.width}}" if self.is_figure else self.name)

    def cell(self, ship: Row, rates: Rates) -> Text:
        """What stands in the line of a ship, no wider than the column."""
        text = self.show(ship, rates)
        text.truncate(self.width, overflow="ellipsis")
        if self.is_figure:
            text.pad_left(self.width - text.cell_len)
        return text


def choose(ships: Sequence[Row], width: int) -> Sequence[Column]:
    """As many columns as there is room for: the least important go first."""
    name = min(max([len(ship["entity"]) for ship in ships] + [4]), _NAME)
    found = [Column("ship", name, _ship), *_COLUMNS]
    for left_out in _LEAVE_OUT:
        if sum(column.width + 1 for column in found) <= width - 1:
            break
        found = [column for column in found if column.name != left_out]
    last = found[-1]
    if last.name == _REASON:
        rest = width - 2 - sum(column.width + 1 for column in found)
        found[-1] = replace(last, width=last.width + max(0, rest))
    return tuple(found)


def sentence(ship: Row) -> Text:
    """All that is to be said of one ship and does not fit its line."""
    said = [f"{ship['entity']}: {ship['state']}"]
    if ship["wide_table"]:
        said.append(f"table {ship['wide_table']}")
    if ship["rows_done"]:
        said.append(f"{ship['rows_done']:,} rows moved")
    if ship["failed_chunks"]:
        said.append(f"{ship['failed_chunks']:,} chunks failed")
    if ship["held_up_by"]:
        said.append(f"waits, {ship['held_up_by']}")
    if ship["last_error"]:
        said.append(ship["last_error"])
    needs_help = ship["last_error"] or ship["failed_chunks"]
    return Text(", ".join(said), style="red" if needs_help else "")


def summary(ships: Sequence[Row], rates: Rates) -> str:
    """One line about all ships that are shown."""
    states = [ship["state"] for ship in ships]
    counted = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    rate = sum(rates.now(ship) or 0 for ship in ships)
    pending = sum(ship["pending"] or 0 for ship in ships)
    quarantined = sum(ship["quarantined"] or 0 for ship in ships)
    return (
        f"{len(ships)} ship{'' if len(ships) == 1 else 's'}: {counted or 'none'}; "
        f"{rate:,.0f} rows/s, {pending:,} pending, {quarantined:,} quarantined"
    )


def size(count: int) -> str:
    """Bytes for people."""
    number, unit = float(count), 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} {_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Seconds for people, in six characters at most."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds else "0 s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _ship(ship: Row, _: Rates) -> Text:
    return Text(ship["entity"])


def _state(ship: Row, _: Rates) -> Text:
    mark = " ‖" if ship["held_up_by"] else ""
    return Text(f"{ship['state']}{mark}", style=COLOURS.get(ship["state"], ""))


def _bar(ship: Row, _: Rates) -> Text:
    is_verified = ship["percent_verified"] is not None
    percent = ship["percent_verified"] if is_verified else ship["percent"]
    if percent is None:
        return Text()
    done = round(_BAR * percent / 100)
    colour = "cyan" if is_verified else COLOURS.get(ship["state"], "")
    text = Text("━" * done, style=colour)
    text.append("─" * (_BAR - done), style="dim")
    return text.append(f" {int(percent):>3} %")


def _rate(ship: Row, rates: Rates) -> Text:
    rate = rates.now(ship)
    return Text(f"{rate:,.0f}" if rate else "")


def _count(name: str, style: str = "") -> Callable[[Row, Rates], Text]:
    return lambda ship, _: Text(f"{ship[name]:,}" if ship[name] is not None else "", style=style)


def _quarantined(ship: Row, _: Rates) -> Text:
    rows = ship["quarantined"]
    return Text("" if rows is None else f"{rows:,}", style="yellow" if rows else "")


_COLUMNS: Final = (
    Column("state", 12, _state),
    Column("progress", _BAR + 6, _bar),
    Column("rows/s", 9, _rate, is_figure=True),
    Column("last minute", _SPARK, lambda ship, rates: Text(rates.spark(ship, _SPARK), "cyan")),
    Column("left", 6, lambda ship, _: Text(duration(ship["eta_seconds"])), is_figure=True),
    Column("lag", 6, lambda ship, _: Text(duration(ship["lag_seconds"])), is_figure=True),
    Column("lag p99", 7, lambda ship, _: Text(duration(ship["lag_p99_seconds"])), is_figure=True),
    Column("pending", 7, _count("pending"), is_figure=True),
    Column("quar.", 6, _quarantined, is_figure=True),
    Column(_REASON, 20, lambda ship, _: Text(ship["held_up_by"] or "")),
)
_LEAVE_OUT: Final = (_REASON, "lag", "last minute", "left", "rows/s", "quar.", "lag p99")
