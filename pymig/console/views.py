"""The pages: the fleet, a ship, charts, the controls. Fragments of them are asked for by htmx."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from pymig import db
from pymig.console import auth
from pymig.console.charts import CHARTS, draw
from pymig.console.control import CONTROLS, settings
from pymig.console.database import Reader
from pymig.console.state import console

FAST: Final = 2  # seconds between two looks at what moves
SLOW: Final = 5
MINUTES: Final = (5, 15, 60, 360)
_SORTS: Final = (
    "entity", "state", "percent", "rows_done", "rows_per_second", "eta", "sync_lag",
    "sync_lag_p99", "pending", "quarantined",
)  # fmt: skip
_NEWEST: Final = 8


def show(request: HttpRequest, page: str, every: int, context: dict[str, Any]) -> HttpResponse:
    """A page of which htmx asks for the part that changes, every so many seconds."""
    part = f"console/_{page}.html"
    if getattr(request, "htmx", False):
        return render(request, part, context)
    live = {"part": part, "every": every, "page": page}
    return render(request, f"console/{page}.html", {**context, **live})


def fleet(request: HttpRequest) -> HttpResponse:
    """All ships, with what they sum up to."""
    viewer = auth.find_viewer(request)
    rows, server, throttle = console().reader.run(
        lambda conn: (_status(conn), _server(conn), _throttled(conn))
    )
    wanted, sort = request.GET.get("q", ""), request.GET.get("sort", "entity")
    state = request.GET.get("state", "")
    chosen = [
        row
        for row in rows
        if wanted.lower() in row["entity"].lower() and state in ("", row["state"])
    ]
    context = {
        "rows": _sorted(chosen, sort),
        "sort": sort,
        "wanted": wanted,
        "state": state,
        "summary": summary(rows),
        "server": server,
        "throttle": throttle,
        "sources": len({row["source"] for row in rows}),
        "viewer": viewer,
    }
    return show(request, "fleet", FAST, context)


def ship(request: HttpRequest) -> HttpResponse:
    """One ship: state, wide tables, verification, certificate, newest chunks and events."""
    source, name = request.GET.get("source", ""), request.GET.get("ship", "")
    viewer = auth.find_viewer(request)
    of = {"p_entity": name, "p_source": source}

    def look(conn: db.Connection) -> dict[str, Any]:
        found = [row for row in _status(conn) if row["source"] == source and row["entity"] == name]
        if not found:
            raise Http404(_("There is no such ship."))
        certificates = db.select(conn, "list_certificates", **of)
        entity = next(
            row
            for row in db.read(conn, "entity")
            if (row["source"], row["entity"]) == (source, name)
        )
        return {
            "row": found[0],
            "settings": settings(
                db.select(conn, "controls"),
                entity,
                ("set_workers", "set_chunk_target", "set_priority"),
            ),
            "parts": db.select(conn, "list_parts", **of),
            "verification": db.select(conn, "verification_summary", **of)[0],
            "certificate": certificates[0] if certificates else None,
            "chunks": db.select(conn, "list_chunks", **of, p_limit=_NEWEST),
            "events": db.select(conn, "list_events", **of, p_limit=_NEWEST),
        }

    query = urlencode({"source": source, "ship": name})
    context = console().reader.run(look) | {"viewer": viewer, "query": query}
    return show(request, "ship", FAST, context)


def charts(request: HttpRequest) -> HttpResponse:
    """The figures over time."""
    try:
        minutes = int(request.GET.get("minutes", MINUTES[0]))
    except ValueError:
        minutes = MINUTES[0]
    seconds = min(max(minutes, 1), MINUTES[-1]) * 60.0
    samples, now = console().sampler.samples(seconds), time.time()
    drawn = [draw(chart, samples, seconds, now) for chart in CHARTS]
    context = {"charts": drawn, "minutes": minutes, "choices": MINUTES}
    return show(request, "charts", SLOW, context)


def controls(request: HttpRequest) -> HttpResponse:
    """What can be changed, and who may. Not asked for again: it is being typed into."""
    viewer = auth.find_viewer(request)
    reader: Reader = console().reader
    known = reader.select("controls")
    there = {row["control"] for row in known if row["is_there"]}
    names = ("set_workers", "set_chunk_target")
    context = {
        "viewer": viewer,
        "sources": [
            {**row, "settings": settings(known, row, names)}
            for row in sorted(reader.read("source"), key=lambda row: str(row["source"]))
        ],
        "throttle": sorted(reader.read("throttle"), key=lambda row: str(row["condition"])),
        "whole": [CONTROLS[name] for name in ("pause", "resume", "cancel") if name in there],
        "alerts": reader.select("list_alerts"),
        "page": "controls",
    }
    return render(request, "console/controls.html", context)


def healthz(_request: HttpRequest) -> HttpResponse:
    """200 while the console itself is well, whatever the database is."""
    return HttpResponse("ok\n", content_type="text/plain")


def summary(rows: list[db.Row]) -> dict[str, Any]:
    """What the rows of pymig.status sum up to."""

    def most(column: str) -> timedelta | None:
        return max((row[column] for row in rows if row[column] is not None), default=None)

    def total(column: str) -> int:
        return sum(row[column] or 0 for row in rows)

    moving = [row for row in rows if row["state"] == "syncing"]
    migrated = [row for row in rows if row["wide_table"]]
    return {
        "ships": len(rows),
        "states": sorted(Counter(row["state"] for row in rows).items()),
        "rows_done": total("rows_done"),
        "rows_per_second": sum(row["rows_per_second"] or 0 for row in moving),
        "eta": most("eta"),
        "sync_lag": most("sync_lag"),
        "sync_lag_p99": most("sync_lag_p99"),
        "pending": total("pending"),
        "quarantined": total("quarantined"),
        "failed_chunks": total("failed_chunks"),
        "workers": rows[0]["workers_alive"] if rows else None,
        "no_worker": bool(migrated) and not any(row["workers_alive"] for row in rows),
        "drifted": any(row["triggers"] != "armed" for row in migrated),
        "lost": any(row["keys_lost"] for row in rows),
    }


def _status(conn: db.Connection) -> list[db.Row]:
    """pymig.status, and whether a ship itself is paused (not its source)."""
    paused = {(row["source"], row["entity"]) for row in db.read(conn, "entity") if row["paused_at"]}
    return [
        {**row, "is_paused": (row["source"], row["entity"]) in paused}
        for row in db.read(conn, "status")
    ]


def _sorted(rows: list[db.Row], sort: str) -> list[db.Row]:
    """By name; of figures the greatest first, none last."""
    rows = sorted(rows, key=lambda row: (row["source"], row["entity"]))
    if sort == "state":
        return sorted(rows, key=lambda row: str(row["state"]))
    if sort in _SORTS and sort != "entity":
        known = [row for row in rows if row[sort] is not None]
        rest = [row for row in rows if row[sort] is None]
        return sorted(known, key=lambda row: row[sort], reverse=True) + rest
    return rows


def _server(conn: db.Connection) -> dict[str, Any]:
    info = conn.info
    version = info.server_version
    return {
        "database": info.dbname,
        "host": info.host,
        "port": info.port,
        "version": f"{version // 10_000}.{version % 10_000}",
    }


def _throttled(conn: db.Connection) -> list[str]:
    """The conditions that hold history up, as measured last."""
    return [row["condition"] for row in db.read(conn, "throttle") if row["is_over"]]
