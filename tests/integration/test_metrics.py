"""What Prometheus scrapes, over HTTP, parsed by its own library."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pymig.metrics import serve
from tests.conftest import Database

CREATE = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', t
FROM unnest(ARRAY['X', 'Y "z"']) AS s, generate_series(1, 3) AS c, generate_series(1, 50) AS t;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}')
"""
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_figures_of_a_migration(db: Database) -> None:
    """State, progress, lag, pending, quarantine, throttle and events, as they are just now."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    port = serve(db.url, "127.0.0.1", 0)
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("CALL pymig.start_sync('Y \"z\"')")
    conn.execute("CALL pymig.pause('Y \"z\"')")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-02-01', 1)")
    conn.execute("CALL pymig.set_throttle('mine', 5, 'SELECT 6')")
    conn.execute("SELECT pymig.look_at_throttle()")
    found = _scrape(port)
    ship = {"source": "n", "ship": "X"}
    other = {"source": "n", "ship": 'Y "z"'}
    assert _of(found, "pymig_up") == 1
    assert _of(found, "pymig_ship_state", **ship, state="verified") == 1
    assert _of(found, "pymig_ship_state", **ship, state="syncing") == 0
    assert _of(found, "pymig_ship_state", **other, state="syncing") == 1
    assert _of(found, "pymig_backfill_progress_ratio", **ship) == 1
    assert _of(found, "pymig_backfill_progress_ratio", **other) == 0
    assert _of(found, "pymig_rows_moved", **ship) == 150
    assert _of(found, "pymig_pending_keys", **ship) == 1
    assert (_of(found, "pymig_sync_lag_seconds", **ship) or 0) > 0
    assert _of(found, "pymig_quarantined_rows", **ship) == 0
    assert (_of(found, "pymig_held_up", **ship), _of(found, "pymig_held_up", **other)) == (0, 1)
    assert _of(found, "pymig_triggers_armed", source="n") == 1
    assert _of(found, "pymig_workers_alive") == 1  # who called migrate() did a worker's work
    assert _of(found, "pymig_throttle_value", condition="mine") == 6
    assert _of(found, "pymig_throttle_limit", condition="mine") == 5
    assert _of(found, "pymig_throttle_limit", condition="wal rate") is None
    before = _of(found, "pymig_events_total", level="WARNING")
    assert before == 1
    assert _of(found, "pymig_events_total", level="CRITICAL") == 0
    conn.execute("CALL pymig.sync_pending()")
    found = _scrape(port)
    assert _of(found, "pymig_pending_keys", **ship) == 0
    assert (_of(found, "pymig_sync_lag_p99_seconds", **ship) or 0) > 0


def test_names_follow_the_conventions(db: Database) -> None:
    """One prefix, base units, _total for counters alone: what promtool would complain of."""
    port = serve(db.url, "127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert len(families) >= 15
    for family in families:
        assert re.fullmatch(r"pymig(_[a-z0-9]+)+", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"_(ms|minutes|percent|count|total)$", family.name), family.name
        assert family.type in ("gauge", "counter")


def test_without_a_database_it_says_so(empty_db: Database) -> None:
    """pymig is not installed: up is 0, and nothing else is claimed."""
    assert _scrape(serve(empty_db.url, "127.0.0.1", 0)) == {("pymig_up", frozenset()): 0}


@contextmanager
def _running(db: Database, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from pymig.cli import main; main()", *arguments],
        env={**os.environ, "DATABASE_URL": db.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.mark.parametrize("arguments", [("metrics", "--port"), ("worker", "--metrics-port")])
def test_commands_serve_it(db: Database, arguments: tuple[str, ...]) -> None:
    """Each says where."""
    with _running(db, *arguments, "0") as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.fullmatch(r"Metrics: http://127\.0\.0\.1:(\d+)/metrics\n", line)
        assert found, line
        assert _of(_scrape(int(found[1])), "pymig_up") == 1
        with _running(db, *arguments, found[1]) as second:
            said, _ = second.communicate(timeout=30)
            assert second.returncode == 2, said
            assert "Choose another --port" in said
