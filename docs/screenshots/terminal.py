"""`python -m docs.screenshots.terminal` (`make screenshots`): the picture of `status --watch`.

Textual exports what it has drawn; nothing in a picture is made by hand.
"""

from __future__ import annotations

import asyncio
import io
import re
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console

from docs.scratch import scratch_server
from pymig import db
from pymig.demo import create_fleet, live_fleet
from pymig.install import install
from pymig.migrate import Options, migrate_ships
from pymig.paths import alembic_folder
from pymig.screen import Watch
from pymig.watch import find

IMAGES: Final = Path(__file__).resolve().parents[1] / "images"
SIZE: Final = (124, 22)  # columns, lines
SHIPS: Final = 6
ROWS: Final = 1_800_000
PAUSED: Final = "Fornax"
MOVED: Final = ("Electra", "Draco")
SHARE: Final = 60  # percent of the ship that is under way when the picture is taken
PATIENCE: Final = 60.0  # seconds
#: Small buckets make small chunks: on so small a fleet a bar would jump from 0 to 100 otherwise.
BUCKET: Final = "30 seconds"
PAUSE: Final = 1.5  # seconds between two chunks


def main() -> None:
    """Make a server and a fleet, migrate most of it, take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with scratch_server() as url:
        with psycopg.connect(url, autocommit=True) as conn:
            make_fleet(conn, url)
        with live_fleet(url):
            migrate_ships(url, "Aurora,Borealis,Carina", options=Options(workers=1))
            picture = asyncio.run(status_watch(url))
    (IMAGES / "status-watch.svg").write_text(picture, "utf-8")
    print("docs/images/status-watch.svg is written.")


def make_fleet(conn: psycopg.Connection, url: str) -> None:
    """The simulated fleet, known to pymig: three ships sync only, one of them is paused."""
    create_fleet(conn, SHIPS, ROWS, Console(file=io.StringIO()))
    install(url)
    definition = tomllib.loads((alembic_folder() / "default_source.toml").read_text("utf-8"))
    with db.Session(url, "screenshots") as session:
        session.call("unregister_source", p_source=definition["p_source"])
        session.call("register_source", **definition, p_bucket=BUCKET)
        for ship in (*MOVED, PAUSED):
            session.call("start_sync", p_entity=ship)
        session.call("pause", p_entity=PAUSED)
    conn.execute("SELECT demo_fleet.start_run()")


async def status_watch(url: str) -> str:
    """`pymig status --watch` while one ship is moved: SVG without anything to be fetched."""
    app = Watch(find(url, None))
    async with app.run_test(size=SIZE) as pilot:
        with moving(url):
            end = time.monotonic() + PATIENCE
            while not _is_under_way(app):
                if time.monotonic() > end:
                    raise TimeoutError("no ship is under way")
                await pilot.pause(0.1)
            await pilot.press("down")
            await pilot.pause()
            picture = app.export_screenshot(title="pymig status --watch")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


@contextmanager
def moving(url: str) -> Iterator[None]:
    """Move two ships, one chunk after the other, with pauses in which a person can see it."""
    stop = threading.Event()

    def move() -> None:
        with db.Session(url, "backfill", stop) as session:
            while not stop.wait(PAUSE):
                for ship in MOVED:
                    if not stop.wait(PAUSE):
                        session.select("backfill_chunk", p_entity=ship)

    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _is_under_way(app: Watch) -> bool:
    ships = (app.seen or {}).get("ships", [])
    return any(ship["entity"] in MOVED and (ship["percent"] or 0) >= SHARE for ship in ships)


if __name__ == "__main__":
    main()
