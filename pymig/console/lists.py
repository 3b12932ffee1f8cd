"""What can be long: channels, chunks, verification, certificates, quarantine, events.

Each is a function of pymig's that gives a page of 100 rows at most, and is shown as a table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from pymig import db
from pymig.console import views
from pymig.console.state import console
from pymig.console.words import noop
from pymig.errors import UsageError

PAGE: Final = 100
REASONS: Final = (
    "unknown_format", "other_column", "several_values", "type_mismatch", "no_time", "no_channel",
    "closed_range", "recompute_failed",
)  # fmt: skip
#: Kinds of values that are shown in a way of their own.
_CSS: Final = {"number": "n", "duration": "n", "moment": "t", "json": "json", "code": "code"}


@dataclass(frozen=True)
class Column:
    """A column of a list: of which kind its values are, and whether a phone leaves it out."""

    name: str
    label: str
    kind: str = "text"
    wide: bool = False

    @property
    def css(self) -> str:
        """The classes of its cells."""
        return f"{_CSS.get(self.kind, '')}{' wide' if self.wide else ''}".strip()


@dataclass(frozen=True)
class Listing:
    """A list: where its pages come from, how they go on, what one can choose."""

    title: str
    function: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    of_ship: bool = False
    goes: str = "p_before"
    page: int = PAGE
    search: str = ""
    choice: str = ""
    choices: tuple[str, ...] = ()
    choice_label: str = ""


_SHIP: Final = Column("entity", noop("ship"), "ship")
_TIMES: Final = (
    Column("from_time", noop("from"), "code"),
    Column("to_time", noop("to"), "code", True),
)

LISTINGS: Final = {
    "channels": Listing(
        noop("Channels"),
        "list_channels",
        ("ord",),
        (
            Column("ord", "#", "number"),
            Column("channel", noop("channel"), "code"),
            Column("part", noop("part"), "number"),
            Column("wide_column", noop("column"), "code", True),
            Column("column_type", noop("type")),
            Column("kind", noop("values"), "text", True),
            Column("added_at", noop("added"), "moment", True),
        ),
        of_ship=True,
        goes="p_after",
        search="p_search",
    ),
    "chunks": Listing(
        noop("Chunks"),
        "list_chunks",
        ("chunk",),
        (
            Column("chunk", "#", "number"),
            *_TIMES,
            Column("state", noop("state"), "state"),
            Column("strategy", noop("strategy"), "text", True),
            Column("narrow_rows", noop("rows"), "number"),
            Column("cells", noop("cells"), "number", True),
            Column("seconds", noop("took"), "duration"),
            Column("attempts", noop("failed attempts"), "number", True),
            Column("finished_at", noop("finished"), "moment", True),
            Column("error", noop("error"), "error"),
        ),
        of_ship=True,
        choice="p_state",
        choices=("planned", "done", "failed", "error"),
        choice_label=noop("state"),
    ),
    "verification": Listing(
        noop("Verification"),
        "list_verifications",
        ("bucket",),
        (
            *_TIMES,
            Column("is_equal", noop("equal"), "equal"),
            Column("cells", noop("cells"), "number"),
            Column("differences", noop("differences"), "number"),
            Column("repaired", noop("repaired"), "yes", True),
            Column("seconds", noop("took"), "duration", True),
            Column("checked_at", noop("compared"), "moment"),
            Column("digest", noop("digest"), "code", True),
            Column("sample", noop("differences found"), "json", True),
        ),
        of_ship=True,
        choice="p_is_differing",
        choices=("differing",),
        choice_label=noop("equal"),
    ),
    "certificates": Listing(
        noop("Certificates"),
        "list_certificates",
        ("source", "entity"),
        (
            _SHIP,
            Column("fault", noop("counts"), "fault"),
            Column("certified_at", noop("certified"), "moment"),
            Column("certified_by", noop("by"), "text", True),
            Column("from_time", noop("from"), "code", True),
            Column("to_time", noop("to"), "code", True),
            Column("buckets", noop("buckets"), "number", True),
            Column("cells", noop("cells"), "number"),
            Column("wide_rows", noop("wide rows"), "number", True),
            Column("quarantined", noop("quarantined"), "number", True),
            Column("digest", noop("digest"), "code", True),
        ),
        goes="p_after",
        page=50,
    ),
    "quarantine": Listing(
        noop("Quarantine"),
        "list_quarantine",
        ("quarantine",),
        (
            Column("quarantine", "#", "number", True),
            _SHIP,
            Column("channel", noop("channel"), "code"),
            Column("time", noop("time"), "code"),
            Column("reason", noop("reason")),
            Column("detail", noop("detail")),
            Column("narrow_row", noop("narrow row"), "json", True),
            Column("quarantined_at", noop("found"), "moment", True),
        ),
        choice="p_reason",
        choices=REASONS,
        choice_label=noop("reason"),
    ),
    "events": Listing(
        noop("Events"),
        "list_events",
        ("event",),
        (
            Column("happened_at", noop("when"), "moment"),
            Column("level", noop("level"), "level"),
            _SHIP,
            Column("what", noop("what")),
            Column("detail", noop("detail")),
            Column("who", noop("who"), "text", True),
        ),
        choice="p_level",
        choices=("INFO", "WARNING", "CRITICAL"),
        choice_label=noop("level"),
    ),
}


def listing(request: HttpRequest, name: str) -> HttpResponse:
    """A page of a list, of all ships or of one."""
    chosen = LISTINGS[name]
    source, ship = request.GET.get("source"), request.GET.get("ship")
    if chosen.of_ship and not (source and ship):
        raise Http404(_("Of which ship?"))
    wanted, choice = request.GET.get("q", ""), request.GET.get("choice", "")
    params: dict[str, Any] = {"p_source": source or None, "p_entity": ship or None}
    params |= {"p_limit": chosen.page}
    if chosen.search and wanted:
        params[chosen.search] = wanted
    if choice in chosen.choices:
        params[chosen.choice] = True if choice == "differing" else choice
    if cursor := request.GET.get("cursor"):
        params[chosen.goes] = _parsed(cursor, chosen)
    rows = console().reader.select(chosen.function, **params)
    context = {
        "name": name,
        "listing": chosen,
        "rows": [_cells(row, chosen) for row in rows],
        "next": _cursor(rows[-1], chosen) if len(rows) == chosen.page else None,
        "is_first": not cursor,
        "source": source,
        "ship": ship,
        "query": urlencode({"source": source, "ship": ship}) if source and ship else "",
        "wanted": wanted,
        "choice": choice,
    }
    return views.show(request, "list", views.SLOW, context)


def _cells(row: db.Row, chosen: Listing) -> list[dict[str, Any]]:
    source = row.get("source")
    return [
        {"value": row[column.name], "column": column, "source": source} for column in chosen.columns
    ]


def _cursor(row: db.Row, chosen: Listing) -> str:
    return json.dumps([row[name] for name in chosen.key])


def _parsed(cursor: str, chosen: Listing) -> Any:
    """What _cursor made; anything else is a UsageError."""
    kind = int if len(chosen.key) == 1 else str
    try:
        keys = json.loads(cursor)
    except ValueError:
        keys = None
    if (
        not isinstance(keys, list)
        or len(keys) != len(chosen.key)
        or not all(type(key) is kind for key in keys)
        or not all(abs(key) < 2**63 for key in keys if isinstance(key, int))
    ):
        raise UsageError(_("There is no such page."), _("Begin with the first one."))
    return keys[0] if len(keys) == 1 else keys
