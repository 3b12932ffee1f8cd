"""The screen of `pymig status --watch` without a database: order, filter, width, a lost server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rich.console import Console
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from pymig import columns
from pymig.progress import waiting
from pymig.screen import Help, Looked, Watch
from pymig.watch import Look, Rates, Server

NOWHERE = Server("host=127.0.0.1 port=1 dbname=none", None, "nowhere")
SHIP: dict[str, Any] = {
    "source": "s",
    "entity": "imo9000001",
    "state": "syncing",
    "percent": 43.2,
    "percent_verified": None,
    "rows_done": 1000,
    "rows_per_second": 140_319,
    "eta_seconds": 4000,
    "lag_seconds": 0.2,
    "lag_p99_seconds": 0.4,
    "pending": 12_345,
    "quarantined": 7,
    "failed_chunks": 0,
    "wide_table": "tenant.wide",
    "last_error": None,
    "held_up_by": None,
    "is_paused": False,
}


def seen(*ships: dict[str, Any]) -> dict[str, Any]:
    """A document of pymig.overview() with these ships."""
    source = {"source": "s", "triggers": "armed", "queue_bytes": 8192, "is_paused": False}
    return {
        "at": "2026-01-01T00:00:00+00:00",
        "server": "PostgreSQL 18",
        "workers_alive": 1,
        "throttled": None,
        "sources": [source],
        "ships": [SHIP | ship for ship in ships],
        "events": [],
    }


def on_screen(
    test: Callable[[Watch, Pilot[None]], Awaitable[None]], width: int = 80, height: int = 24
) -> None:
    """Run a test with the screen; there is no server."""

    async def run() -> None:
        app = Watch(NOWHERE)
        async with app.run_test(size=(width, height)) as pilot:
            await test(app, pilot)

    asyncio.run(run())


def names(app: Watch) -> list[str]:
    """The ships from top to bottom."""
    table: DataTable[Any] = app.query_one(DataTable)
    return [str(table.get_row_at(number)[0]) for number in range(table.row_count)]


async def look(app: Watch, pilot: Pilot[None], at: float, *ships: dict[str, Any]) -> None:
    """Let the screen see these ships."""
    app.post_message(Looked(Look(at, seen(*ships))))
    await pilot.pause()


def test_a_fleet_is_sorted_filtered_and_followed() -> None:
    """256 ships: the selected one stays selected wherever it goes, ships may come and go."""
    fleet = [{"entity": f"ship{number:03}", "lag_p99_seconds": number} for number in range(256)]
    fleet[7]["state"] = "failed"

    async def test(app: Watch, pilot: Pilot[None]) -> None:
        await look(app, pilot, 1, *fleet)
        assert names(app)[:3] == ["ship007", "ship000", "ship001"]
        assert len(names(app)) == 256
        await pilot.press("down", "down")
        table: DataTable[Any] = app.query_one(DataTable)
        assert table.cursor_row == 2  # ship001
        await pilot.press("s", "s", "s")
        assert names(app)[:2] == ["ship255", "ship254"]
        assert str(table.get_row_at(table.cursor_row)[0]) == "ship001"
        await pilot.press("slash", *"p01", "enter")
        assert names(app) == [f"ship01{number}" for number in range(9, -1, -1)]
        await look(app, pilot, 2, *fleet[:12])
        assert names(app) == ["ship011", "ship010"]
        await pilot.press("slash", *"zz")
        assert "Escape shows all" in str(app.query_one("#ship", Static).render())
        await pilot.press("escape")
        assert len(names(app)) == 12
        await pilot.press("s", "question_mark")
        assert isinstance(app.screen, Help)
        await look(app, pilot, 3, *fleet)  # goes on below it
        await pilot.press("q")  # ends the help alone
        assert len(names(app)) == 256
        assert names(app)[0] == "ship007"
        await pilot.press("q")
        assert app.return_code == 0

    on_screen(test)


def test_a_lost_server_is_said_and_comes_back() -> None:
    """What was seen last stays."""

    async def test(app: Watch, pilot: Pilot[None]) -> None:
        await look(app, pilot, 1, {})
        app.post_message(Looked(Look(2, None, "The server can't be reached: gone.")))
        await pilot.pause()
        lost = app.query_one("#lost", Static)
        assert (lost.display, names(app)) == (True, ["imo9000001"])
        await look(app, pilot, 3, {})
        assert not lost.display

    on_screen(test)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_too_long(width: int) -> None:
    """Columns are left out, the least important first; a wide terminal has them all."""
    chosen = columns.choose([SHIP], width)
    found = {column.name for column in chosen}
    assert sum(column.width + 1 for column in chosen) < width
    assert found >= {"ship", "state", "progress", "pending"}
    assert ("held up by" in found) == (width == 160)
    for column in chosen:
        assert column.cell(SHIP, Rates()).cell_len <= column.width


def test_rates_of_the_last_minute() -> None:
    """From one look to the next; a ship that begins anew begins with nothing."""
    rates = Rates()
    assert rates.now(SHIP) == 140_319  # as the database says: nothing was seen yet
    for second in range(61):
        rates.note(Look(second, seen({"rows_done": 10 * max(0, second - 30)})))
    assert rates.now(SHIP) == 10
    assert rates.spark(SHIP, 4) == "▁▁██"
    rates.note(Look(61, seen({"rows_done": 0})))
    assert rates.spark(SHIP, 4) == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_on_a_terminal_alone(is_terminal: bool) -> None:
    """It says how far it is; and is gone afterwards. Elsewhere nothing is written."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=80)
    ended = asyncio.Event()

    def far() -> tuple[float, float | None, str]:
        return 3, 4, "3 of 4 buckets"

    async def work() -> None:
        with waiting(console, "imo1: retire", far):
            for _ in range(40):
                await asyncio.sleep(0.05)
                if "3 of 4 buckets" in out.getvalue() or not is_terminal:
                    ended.set()
                    return

    asyncio.run(work())
    assert ended.is_set()
    assert bool(out.getvalue()) == is_terminal
