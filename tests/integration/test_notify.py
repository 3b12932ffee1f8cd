"""Events reach people: by a real SMTP server and a real webhook, once, and whatever else is down."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

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
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.controller import Controller

from tests.command import run as run_command
from tests.conftest import Database
from tests.waiting import until


class Mailbox:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """A mail has come."""
        plain = message_from_bytes(envelope.content, policy=policy.default).get_body(("plain",))
        assert plain
        self.mails.append(plain.get_content())
        return "250 OK"


@pytest.fixture
def mail() -> Iterator[tuple[Mailbox, int]]:
    """A mail server on a port of its own."""
    box = Mailbox()
    with _free_port() as port:
        pass
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


@contextmanager
def _free_port() -> Iterator[int]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


class Hook(ThreadingHTTPServer):
    """A webhook that keeps what is posted, and fails when it is told to."""

    def __init__(self, port: int = 0) -> None:
        self.posts: list[dict[str, Any]] = []
        self.tries = 0
        self.fails = False
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.tries += 1
                if not hook.fails:
                    hook.posts.append(json.loads(body))
                self.send_response(503 if hook.fails else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook."""
    server = Hook()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _notifier(
    db: Database, config: Path, *more: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`pymig notify`, and the lines it writes; it knows all its targets when this begins."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-c",
            "from pymig.cli import main; main()",
            "notify",
            "--config",
            str(config),
            *more,
        ],
        env={**os.environ, "DATABASE_URL": db.url, "COLUMNS": "400"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout
        lines.extend(iter(process.stdout.readline, ""))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    targets = len(re.findall("://", config.read_text())) + 3
    with psycopg.connect(db.url, autocommit=True) as conn:
        known = "SELECT count(*) = %s FROM pymig.alert_target"
        until(lambda: conn.execute(known, [targets]).fetchone() == (True,), "it does not begin")
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        assert process.stdout
        process.stdout.close()


def _note(
    conn: psycopg.Connection[Any], level: str, what: str, detail: str, entity: str | None = "X"
) -> None:
    conn.execute("SELECT pymig._note(%s, 'n', %s, %s, %s)", [level, entity, what, detail])


def test_each_level_its_way(
    db: Database, mail: tuple[Mailbox, int], hook: Hook, tmp_path: Path
) -> None:
    """CRITICAL at once, warnings together, INFO in the log only; each once."""
    box, port = mail
    config = tmp_path / "alerts.cfg"
    config.write_text(
        f"critical=json://127.0.0.1:{hook.server_port}\nwarning=mailto://127.0.0.1:{port}?from=pymig@example.org&to=dba@example.org&smtp=127.0.0.1&mode=insecure\n"
    )
    conn = db.connect()
    _note(conn, "CRITICAL", "old", "This happened before anybody asked.")
    with _notifier(db, config, "--digest", "2") as (process, lines):
        _note(conn, "INFO", "backfilled", "All of its history is there.")
        _note(conn, "WARNING", "throttled", "History waits.", None)
        _note(conn, "WARNING", "repaired", "3 differences.")
        _note(conn, "WARNING", "repaired", "4 differences.")
        _note(conn, "CRITICAL", "chunk failed", "Chunk 7 failed for good.")
        until(lambda: hook.posts, "the webhook hears nothing")
        until(lambda: box.mails, "no mail")
        until(lambda: len(lines) >= 4, "no log")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert [(p["title"], p["type"]) for p in hook.posts] == [
        ("pymig CRITICAL: X chunk failed", "failure")
    ]
    assert "Chunk 7 failed for good." in hook.posts[0]["message"]
    text = "\n".join(box.mails)
    assert text.count("History waits.") == 1
    assert "repaired (2 times): 4 differences." in text
    assert "3 differences" not in text
    said = "".join(lines)
    for detail in (
        "All of its history is there.",
        "History waits.",
        "4 differences.",
        "Chunk 7 failed for good.",
    ):
        assert detail in said
    assert "before anybody asked" not in said + text + str(hook.posts)


def test_killed_it_tells_nothing_twice_and_leaves_nothing_out(
    db: Database, hook: Hook, tmp_path: Path
) -> None:
    """What happened while it was down is told; and what a long transaction wrote, though younger events were told before."""
    config = tmp_path / "alerts.cfg"
    config.write_text(f"critical=json://127.0.0.1:{hook.server_port}\n")
    conn = db.connect()
    with _notifier(db, config):
        _note(conn, "CRITICAL", "one", "First.")
        until(lambda: hook.posts, "the first is not told")
        until(
            lambda: (
                conn.execute("SELECT count(*) FROM pymig.told WHERE target <> 'log'").fetchone()
                == (1,)
            ),
            "it is not noted",
        )
    with db.connect(autocommit=False) as slow:
        _note(slow, "CRITICAL", "slow", "Of a long transaction.")
        _note(conn, "CRITICAL", "two", "Second.")
        with _notifier(db, config):
            until(lambda: len(hook.posts) == 2, "the second is not told")
            slow.commit()
            until(lambda: len(hook.posts) == 3, "that of the long transaction is not told")
    assert [
        "First." in hook.posts[0]["message"],
        "Second." in hook.posts[1]["message"],
        "Of a long" in hook.posts[2]["message"],
    ] == [True] * 3
    assert [p["message"].count("\n") for p in hook.posts] == [0, 0, 0]


def test_who_cant_be_reached_holds_up_nobody(db: Database, hook: Hook, tmp_path: Path) -> None:
    """It is tried again, and gets the message when it is back; the others have had theirs."""
    with _free_port() as nobody:
        pass
    failing = Hook()
    failing.fails = True
    config = tmp_path / "alerts.cfg"
    config.write_text(
        f"critical=json://127.0.0.1:{failing.server_port}\ncritical=json://127.0.0.1:{nobody}\ncritical=json://127.0.0.1:{hook.server_port}\n"
    )
    conn = db.connect()
    try:
        with _notifier(db, config):
            _note(conn, "CRITICAL", "one", "First.")
            until(lambda: hook.posts, "the one that works hears nothing")
            until(lambda: failing.tries >= 2, "the one that fails is not tried again")
            failing.fails = False
            until(lambda: failing.posts, "the one that is back hears nothing")
            assert len(hook.posts) == 1
    finally:
        failing.shutdown()
        failing.server_close()


def test_what_comes_again_and_again_is_counted(db: Database, hook: Hook, tmp_path: Path) -> None:
    """The same kind of the same ship is told once in ten minutes; another one at once."""
    config = tmp_path / "alerts.cfg"
    config.write_text(f"critical=json://127.0.0.1:{hook.server_port}\n")
    conn = db.connect()
    with _notifier(db, config):
        _note(conn, "CRITICAL", "one", "First.")
        until(lambda: len(hook.posts) == 1, "nothing is told")
        until(
            lambda: (
                conn.execute("SELECT count(*) FROM pymig.told WHERE target <> 'log'").fetchone()
                == (1,)
            ),
            "it is not noted",
        )
        for _ in range(5):
            _note(conn, "CRITICAL", "one", "Again.")
        _note(conn, "CRITICAL", "one", "Another ship.", "Y")
        until(lambda: len(hook.posts) == 2, "the other ship is not told")
        conn.execute(
            "UPDATE pymig.told SET told_at = told_at - interval '11 minutes' WHERE target <> 'log'"
        )
        until(lambda: len(hook.posts) == 3, "the rest is never told")
    assert "Another ship." in hook.posts[1]["message"]
    assert "one (5 times): Again." in hook.posts[2]["message"]


def _run(db: Database, *arguments: str) -> tuple[int, str]:
    done = run_command(("notify", *arguments), {"DATABASE_URL": db.url, "COLUMNS": "200"})
    return done.code, done.out + done.err


def test_test(db: Database, hook: Hook, tmp_path: Path) -> None:
    """Everybody gets a message, or it is said who did not; no password is shown."""
    config = tmp_path / "alerts.cfg"
    config.write_text(f"info=json://user:secret@127.0.0.1:{hook.server_port}\n")
    code, said = _run(db, "--config", str(config), "--test")
    assert code == 0
    assert f"127.0.0.1:{hook.server_port}" in said
    assert "secret" not in said
    assert hook.posts[0]["title"] == "pymig: a test"
    hook.fails = True
    code, said = _run(db, "--config", str(config), "--test")
    assert (code, "Not reached" in said, "secret" in said) == (6, True, False)


def test_wrong_configurations(db: Database, tmp_path: Path) -> None:
    """One sentence, exit 2."""
    config = tmp_path / "alerts.cfg"
    code, said = _run(db, "--config", str(config))
    assert (code, "is not there" in said) == (2, True)
    config.write_text("json://127.0.0.1\n")
    code, said = _run(db, "--config", str(config))
    assert (code, "names nobody" in said) == (2, True)
