"""`pymig status --watch`: looks at the database once a second, and shows what it sees.

On a terminal that is a full screen (pymig/screen.py); elsewhere a line for each change, or with
--json a document for each look. A server that goes away is waited for.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pymig import db
from pymig.errors import unexpected

EVERY: Final = 1.0  # seconds between two looks
#: What the sparkline spans, and what the rate is an average of, in seconds.
SPAN, _RATE_SPAN = 60.0, 10.0
_BLOCKS: Final = "▁▂▃▄▅▆▇█"

Row = dict[str, Any]
Key = tuple[str, str]  # source, ship


@dataclass(frozen=True)
class Look:
    """What one look saw: the document of pymig.overview(), or why there is none just now."""

    at: float  # seconds of time.monotonic()
    seen: Row | None
    error: str = ""


@dataclass(frozen=True)
class Server:
    """Where a look goes to: the connection string, the source (None: all), and how to name it."""

    conninfo: str
    source: str | None
    address: str

    def session(self) -> db.Session:
        """A session that tries once: whoever watches wants to be told at once, and looks again."""
        tried = threading.Event()
        tried.set()
        return db.Session(self.conninfo, "watch", tried)


def find(conninfo: str, source: str | None) -> Server:
    """Make sure that there is something to look at. Raises PymigError."""
    with db.Session(conninfo, "watch", patient=False) as session:
        session.select("overview", p_source=source, p_events=0)
        return Server(conninfo, source, session.run(_address))


def follow(server: Server, stop: threading.Event, every: float = EVERY) -> Iterator[Look]:
    """Look again and again until stop is set; what is wrong is seen, too, and looked at again."""
    with server.session() as session:
        while not stop.is_set():
            began = time.monotonic()
            try:
                found = session.select("overview", p_source=server.source)[0]["overview"]
                yield Look(began, found)
            except Exception as error:  # whoever looks must go on looking
                yield Look(began, None, unexpected(error).message)
            stop.wait(max(0.0, every - (time.monotonic() - began)))


class Rates:
    """Narrow rows a second of each ship over the last minute, from one look to the next."""

    def __init__(self) -> None:
        self._seen: Final[dict[Key, deque[tuple[float, int]]]] = {}

    def note(self, look: Look) -> None:
        """Keep what this look saw; what is older than a minute goes."""
        for ship in (look.seen or {}).get("ships", []):
            points = self._seen.setdefault(key(ship), deque())
            done = ship["rows_done"] or 0
            if points and done < points[-1][1]:
                points.clear()  # rolled back: it begins anew
            points.append((look.at, done))
            while points[0][0] < look.at - SPAN:
                points.popleft()

    def now(self, ship: Row) -> float | None:
        """Rows a second in the last seconds; at first what the database says of the last chunks."""
        points = self._seen.get(key(ship), deque())
        last = [point for point in points if point[0] >= points[-1][0] - _RATE_SPAN]
        if len(last) < 2:
            return ship["rows_per_second"] if ship["state"] == "syncing" else None
        (began, before), (ended, after) = last[0], last[-1]
        return (after - before) / (ended - began)

    def spark(self, ship: Row, width: int) -> str:
        """The last minute as a line of bars, the newest on the right; empty where nothing moved."""
        points = self._seen.get(key(ship), deque())
        moved = [0.0] * width
        for (_, before), (at, after) in zip(points, list(points)[1:], strict=False):
            ago = min(int((points[-1][0] - at) / SPAN * width), width - 1)
            moved[-1 - ago] += after - before
        most = max(moved)
        if not most:
            return ""
        steps = len(_BLOCKS) - 1
        return "".join(_BLOCKS[round(steps * rows / most)] for rows in moved)


def key(ship: Row) -> Key:
    """What tells a ship from all others."""
    return ship["source"], ship["entity"]


def print_documents(looks: Iterable[Look], say: Callable[[str], None]) -> None:
    """Say one JSON document a look; {"at": …, "error": …} where the server could not be read."""
    for look in looks:
        missed = {"at": datetime.now(UTC).isoformat(), "error": look.error}
        say(json.dumps(look.seen or missed, ensure_ascii=False))


def print_changes(looks: Iterable[Look], say: Callable[[str], None]) -> None:
    """Say a line for each ship that is new or has changed, and for each event; not the figures."""
    lost, event = "", -1
    before: dict[Key, str] = {}
    for look in looks:
        at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z"
        if look.error != lost:
            say(f"{at} {look.error or 'The server is there again.'}")
        lost = look.error
        if not look.seen:
            continue
        for ship in look.seen["ships"]:
            if (line := _line(ship)) != before.get(key(ship)):
                say(f"{at} {line}")
            before[key(ship)] = line
        events = look.seen["events"]
        for row in reversed(events):
            if -1 < event < row["event"]:
                say(f"{at} {told(row)}")
        event = max([event, 0, *(row["event"] for row in events)])


def told(event: Row) -> str:
    """An event as one line."""
    where = "/".join(filter(None, (event["source"], event["entity"])))
    return " ".join(filter(None, (event["level"], where, f"{event['what']}:", event["detail"])))


def run(conninfo: str, source: str | None, *, as_json: bool, say: Callable[[str], None]) -> None:
    """Show it until Ctrl-C (on the screen q): on a screen, as lines (say) or as documents."""
    server = find(conninfo, source)
    if not as_json and _has_screen():
        from pymig.screen import show

        show(server)
        return
    show_lines = print_documents if as_json else print_changes
    show_lines(follow(server, threading.Event()), say)


def _has_screen() -> bool:
    is_able = os.environ.get("TERM", "dumb") != "dumb"
    return is_able and sys.stdin.isatty() and sys.stdout.isatty()


def _line(ship: Row) -> str:
    words = [f"{ship['entity']}: {ship['state']}"]
    if ship["percent"] is not None and ship["state"] == "syncing":
        words.append(f"{int(ship['percent'])} %")
    if ship["quarantined"]:
        words.append("rows in quarantine")
    if ship["held_up_by"]:
        words.append(f"waits, {ship['held_up_by']}")
    if ship["last_error"]:
        words.append(ship["last_error"])
    return "; ".join(words)


def _address(conn: db.Connection) -> str:
    info = conn.info
    return f"{info.host or 'localhost'}:{info.port}/{info.dbname}"
