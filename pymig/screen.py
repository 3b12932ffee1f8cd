"""The screen of `pymig status --watch`, by textual. What it shows comes from pymig/watch.py."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import DataTable, Footer, Input, Static

from pymig import __version__, columns
from pymig.columns import Column
from pymig.errors import PymigError
from pymig.watch import Key, Look, Rates, Row, Server, follow, key, told

_LEVELS: Final = {"CRITICAL": "bold red", "WARNING": "yellow", "INFO": "dim"}
_EVENTS: Final = 5
_NO_SHIP: Final = "No ship is known yet: `pymig plan` shows what is there."
_NO_SUCH: Final = "No ship has these letters: Escape shows all."
_HELP: Final = """\
[b]up, down, page up, page down, home, end[/b]   move
[b]s[/b]   sort by state, ship, rate or lag
[b]p[/b]   pause the ship's history, or let it go on; sync goes on either way
[b]/[/b]   show only ships whose name or state has these letters; Enter keeps, Escape ends it
[b]q[/b]   quit; whatever works goes on working

[b]rows/s[/b]    narrow rows the backfill moved in the last 10 seconds; beside it the last minute
[b]left[/b]      time the rest of the backfill takes
[b]lag p99[/b]   age of 99 of 100 changes when they reached the wide table, last 5 minutes
[b]pending[/b]   changes that wait for the worker
[b]quar.[/b]     narrow rows that could not become a cell: SELECT * FROM pymig.quarantine
"""
W = TypeVar("W", bound=Widget)
Sorting = Callable[[Row, Rates], Any]
#: How s sorts, in turn.
_SORTINGS: Final[dict[str, Sorting]] = {
    "state": lambda ship, _: (columns.STATES.index(ship["state"]), *key(ship)),
    "ship": lambda ship, _: key(ship),
    "rate": lambda ship, rates: (-(rates.now(ship) or 0), *key(ship)),
    "lag": lambda ship, _: (-(ship["lag_p99_seconds"] or ship["lag_seconds"] or 0), *key(ship)),
}


class Looked(Message):
    """The database was looked at."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look


class Help(ModalScreen[None]):
    """What the keys and the columns are; any key ends it."""

    def compose(self) -> ComposeResult:
        """One panel."""
        yield Static(_HELP, id="help")

    def on_key(self) -> None:
        """End it."""
        self.dismiss()


class Watch(App[None]):
    """A header, a line per ship, the selected ship, a summary, the newest events."""

    CSS = """
    #header, #ship, #summary, #events { height: auto; }
    #events { max-height: 6; border-top: solid $primary; }
    #events { text-wrap: nowrap; text-overflow: ellipsis; }
    #ship { max-height: 4; }
    #lost { height: auto; max-height: 3; background: $error; color: $text; display: none; }
    DataTable { height: 1fr; }
    Input { display: none; height: 1; border: none; }
    Help { align: center middle; }
    #help { width: 96; max-width: 100%; height: auto; padding: 1 2; border: round $primary; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("s", "sort", "sort"),
        Binding("p", "pause", "pause/resume"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "unfilter", show=False),
        Binding("question_mark", "help", "help"),
    ]

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.animation_level = "none"
        self._server: Final = server
        self._rates: Final = Rates()
        self._stop: Final = threading.Event()
        self.seen: Row | None = None
        self._sorting = "state"
        self._filter = ""
        self._ships: list[Row] = []
        self._texts: Final[dict[str, Text]] = {}
        self._columns: Sequence[Column] = ()
        self._cells: list[list[Text]] = []

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static(id="header")
        yield Static(id="lost")
        yield DataTable(id="ships", cursor_type="row", cell_padding=0, zebra_stripes=True)
        yield Input(placeholder="ship or state", id="filter")
        yield Static(id="ship")
        yield Static(id="summary")
        yield Static(id="events")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look; whoever ends the process from outside gets the terminal back, too."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        # A thread that a dead network holds up must not hold up the end.
        threading.Thread(target=self._look, name="pymig watch", daemon=True).start()

    def on_unmount(self) -> None:
        """End looking."""
        self._stop.set()

    def _look(self) -> None:
        for look in follow(self._server, self._stop):
            self.post_message(Looked(look))

    def on_looked(self, message: Looked) -> None:
        """Show what is new."""
        lost = self.screen_stack[0].query_one("#lost", Static)
        lost.display = bool(message.look.error)
        lost.update(f"{message.look.error} Trying again each second.")
        if message.look.seen:
            self.seen = message.look.seen
            self._rates.note(message.look)
            self._draw()

    def on_resize(self) -> None:
        """Make the columns anew: there may be room for more, or for fewer."""
        self._draw()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Say more of the ship that is selected now."""
        if event.cursor_row < len(self._ships):
            self._say("#ship", columns.sentence(self._ships[event.cursor_row]))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the ships that are asked for."""
        self._filter = event.value.strip().lower()
        self._draw()

    def on_input_submitted(self) -> None:
        """Keep the filter, and go back to the ships."""
        self._at(Input).display = False
        self._at(DataTable).focus()

    def action_filter(self) -> None:
        """Ask for letters."""
        field = self._at(Input)
        field.display = True
        field.focus()

    def action_unfilter(self) -> None:
        """Show all ships again."""
        self._at(Input).value = ""
        self.on_input_submitted()

    def action_sort(self) -> None:
        """Sort by what comes next."""
        names = list(_SORTINGS)
        self._sorting = names[(names.index(self._sorting) + 1) % len(names)]
        self._draw()

    def action_help(self) -> None:
        """Say what the keys and columns are."""
        self.push_screen(Help())

    def action_pause(self) -> None:
        """Pause the selected ship, or let it go on."""
        if ship := self._selected():
            # Not in the loop: a database that does not answer must not stop the screen.
            threading.Thread(target=self._pause, args=[ship], daemon=True).start()

    def _selected(self) -> Row | None:
        place = self._at(DataTable).cursor_row
        return self._ships[place] if place < len(self._ships) else None

    def _pause(self, ship: Row) -> None:
        procedure, said = ("resume", "goes on") if ship["is_paused"] else ("pause", "is paused")
        try:
            with self._server.session() as session:
                session.call(procedure, p_entity=ship["entity"], p_source=ship["source"])
            ship["is_paused"] = procedure == "pause"  # until the next look
            tell = partial(self.notify, f"{ship['entity']} {said}.", markup=False)
        except PymigError as error:
            words = f"{error.message} {error.hint}".strip()
            tell = partial(self.notify, words, severity="error", markup=False)
        if self.is_running:
            self.call_from_thread(tell)

    def _draw(self) -> None:
        if not self.seen:
            return
        selected = self._selected()
        self._ships = sorted(
            (ship for ship in self.seen["ships"] if self._is_asked(ship)),
            key=lambda ship: _SORTINGS[self._sorting](ship, self._rates),
        )
        self._say("#header", self._header(self.seen))
        self._draw_ships(key(selected) if selected else None)
        said = columns.summary(self._ships, self._rates)
        how = f"sorted by {self._sorting}{f', only {self._filter!r}' if self._filter else ''}"
        self._say("#summary", Text(f"{said}; {how}", style="bold"))
        events = self.seen["events"][:_EVENTS]
        self._say("#events", Text("\n").join(_event(row) for row in reversed(events)))

    def _at(self, kind: type[W]) -> W:
        """The widget of this kind; also while the help lies above it."""
        return self.screen_stack[0].query_one(kind)

    def _say(self, where: str, text: Text) -> None:
        """What has not changed need not travel to the terminal again."""
        if self._texts.get(where) != text:
            self._texts[where] = text
            self.screen_stack[0].query_one(where, Static).update(text)

    def _is_asked(self, ship: Row) -> bool:
        return self._filter in ship["entity"].lower() or self._filter in ship["state"]

    def _header(self, seen: Row) -> Text:
        at = datetime.fromisoformat(seen["at"]).astimezone()
        first = f"pymig {__version__}  {seen['server']} at {self._server.address}  {at:%H:%M:%S}"
        alive = seen["workers_alive"]
        text = Text(first, style="bold")
        text.append("\n")
        text.append(f"workers {alive}", style="green" if alive else "bold red")
        for source in seen["sources"]:
            text.append(f"  {source['source']}: ", style="bold")
            is_fine = source["triggers"] != "drifted"
            text.append(f"triggers {source['triggers']}", style="green" if is_fine else "bold red")
            text.append(f", queue {columns.size(source['queue_bytes'])}", style="default")
            if source["is_paused"]:
                text.append(", paused", style="yellow")
        held = seen["throttled"]
        text.append(f"  {'history waits: ' + held if held else 'not throttled'}")
        return text

    def _draw_ships(self, selected: Key | None) -> None:
        """Change the cells that differ; the place and the selected ship stay."""
        table = self._at(DataTable)
        chosen = columns.choose(self._ships, self.size.width)
        if chosen != self._columns:
            self._columns, self._cells = chosen, []
            table.clear(columns=True)
            for column in chosen:
                table.add_column(column.heading(), width=column.width + 1)
        rows = [
            [column.cell(ship, self._rates) for column in self._columns] for ship in self._ships
        ]
        for number, cells in enumerate(rows):
            if number >= len(self._cells):
                table.add_row(*cells)
                continue
            for place, cell in enumerate(cells):
                if cell != self._cells[number][place]:
                    table.update_cell_at((number, place), cell)  # type: ignore[arg-type]
        for row in list(table.rows)[len(rows) :]:
            table.remove_row(row)
        self._cells = rows
        places = [key(ship) for ship in self._ships]
        if selected in places:
            table.move_cursor(row=places.index(selected), scroll=False)
        ship = self._selected()
        self._say(
            "#ship",
            columns.sentence(ship) if ship else Text(_NO_SUCH if self._filter else _NO_SHIP),
        )


def _event(row: Row) -> Text:
    at = datetime.fromisoformat(row["happened_at"]).astimezone()
    words = " ".join(told(row).split())  # on one line, whatever the database said
    return Text(f"{at:%H:%M:%S} {words}", style=_LEVELS[row["level"]])


def show(server: Server) -> None:
    """Show the screen until q."""
    Watch(server).run()
