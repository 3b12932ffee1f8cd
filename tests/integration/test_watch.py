"""`pymig status --watch` on a real terminal and a real database, and bars of other commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pymig import steps
from pymig.errors import PrivilegeError
from pymig.watch import find, follow
from tests.conftest import Database
from tests.terminal import running
from tests.waiting import until

pytestmark = pytest.mark.once

CREATE = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', t
FROM unnest('{aurora,borealis}'::text[]) AS s, generate_series(1, 3) AS c,
    generate_series(1, 50) AS t;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}');
CALL pymig.migrate('aurora');
CALL pymig.start_sync('borealis')
"""
Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(db: Database) -> Connection:
    """Two ships: one is verified, one only syncs."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    return conn


def _is_paused(conn: Connection, ship: str) -> bool:
    found = conn.execute("SELECT paused_at FROM pymig.entity WHERE entity = %s", [ship]).fetchone()
    assert found
    return found[0] is not None


def test_on_a_terminal(db: Database, conn: Connection) -> None:
    """The ships and the newest events; p pauses and resumes the selected one, q gives all back."""
    with running(db.url, "status", "--watch", columns=80) as terminal:
        before = terminal.settings()
        terminal.until("aurora", "borealis", "verified", "syncing", "triggers armed", "INFO")
        assert terminal.settings() != before
        terminal.press("p")  # the first line: who syncs stands before who is verified
        terminal.until("borealis is paused")
        assert (_is_paused(conn, "borealis"), _is_paused(conn, "aurora")) == (True, False)
        terminal.until("waits, paused by")
        terminal.press("\x1b[Bp")  # a line down
        terminal.until("aurora is paused")
        terminal.until("aurora: verified", "waits, paused by")
        terminal.press("p")
        terminal.until("aurora goes on")
        assert (_is_paused(conn, "borealis"), _is_paused(conn, "aurora")) == (True, False)
        terminal.press("q")
        code, last = terminal.end()
        assert (code, terminal.settings()) == (0, before)
        assert "\x1b[?1049l" in last and "\x1b[?25h" in last  # the old screen, the cursor


@pytest.mark.parametrize("how", ["\x03", signal.SIGTERM])
def test_ended_from_outside(db: Database, conn: Connection, how: str | int) -> None:
    """Ctrl-C and SIGTERM give the terminal back, too."""
    with running(db.url, "status", "--watch") as terminal:
        before = terminal.settings()
        terminal.until("borealis")
        if isinstance(how, str):
            terminal.press(how)
        else:
            terminal.process.send_signal(how)
        code, last = terminal.end()
        assert (code, terminal.settings()) == (0, before)
        assert "\x1b[?1049l" in last


def test_a_restart_of_the_server(db: Database, conn: Connection) -> None:
    """Each look says whether there is a server; the one after it came back sees the ships again."""
    stop = threading.Event()
    looks = follow(find(db.url, None), stop, every=0.05)
    seen = next(looks).seen
    assert seen and [ship["entity"] for ship in seen["ships"]] == ["aurora", "borealis"]
    db.cluster.stop()
    try:
        lost = next(looks)
        assert lost.seen is None and lost.error.endswith(".")
        lost = next(looks)
        assert lost.seen is None and "can't be reached" in lost.error
    finally:
        db.cluster.start()
    assert any(next(looks).seen for _ in range(50))
    stop.set()
    assert list(looks) == []


#: Tests that run in the background were told to ignore it.
HEED_CTRL_C: Final = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


@contextmanager
def _lines(db: Database, *arguments: str) -> Iterator[IO[str]]:
    """What `pymig status --watch …` writes to a pipe; Ctrl-C must end it without a word."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-u", "-c", f"{HEED_CTRL_C}; from pymig.cli import main; main()"),
            *("status", "--watch", *arguments),
        ],
        env={**os.environ, "DATABASE_URL": db.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout and process.stderr
        yield process.stdout
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, said) == (0, "")
    finally:
        process.kill()
        process.wait()


def test_without_a_terminal_it_says_what_changes(db: Database, conn: Connection) -> None:
    """A line a ship, then nothing but changes and events."""
    at = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ "
    with _lines(db) as lines:
        assert re.fullmatch(at + r"aurora: verified\n", lines.readline())
        assert re.fullmatch(at + r"borealis: syncing; 0 %\n", lines.readline())
        conn.execute("CALL pymig.pause('borealis')")
        said = lines.readline()
        assert re.fullmatch(at + r"borealis: syncing; 0 %; waits, paused by .+\n", said)
        assert re.fullmatch(at + r"INFO n/borealis paused: History waits; .+\n", lines.readline())


def test_documents_for_scripts(db: Database, conn: Connection) -> None:
    """One JSON document a line, with all columns of pymig.status and numbers of seconds."""
    conn.execute("INSERT INTO n VALUES ('aurora', 'c1', '2024-02-01', 1)")
    with _lines(db, "--json", "--source", "n") as lines:
        first, second = (json.loads(lines.readline()) for _ in range(2))
    assert first["at"] < second["at"]
    aurora, borealis = second["ships"]
    columns = conn.execute("SELECT * FROM pymig.status LIMIT 0").description or []
    assert {column.name for column in columns} < set(aurora)
    assert (aurora["pending"], borealis["percent"], borealis["is_paused"]) == (1, 0, False)
    assert 0 < aurora["lag_seconds"] < 60
    assert second["sources"][0]["queue_bytes"] > 0
    assert second["events"][0]["event"] > second["events"][1]["event"]


def test_who_may_read_may_watch(db: Database, conn: Connection) -> None:
    """SELECT on pymig's tables and sequences is enough; p then says what is missing."""
    role = f"{db.name}_reader"
    conn.execute(
        sql.SQL(
            "CREATE ROLE {0} LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA pymig TO {0};"
            " GRANT SELECT ON ALL TABLES IN SCHEMA pymig TO {0};"
            " GRANT SELECT ON ALL SEQUENCES IN SCHEMA pymig TO {0}"
        ).format(sql.Identifier(role))
    )
    server = find(make_conninfo(db.url, user=role, password="pw"), "n")
    try:
        seen = next(follow(server, threading.Event())).seen
        assert seen and len(seen["ships"]) == 2
        with pytest.raises(PrivilegeError), server.session() as session:
            session.call("pause", p_entity="aurora", p_source="n")
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def test_a_bar_while_a_command_waits(db: Database, conn: Connection) -> None:
    """cut-over --hold waits for somebody else; a person sees that, and for how long."""
    conn.execute("CALL pymig.certify('aurora')")
    with running(db.url, "cut-over", "--ship", "aurora", "--hold") as terminal:
        terminal.until("aurora: held until", "aurora: held ", "0:00:0")
        conn.execute("CALL pymig.release_cut_over('aurora')")
        code, last = terminal.end()
    assert code == 0
    assert "aurora: cut over" in last


def test_how_far_certify_finalize_and_restore_are(db: Database, conn: Connection) -> None:
    """What their bars show: buckets compared, retired and brought back, of those there are."""

    def figures() -> dict[str, Any]:
        cursor = conn.execute("SELECT * FROM pymig.progress('aurora')")
        row = cursor.fetchone()
        assert row and cursor.description
        return dict(zip([column.name for column in cursor.description], row, strict=True))

    row = figures()
    assert row["buckets_verified"] == 0  # since the last pass that succeeded
    assert steps.verified(row | {"buckets_verified": 7}) == (7, 50, "7 of 50 buckets")
    for call in ("certify('aurora')", "cut_over('aurora')", "finalize('aurora', '10 hours')"):
        conn.execute(f"CALL pymig.{call}".encode())
    assert steps.retired(figures()) == (39, 39, "39 of 39 buckets")
    conn.execute("UPDATE pymig.entity SET keep_narrow = '0' WHERE entity = 'aurora'")
    assert steps.retired(figures()) == (39, 49, "39 of 49 buckets")
    restored = steps.Restored()
    assert restored(figures()) == (0, 39, "0 of 39 buckets")
    conn.execute("CALL pymig.restore_narrow('aurora')")
    assert restored(figures()) == (39, 39, "39 of 39 buckets")
    until(lambda: steps.retired(figures()) == (0, None, ""), "nothing is to be retired now", 1)
