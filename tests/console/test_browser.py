"""The console in a real, headless Chromium: clicks, widths, languages, and how fast it opens."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import Any, Final, LiteralString

import psycopg
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.conftest import Database
from tests.console_site import AWKWARD, PASSWORD, make_fleet, roles, served, site

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHONE: Final = {"width": 360, "height": 740}
WALL: Final = {"width": 1280, "height": 800}
SECONDS_TO_OPEN: Final = 1.0
BIG: LiteralString = """
SET session_replication_role = replica;
INSERT INTO pymig.entity (source, entity, state, wide_table, estimated_rows)
SELECT 'n', 'big ' || s, 'syncing', 'n_' || s, 1000000 FROM generate_series(1, 200) AS s;
INSERT INTO pymig.part (source, entity, part, wide_table)
SELECT 'n', 'big ' || s, 1, 'n_' || s FROM generate_series(1, 200) AS s;
INSERT INTO pymig.channel (source, entity, channel, ord, part, wide_column, column_type)
SELECT 'n', 'big ' || s, 'c/' || c, c, 1, 'c/' || c, 'text'
FROM generate_series(1, 200) AS s, generate_series(1, 3000) AS c;
INSERT INTO pymig.chunk (source, entity, first_bucket, last_bucket, from_time, to_time, state, narrow_rows, seconds, finished_at)
SELECT 'n', 'big ' || s, c, c, '', '', 'done', 1000, 1, now() FROM generate_series(1, 200) AS s, generate_series(1, 100) AS c;
ANALYZE pymig.entity, pymig.channel, pymig.chunk;
RESET session_replication_role
"""  # noqa: E501

END_SESSIONS: LiteralString = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a WHERE a.datname = %s
"""
ALL_PAGES: Final = (
    "/", "/ship?source=n&ship=X", "/channels?source=n&ship=X", "/verification?source=n&ship=X",
    "/charts", "/quarantine", "/events", "/certificates", "/controls", "/login",
)  # fmt: skip
LONG_PAGES: Final = (
    "/", "/ship?source=n&ship=big+7", "/channels?source=n&ship=big+7",
    "/chunks?source=n&ship=big+7", "/events",
)  # fmt: skip

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; none is downloaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def _page(browser: Browser, address: str, **options: Any) -> Page:
    """A page of a profile of its own, in which no complaint of the browser's goes unnoticed."""
    page = browser.new_context(**{"viewport": WALL, **options}).new_page()
    page.set_default_timeout(20_000)

    def complain(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            page.evaluate("text => { document.title = 'COMPLAINT ' + text }", message.text)

    page.on("console", complain)
    page.goto(address)
    return page


def _paused(conn: psycopg.Connection[Any], ship: str) -> bool:
    row = conn.execute(
        "SELECT paused_at IS NOT NULL FROM pymig.entity WHERE entity = %s", [ship]
    ).fetchone()
    assert row
    return bool(row[0])


def test_clicks_control_a_migration(db: Database, browser: Browser) -> None:
    """Log in, pause and resume by clicking; what the database does shows up by itself."""
    conn = make_fleet(db)
    with site(db), served() as address, roles(db) as names:
        page = _page(browser, address)
        row = page.get_by_role("row").filter(has_text=AWKWARD)
        expect(row).to_contain_text("syncing")
        assert page.get_by_role("button", name="Pause").count() == 0
        page.get_by_role("link", name="Log in").click()
        page.get_by_label("Role").fill(names["operator"])
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        row.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("status")).to_contain_text("History waits")
        assert _paused(conn, AWKWARD) and not _paused(conn, "X")
        held = conn.execute("SELECT held_up_by FROM pymig.backfill_chunk(%s)", [AWKWARD])
        assert f"paused by {names['operator']}" in str(held.fetchone())
        row.get_by_role("button", name="Resume").click()
        expect(row.get_by_role("button", name="Pause")).to_be_visible()
        assert not _paused(conn, AWKWARD)
        conn.execute("CALL pymig.backfill(%s)", [AWKWARD])
        expect(row).to_contain_text("backfilled")
        page.get_by_role("link", name=AWKWARD).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(AWKWARD)
        page.get_by_role("link", name="Controls").click()
        limit = page.get_by_label("limit: lock waits")
        limit.fill("12")
        limit.press("Enter")
        expect(page.get_by_label("limit: lock waits")).to_have_value("12")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("link", name="Log in")).to_be_visible()
        assert "COMPLAINT" not in page.title()
        page.context.close()


def test_fits_a_phone_and_speaks_korean(db: Database, browser: Browser) -> None:
    """No page is wider than the screen, in both languages; the language can be switched."""
    make_fleet(db)
    with site(db) as console, served() as address:
        console.sampler.take()
        page = _page(browser, address, viewport=PHONE, locale="ko-KR", color_scheme="dark")
        expect(page.get_by_role("link", name="선단")).to_be_visible()
        for way in ("English", "한국어"):
            page.get_by_role("button", name=way).click()
            for path in ALL_PAGES:
                page.goto(address + path)
                width = page.evaluate("document.documentElement.scrollWidth")
                assert width <= PHONE["width"], f"{path} is {width} wide"
                assert "COMPLAINT" not in page.title()
                assert page.evaluate("document.documentElement.lang") in ("en", "ko")
        assert re.search("[가-힣]", page.title())
        page.context.close()


def test_opens_within_a_second(db: Database, browser: Browser) -> None:
    """With 200 ships of 3,000 channels and 100 chunks each."""
    conn = make_fleet(db)
    for statement in BIG.split(";\n"):
        conn.execute(statement.encode())
    with site(db), served() as address:
        page = _page(browser, f"{address}/healthz")
        took = dict.fromkeys(LONG_PAGES, SECONDS_TO_OPEN)
        for path in LONG_PAGES * 3:  # the fastest counts: the machine may be busy with others
            began = time.monotonic()
            page.goto(address + path)
            expect(page.locator("tbody tr").last).to_be_visible()
            took[path] = min(took[path], time.monotonic() - began)
        page.goto(address)
        assert page.locator("tbody tr").count() == 202
        page.context.close()
        assert max(took.values()) < SECONDS_TO_OPEN, took


def test_pages_come_back_with_database_and_console(db: Database, browser: Browser) -> None:
    """A page that is open says what is away, and goes on when it is there again."""
    make_fleet(db)
    with site(db), served() as address:
        page = _page(browser, address)
        with psycopg.connect(db.cluster.url(), autocommit=True) as admin:
            name = psycopg.sql.Identifier(db.name)
            allow = psycopg.sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
            admin.execute(allow.format(name, psycopg.sql.SQL("false")))
            admin.execute(END_SESSIONS, [db.name])
            expect(page.get_by_role("alert").filter(has_text="database")).to_be_visible()
            admin.execute(allow.format(name, psycopg.sql.SQL("true")))
        expect(page.locator("tbody tr")).to_have_count(2)
        gone = page.get_by_text("The console does not answer")
        expect(gone).to_be_hidden()
        page.context.set_offline(True)
        expect(gone).to_be_visible()
        page.context.set_offline(False)
        expect(gone).to_be_hidden()
        page.context.close()
