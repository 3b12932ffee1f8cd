"""`python -m docs.screenshots.console` (`make screenshots`): the pictures of the console.

Simulates a fleet on a server of its own that lives for the few minutes it takes, moves some of its
history, and looks at it with the system's Chromium.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from docs.scratch import scratch_server
from pymig.console.serve import Options, serve
from pymig.demo import create_fleet, live_fleet
from pymig.install import install

IMAGES: Final = Path(__file__).resolve().parents[1] / "images"
SHIPS: Final = 9
ROWS: Final = 6_000_000
SECONDS: Final = 290.0  # how long history is moved before the pictures are taken
#: The ships whose chunks are moved one after the other meanwhile; some are done, some are not.
MOVES: Final = (0, 0, 1, 0, 3, 0, 1, 3, 0, 1, 5, 3, 2, 1, 3, 6, 4, 1, 2, 3, 5, 4, 2, 6, 4)
WALL: Final = {"width": 1280, "height": 620}
PHONE: Final = {"width": 390, "height": 780}
FLAGS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
PASSWORD: Final = "dba"
#: A role that may control, and rows that can't become cells.
PREPARE: Final[tuple[LiteralString, ...]] = (
    "CALL pymig.unregister_source('tbl_data_timeseries')",
    """
    CALL pymig.register_source('fleet', 'tenant.tbl_data_timeseries', 'ship_id', 'data_channel_id',
        'created_time', '{double_v,long_v,str_v,bool_v}', 'value_format',
        '{"Decimal": "double_v", "Integer": "long_v", "String": "str_v", "Boolean": "bool_v"}',
        p_bucket => '10 minutes')
    """,
    "CALL pymig.set_new_entities(p_policy => 'auto')",
    f"CREATE ROLE dba LOGIN SUPERUSER PASSWORD '{PASSWORD}'",
)
#: Chunks of less than a million rows, as a real ship's are of its years.
SMALLER: LiteralString = "UPDATE pymig.entity SET estimated_rows = estimated_rows * %s::float8"
SPOIL: LiteralString = """
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, server_created_time, str_v, value_format)
SELECT n.ship_id, n.data_channel_id, n.created_time + interval '1 ms', now(), 'n/a', 'Unknown'
FROM (SELECT t.* FROM tenant.tbl_data_timeseries AS t WHERE t.ship_id = %s ORDER BY t.created_time DESC LIMIT 12) AS n
"""  # noqa: E501


def main() -> None:
    """Take all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with scratch_server() as url:
        take_all(url)


def take_all(url: str) -> None:
    """Make the fleet at url, migrate a part of it, and look at it."""
    with psycopg.connect(url, autocommit=True) as conn:
        create_fleet(conn, SHIPS, ROWS, Console())
        install(url)
        for statement in PREPARE:
            conn.execute(statement)
        conn.execute("ANALYZE tenant.tbl_data_timeseries")
        conn.execute("SELECT demo_fleet.start_run()")
        with live_fleet(url), served(url) as address:
            migrate_a_part(conn)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=list(FLAGS)
                )
                look(browser, address, names(conn)[3])
                browser.close()


def names(conn: psycopg.Connection[Any]) -> list[str]:
    """The ships, in alphabetical order."""
    rows = conn.execute("SELECT entity FROM pymig.discover_entities()").fetchall()
    return sorted(str(row[0]) for row in rows)


def migrate_a_part(conn: psycopg.Connection[Any]) -> None:
    """Ships in all states that a week of work has; one is paused, one has quarantined rows."""
    ships = names(conn)
    for ship in ships[:7]:
        conn.execute("CALL pymig.start_sync(%s)", [ship])
    conn.execute(SMALLER, [8])
    for ship in MOVES:
        time.sleep(SECONDS / len(MOVES))
        conn.execute("SELECT pymig.backfill_chunk(%s)", [ships[ship]])
    conn.execute(SMALLER, [1 / 8])
    for ship in (0, 1, 3):
        conn.execute("CALL pymig.migrate(%s)", [ships[ship]])
    for ship in (0, 3):
        conn.execute("CALL pymig.certify(%s)", [ships[ship]])
    conn.execute("CALL pymig.cut_over(%s)", [ships[0]])
    conn.execute(SPOIL, [ships[3]])
    conn.execute("CALL pymig.pause(%s)", [ships[5]])


@contextmanager
def served(url: str) -> Iterator[str]:
    """The address of a console of that database."""
    said: list[str] = []
    stop, ready = threading.Event(), threading.Event()

    def say(line: str) -> None:
        said.append(line)
        ready.set()

    thread = threading.Thread(target=serve, args=(url, Options(port=0), say, stop))
    thread.start()
    try:
        ready.wait(20)
        yield said[0].removeprefix("Console: ")
    finally:
        stop.set()
        thread.join()


def look(browser: Browser, address: str, ship: str) -> None:
    """Take the pictures."""
    of_ship = f"/ship?source=fleet&ship={ship}"
    for name, path, options in (
        ("fleet", "/", {}),
        ("ship", of_ship, {"viewport": {"width": 1280, "height": 860}}),
        ("charts", "/charts", {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}}),
        ("phone", "/", {"viewport": PHONE, "device_scale_factor": 1.5}),
        ("korean", "/", {"locale": "ko-KR", "color_scheme": "dark"}),
    ):
        take(open_page(browser, address + path, options), name)
    page = open_page(browser, f"{address}/login?next=/controls", {})
    page.get_by_label("Role").fill("dba")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    take(page, "controls")


def open_page(browser: Browser, address: str, options: dict[str, Any]) -> Page:
    """A page of a browser that has never been here."""
    page = browser.new_context(**{"viewport": WALL, **options}).new_page()
    page.goto(address)
    page.wait_for_load_state("networkidle")
    return page


def take(page: Page, name: str) -> None:
    """Write a picture, and leave the page."""
    page.screenshot(path=IMAGES / f"console-{name}.png")
    page.context.close()
    print(f"docs/images/console-{name}.png is written.")


if __name__ == "__main__":
    main()
