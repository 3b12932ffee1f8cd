"""--log-format json: every line on stderr is an object, whatever happens; stdout stays empty."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.command import run as run_command
from tests.conftest import Database
from tests.waiting import until

pytestmark = pytest.mark.once

CREATE = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', t
FROM unnest('{X,Y}'::text[]) AS s, generate_series(1, 3) AS c, generate_series(1, 20) AS t;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}')
"""
TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'pymig worker' AND datname = current_database()
"""
Records = list[dict[str, Any]]
ALWAYS = {"time", "level", "message", "source", "ship"}


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """Two ships that nobody has migrated."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    return conn


def parsed(lines: list[str]) -> Records:
    """The lines as objects; each has what all have, and the time in UTC."""
    records: Records = [json.loads(line) for line in lines]
    for record in records:
        assert set(record) >= ALWAYS, record
        at = datetime.fromisoformat(record["time"])
        assert at.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=2)
    return records


@contextmanager
def running(db: Database, *arguments: str, **environment: str) -> Iterator[list[str]]:
    """A command, and the lines it writes to stderr; SIGTERM must end it with 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from pymig.cli import main; main()", *arguments],
        env={**os.environ, "DATABASE_URL": db.url, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout and process.stderr
    reader = threading.Thread(target=lines.extend, args=[iter(process.stderr)], daemon=True)
    reader.start()
    try:
        yield lines
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        reader.join(10)
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_migrate(db: Database, conn: psycopg.Connection[Any]) -> None:
    """Each step with its ship; what it ends with, too, has a level and the exit code."""
    asked = ("migrate", "--ship", "X", "--log-format", "json", "--source", "n")
    done = run_command(asked, {"DATABASE_URL": db.url})
    assert (done.code, done.out) == (0, "")
    records = parsed(done.err.splitlines())
    assert {record["ship"] for record in records} == {"X"}
    assert {record["source"] for record in records} == {"n"}
    assert records[-1]["message"].startswith("X: verified after ")
    nobody = run_command(
        ("migrate", "--ship", "Z", "--log-format", "json"), {"DATABASE_URL": db.url}
    )
    (record,) = parsed(nobody.err.splitlines())
    assert (record["level"], record["exit_code"], nobody.code) == ("ERROR", 2, 2)
    assert "'Z'" in record["message"] and record["hint"]


def test_worker(db: Database, conn: psycopg.Connection[Any]) -> None:
    """By the environment; a lost connection is a WARNING, and the worker goes on."""
    with running(db, "worker", PYMIG_LOG_FORMAT="json") as lines:
        until(lambda: lines, "it does not begin")
        until(lambda: conn.execute(TERMINATE).fetchone() == (1,), "it does not connect")
        until(lambda: len(lines) > 1, "nobody says that the connection is lost")
    first, lost, *_, last = parsed(lines)
    assert first["message"].startswith("The worker runs") and first["level"] == "INFO"
    assert (lost["level"], lost["role"]) == ("WARNING", "worker")
    assert last["message"].startswith("Stopping after")


def test_events(db: Database, conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    """notify: an event is a record with its own level, and all that is known of it."""
    config = tmp_path / "alerts.cfg"
    config.write_text("critical=json://127.0.0.1:1\n")
    with running(db, "notify", "--config", str(config), "--log-format", "json") as lines:
        known = "SELECT count(*) = 4 FROM pymig.alert_target"
        until(lambda: conn.execute(known.encode()).fetchone() == (True,), "it does not begin")
        conn.execute("SELECT pymig._note('WARNING', 'n', 'X', 'repaired', '3 differences.')")
        until(lambda: lines, "the event is not told")
    record = parsed(lines)[0]
    assert record["happened_at"].endswith("+00:00") and len(record["events"]) == 1
    said = {name: record[name] for name in ("level", "source", "ship", "what", "message", "times")}
    assert said == {
        "level": "WARNING",
        "source": "n",
        "ship": "X",
        "what": "repaired",
        "message": "repaired: 3 differences.",
        "times": 1,
    }


def test_metrics(db: Database) -> None:
    """Where it serves."""
    with running(db, "metrics", "--port", "0", "--log-format", "json") as lines:
        until(lambda: lines, "it does not begin")
    record = parsed(lines)[0]
    assert record["message"] == f"Metrics: http://127.0.0.1:{record['port']}/metrics"
