"""Figures over a limit become events: when they last, when they double, and when it is over."""

from __future__ import annotations

import threading
from typing import Any, LiteralString

import psycopg
import pytest

from pymig.worker import keep_in_sync
from tests.conftest import Database
from tests.waiting import until

CREATE: LiteralString = """
CREATE TABLE n (ship text, ch text, ts timestamp, f text, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT 'X', 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', 'd', t
FROM generate_series(1, 3) AS c, generate_series(1, 30) AS t;
ANALYZE n;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}', p_format_column => 'f', p_formats => '{"d": "d"}');
UPDATE pymig.throttle SET max_value = NULL;
UPDATE pymig.alert SET lasting = '0';
CALL pymig.migrate('X')
"""  # noqa: E501
Connection = psycopg.Connection[Any]
Told = list[tuple[str, str | None, str]]


@pytest.fixture
def conn(db: Database) -> Connection:
    """One ship that is migrated, and rules that need not last."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    return conn


def _told(conn: Connection, of: str) -> Told:
    """Level, ship and name of its events, in order."""
    query = "SELECT level, entity, what FROM pymig.event WHERE what LIKE %s ORDER BY event"
    return conn.execute(query, [f"{of}%"]).fetchall()


def _look(conn: Connection) -> None:
    conn.execute("SELECT pymig.look_at_alerts('0')")


def _only(conn: Connection, alert: str) -> None:
    conn.execute("UPDATE pymig.alert SET max_value = NULL WHERE alert <> %s", [alert])


def test_lag_and_pending_keys(conn: Connection) -> None:
    """Once while they are over the limit, and once when it is over."""
    conn.execute("CALL pymig.set_alert('sync lag', 0)")
    conn.execute("CALL pymig.set_alert('pending keys', 1)")
    _look(conn)
    assert (_told(conn, "sync lag"), _told(conn, "pending keys")) == ([], [])
    for hour in (1, 2):
        conn.execute(
            "INSERT INTO n VALUES ('X', 'c1', make_timestamp(2025, 1, 1, %s, 0, 0), 'd', 1)", [hour]
        )
    for _ in range(3):
        _look(conn)
    assert _told(conn, "pending keys") == [("WARNING", "X", "pending keys")]
    lag = _told(conn, "sync lag")
    assert lag and set(lag) == {("WARNING", "X", "sync lag")}
    conn.execute("CALL pymig.sync_pending()")
    _look(conn)
    assert _told(conn, "pending keys")[1:] == [("INFO", "X", "pending keys is over")]
    assert _told(conn, "sync lag")[len(lag) :] == [("INFO", "X", "sync lag is over")]


def test_it_has_to_last(conn: Connection) -> None:
    """What is over before its time is nobody's business."""
    conn.execute("CALL pymig.set_alert('pending keys', 0, '1 hour')")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2025-01-01', 'd', 1)")
    _look(conn)
    assert _told(conn, "pending keys") == []
    since = "UPDATE pymig.alert_state SET over_since = over_since - interval '1 hour'"
    conn.execute(since)
    _look(conn)
    assert _told(conn, "pending keys") == [("WARNING", "X", "pending keys")]


def test_what_grows_is_told_again(conn: Connection) -> None:
    """Quarantine: at the first row, then each time it has doubled."""
    _only(conn, "rows quarantined")
    counts = []
    for n in range(1, 10):
        conn.execute(
            "INSERT INTO n VALUES ('X', 'c1', make_timestamp(2025, 1, 1, %s, 0, 0), '?', 1)", [n]
        )
        conn.execute("CALL pymig.sync_pending()")
        _look(conn)
        counts.append(len(_told(conn, "rows quarantined")))
    assert counts == [1, 2, 2, 3, 3, 3, 3, 4, 4]


def test_no_worker(db: Database, conn: Connection) -> None:
    """CRITICAL while none is alive; a worker that comes looks itself, and it is over."""
    _only(conn, "no worker alive")
    conn.execute("DELETE FROM pymig.worker")
    _look(conn)
    assert _told(conn, "no worker alive") == [("CRITICAL", None, "no worker alive")]
    stop = threading.Event()
    worker = threading.Thread(target=keep_in_sync, args=(db.url, stop), daemon=True)
    worker.start()
    conn.execute("UPDATE pymig.alert SET checked_at = NULL")
    until(
        lambda: ("INFO", None, "no worker alive is over") in _told(conn, "no worker alive"),
        "the worker does not look at the rules",
    )
    stop.set()
    worker.join(10)
    conn.execute("CALL pymig.roll_back('X')")
    conn.execute("DELETE FROM pymig.worker")
    _look(conn)
    assert len(_told(conn, "no worker alive")) == 2, "without a ship none is needed"


def test_throttled_and_disk(conn: Connection) -> None:
    """From what the throttle knows; the window is no reason to call anybody."""
    conn.execute("CALL pymig.set_throttle('maintenance window', 0, 'SELECT 1')")
    conn.execute("SELECT pymig.look_at_throttle()")
    _look(conn)
    assert _told(conn, "history throttled") == []
    conn.execute("CALL pymig.set_throttle('lock waits', 0, 'SELECT 1')")
    conn.execute("SELECT pymig.look_at_throttle()")
    conn.execute("SELECT pymig.report_throttle('disk used', 95)")
    _look(conn)
    assert _told(conn, "history throttled") == [("WARNING", None, "history throttled")]
    assert _told(conn, "disk nearly full") == [("WARNING", None, "disk nearly full")]


def test_a_ship_that_failed(conn: Connection) -> None:
    """Once, CRITICAL, when its last chunk has."""
    conn.execute("INSERT INTO n SELECT 'Y', ch, ts, f, d FROM n")
    conn.execute("CALL pymig.start_sync('Y')")
    conn.execute("SELECT pymig.backfill_chunk('Y')")
    conn.execute("UPDATE pymig.chunk SET state = 'failed' WHERE entity = 'Y'")
    conn.execute("UPDATE pymig.entity SET next_bucket = NULL WHERE entity = 'Y'")
    for _ in range(2):
        conn.execute("SELECT pymig.backfill_chunk('Y')")
    assert _told(conn, "ship failed") == [("CRITICAL", "Y", "ship failed")]


def test_rules_of_ones_own(conn: Connection) -> None:
    """Any SELECT of source, entity and a number; one that fails is told, and harms no other."""
    conn.execute(
        "CALL pymig.set_alert('rows', 5, p_level => 'INFO', p_unit => 'rows', "
        "p_measure => 'SELECT NULL, n.ship, count(*) FROM public.n AS n GROUP BY 2')"
    )
    conn.execute("CALL pymig.set_alert('broken', 5, p_measure => 'SELECT 1/0')")
    conn.execute("CALL pymig.set_alert('pending keys', 0)")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2025-01-01', 'd', 1)")
    for _ in range(2):
        _look(conn)
    assert _told(conn, "rows") == [("INFO", "X", "rows")]
    assert _told(conn, "alert not measured") == [("WARNING", None, "alert not measured")]
    assert _told(conn, "pending keys") == [("WARNING", "X", "pending keys")]
    detail = conn.execute("SELECT detail FROM pymig.event WHERE what = 'rows'").fetchone()
    assert detail
    assert detail[0].startswith("91 rows, limit 5, since ")
    conn.execute("CALL pymig.set_alert('rows')")
    _look(conn)
    over = conn.execute("SELECT alert FROM pymig.alert_state").fetchall()
    assert over == [("pending keys",)]


@pytest.mark.parametrize(
    "call", ["'nothing', 1", "'sync lag', 1, p_level => 'LOUD'", "'sync lag', 1, '-1 s'"]
)
def test_wrong_rules(conn: Connection, call: str) -> None:
    """One sentence each."""
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"CALL pymig.set_alert({call})".encode())
    assert error.value.sqlstate == "PM007"
