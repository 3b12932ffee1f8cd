"""cut_over: what it asks for, what it changes, how it is held back, and that nobody notices it."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import default_narrow, difference

CREATE: LiteralString = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text NOT NULL, data_channel_id text NOT NULL, created_time timestamp NOT NULL,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
CALL pymig.register_source('n', 'tenant.tbl_data_timeseries', 'ship_id', 'data_channel_id', 'created_time',
    '{double_v,long_v,str_v,bool_v}', 'value_format',
    '{"Decimal":"double_v","Integer":"long_v","String":"str_v","Boolean":"bool_v"}');
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)
    SELECT s, 'c' || c, '2024-01-01'::timestamp + g * interval '15 s', g / 3.0, 'Decimal'
    FROM generate_series(0, 999) AS g, generate_series(1, 20) AS c, unnest('{X,Y}'::text[]) AS s
"""
INSERT: LiteralString = (
    "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)"
    " SELECT 'X', 'c' || c, %s::timestamp + %s * interval '1 s', random(), 'Decimal' FROM generate_series(1, 20) AS c"
)
WIDE: LiteralString = "tenant.tbl_data_timeseries_x"
NARROW: Final = default_narrow(source="n")
#: Of the issue that asked for cutover: the longest stall it may cause.
STALL: Final = 0.1


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """A source with two ships; X is verified and certified."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("CALL pymig.certify('X')")
    return conn


def _state(conn: psycopg.Connection[Any]) -> str:
    found = conn.execute("SELECT state FROM pymig.entity WHERE entity = 'X'").fetchone()
    assert found
    return str(found[0])


def _refused(conn: psycopg.Connection[Any], statement: LiteralString, sqlstate: str) -> str:
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(statement)
    assert raised.value.sqlstate == sqlstate, raised.value
    assert raised.value.diag.message_hint
    return str(raised.value.diag.message_primary)


def test_states(conn: psycopg.Connection[Any]) -> None:
    """Only a verified entity is cut over, once; verify goes on working; a new migration begins anew."""
    conn.execute("CALL pymig.start_sync('Y')")
    assert "'Y' is syncing" in _refused(conn, "CALL pymig.cut_over('Y')", "PM004")
    _refused(conn, "CALL pymig.cut_over('Z')", "PM002")
    conn.execute("CALL pymig.cut_over('X')")
    assert _state(conn) == "cut_over"
    conn.execute("CALL pymig.cut_over('X')")
    events = conn.execute("SELECT count(*) FROM pymig.event WHERE what = 'cut over'").fetchone()
    assert events == (1,)
    conn.execute("CALL pymig.backfill('X')")
    conn.execute("CALL pymig.start_sync('X')")
    conn.execute("CALL pymig.verify('X')")
    assert _state(conn) == "cut_over"
    shown = conn.execute(
        "SELECT state, percent, verified_at IS NOT NULL FROM pymig.status WHERE entity = 'X'"
    ).fetchone()
    assert shown == ("cut_over", 100, True)
    conn.execute("CALL pymig.roll_back('X')")
    assert _state(conn) == "rolled_back"
    conn.execute("CALL pymig.migrate('X')")
    assert _state(conn) == "verified"
    # What is written now is no longer refused: that came with the cutover.
    conn.execute(f"UPDATE {WIDE} SET c1 = c1")


def test_drift_takes_verified_but_not_the_cutover(conn: psycopg.Connection[Any]) -> None:
    """Applications go on in the wide shape; that changes may be missing is said elsewhere."""
    conn.execute("CALL pymig.cut_over('X')")
    conn.execute("ALTER TABLE tenant.tbl_data_timeseries DISABLE TRIGGER pymig_record_update")
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries SET double_v = -1 WHERE ship_id = 'X' AND data_channel_id = 'c1'"
    )
    conn.execute("CALL pymig.start_sync('X')")
    assert conn.execute(
        "SELECT state, verified_at FROM pymig.entity WHERE entity = 'X'"
    ).fetchone() == ("cut_over", None)
    _refused(conn, "CALL pymig.verify('X')", "PM013")
    assert _state(conn) == "cut_over"
    conn.execute("CALL pymig.verify('X', p_repair => true)")
    assert difference(conn, NARROW) == []
    conn.execute(f"UPDATE {WIDE}_rw SET c1 = 5 WHERE created_time = '2024-01-01'")


def test_sync_goes_on(conn: psycopg.Connection[Any]) -> None:
    """Ingest into the narrow table reaches the wide table as before, by worker and by trigger."""
    conn.execute("CALL pymig.cut_over('X')")
    conn.execute(INSERT, ["2024-02-01", 1])
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, NARROW) == []
    conn.execute("CALL pymig.set_sync('X', 'direct')")
    conn.execute(INSERT, ["2024-02-01", 2])
    assert conn.execute(
        f"SELECT count(*) FROM {WIDE} WHERE created_time = '2024-02-01 00:00:02'"
    ).fetchone() == (1,)
    # The guard is up again in the same transaction.
    with conn.transaction(force_rollback=True):
        conn.execute(INSERT, ["2024-02-01", 3])
        _refused(conn, "DELETE FROM tenant.tbl_data_timeseries_x", "PM060")
    with conn.transaction(force_rollback=True):
        conn.execute(
            "SELECT pymig._recompute(s, 'X', 'json', b, b, NULL) FROM pymig.source AS s, (SELECT min(bucket) FROM pymig.verification) AS v (b)"
        )
        _refused(conn, "DELETE FROM tenant.tbl_data_timeseries_x", "PM060")
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, NARROW) == []


@contextmanager
def _in_thread(db: Database, statement: LiteralString) -> Iterator[threading.Thread]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with psycopg.connect(db.url, autocommit=True) as conn:
                conn.execute(statement)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def _wait_until(conn: psycopg.Connection[Any], query: LiteralString) -> None:
    deadline = time.monotonic() + 20
    while conn.execute(query).fetchone() != (True,):
        assert time.monotonic() < deadline, query
        time.sleep(0.02)


def test_held_until_released(db: Database, conn: psycopg.Connection[Any]) -> None:
    """gh-ost's postponed cut-over: prepared, waiting, drained all the time, released by anybody."""
    with _in_thread(db, "CALL pymig.cut_over('X', p_hold => true)") as thread:
        _wait_until(conn, "SELECT is_held FROM pymig.entity WHERE entity = 'X'")
        conn.execute(INSERT, ["2024-02-01", 1])
        _wait_until(conn, f"SELECT count(*) > 0 FROM {WIDE} WHERE created_time >= '2024-02-01'")
        assert _state(conn) == "verified"
        assert thread.is_alive()
        conn.execute("CALL pymig.release_cut_over('X')")
    assert _state(conn) == "cut_over"
    assert conn.execute("SELECT is_held FROM pymig.entity WHERE entity = 'X'").fetchone() == (
        False,
    )
    said = conn.execute(
        "SELECT what FROM pymig.event WHERE what LIKE 'cut%' ORDER BY event"
    ).fetchall()
    assert said == [("cutover held",), ("cutover released",), ("cut over",)]


def test_hold_survives_who_waits(db: Database, conn: psycopg.Connection[Any]) -> None:
    """The session that waits is killed: it is still held, and the next call waits as well."""
    conn.execute("CALL pymig.hold_cut_over('X')")
    waiting = psycopg.connect(db.url, autocommit=True, application_name="waits")

    def wait() -> None:
        with pytest.raises(psycopg.Error):
            waiting.execute("CALL pymig.cut_over('X')")

    thread = threading.Thread(target=wait)
    thread.start()
    _wait_until(
        conn,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event = 'PgSleep'",
    )
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'waits'"
    )
    thread.join(20)
    waiting.close()
    with _in_thread(db, "CALL pymig.cut_over('X')"):
        time.sleep(0.3)
        assert _state(conn) == "verified"
        conn.execute("CALL pymig.release_cut_over('X')")
    assert _state(conn) == "cut_over"


def test_keys_that_cannot_be_recomputed_hold_it_up(conn: psycopg.Connection[Any]) -> None:
    """What is not in the wide table yet must not be missed by who reads it from now on."""
    conn.execute(f"ALTER TABLE {WIDE} ADD CONSTRAINT small CHECK (c1::float8 < 1e6)")
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries SET double_v = 1e7 WHERE ship_id = 'X' AND data_channel_id = 'c1' AND created_time = '2024-01-01'"
    )
    said = _refused(conn, "CALL pymig.cut_over('X', p_lock_wait => '300 ms')", "PM061")
    assert "do not drain" in said
    assert _state(conn) == "verified"
    conn.execute(f"ALTER TABLE {WIDE} DROP CONSTRAINT small")
    conn.execute("CALL pymig.cut_over('X')")
    assert difference(conn, NARROW) == []


def test_name_of_the_view_is_taken(conn: psycopg.Connection[Any]) -> None:
    """Nothing of the user's is replaced, and nothing is half done."""
    conn.execute(f"CREATE TABLE {WIDE}_rw (a int)")
    assert "that name is taken" in _refused(conn, "CALL pymig.cut_over('X')", "PM014")
    assert _state(conn) == "verified"
    conn.execute(f"DROP TABLE {WIDE}_rw")
    conn.execute("CALL pymig.cut_over('X')")


def test_time_grain_has_no_view_to_write(db: Database) -> None:
    """Several times make one row there, so it is cut over for its readers alone."""
    conn = db.connect()
    conn.execute("CREATE TABLE g (s text, c text, t timestamp, v float8, PRIMARY KEY (s, c, t))")
    conn.execute("CREATE INDEX ON g (s, t)")
    conn.execute(
        "INSERT INTO g SELECT 'X', 'a', '2024-01-01'::timestamp + i * interval '100 ms', i FROM generate_series(1, 50) AS i"
    )
    conn.execute(
        "CALL pymig.register_source('g', 'g', 's', 'c', 't', '{v}', p_time_grain => '1 s')"
    )
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.cut_over('X')")
    assert conn.execute("SELECT to_regclass('g_x_rw')").fetchone() == (None,)
    said = conn.execute("SELECT detail FROM pymig.event WHERE what = 'cut over'").fetchone()
    assert said and "can't be written in the wide shape" in said[0]


class _Load:
    """Somebody who runs a statement again and again; `slowest` in seconds, `errors`."""

    def __init__(self, db: Database, statement: LiteralString, *, counts: bool = False) -> None:
        self.slowest = 0.0
        self.rounds = 0
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(db, statement, counts))
        self._thread.start()

    def _run(self, db: Database, statement: LiteralString, counts: bool) -> None:
        try:
            with psycopg.connect(db.url, autocommit=True) as conn:
                while not self._stop.wait(0.002):
                    values = ["2025-01-01", self.rounds] if counts else None
                    began = time.monotonic()
                    conn.execute(statement, values)
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    self.rounds += 1
        except BaseException as error:
            self.errors.append(error)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(20)


def test_nobody_waits_for_it(db: Database, conn: psycopg.Connection[Any]) -> None:
    """Ingest, readers of the narrow and of the wide table wait for no lock of a cutover.

    How long a statement takes on a busy machine is no test; what it waits for is: the server logs
    no lock wait, and pg_stat_activity shows none, while a cutover is in its transaction.
    """
    loads = [
        _Load(db, INSERT, counts=True),
        _Load(db, f"SELECT count(c1) FROM {WIDE}"),
        _Load(
            db,
            "SELECT count(*) FROM tenant.tbl_data_timeseries WHERE ship_id = 'X' AND data_channel_id = 'c1'",
        ),
    ]
    seen: set[tuple[str, str]] = set()
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(
                "SELECT pymig._try_cut_over(s, e, '-infinity', '80 ms') FROM pymig.source AS s, pymig.entity AS e WHERE e.entity = 'X'"
            )
            assert _state(conn) == "cut_over"
            watcher = db.connect()
            before = [load.rounds for load in loads]
            until = time.monotonic() + 1
            while time.monotonic() < until:
                seen |= set(
                    watcher.execute(
                        "SELECT query, wait_event FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    ).fetchall()
                )
            after = [load.rounds for load in loads]
    finally:
        for load in loads:
            load.end()
    assert seen == set()
    assert all(more > fewer for more, fewer in zip(after, before, strict=True))
    assert [load.errors for load in loads] == [[], [], []]


def test_under_load_nothing_is_lost(db: Database, conn: psycopg.Connection[Any]) -> None:
    """Cut over, rolled back, migrated and cut over again while writers of both shapes go on."""
    worker = _Load(db, "CALL pymig.sync_pending()")
    ingest = _Load(db, INSERT, counts=True)
    try:
        conn.execute("CALL pymig.cut_over('X')")
        for i in range(40):
            conn.execute(
                f"INSERT INTO {WIDE}_rw (created_time, c1, c2) VALUES ('2026-01-01'::timestamp + %s * interval '1 s', 1, 2)",
                [i],
            )
        conn.execute("CALL pymig.roll_back('X')")
        conn.execute("CALL pymig.migrate('X')")
        conn.execute("CALL pymig.certify('X')")
        conn.execute("CALL pymig.cut_over('X')")
    finally:
        ingest.end()
        worker.end()
    assert ingest.errors == [] == worker.errors
    assert ingest.rounds > 0
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, NARROW) == []
    assert conn.execute(
        f"SELECT count(*) FROM {WIDE} WHERE created_time >= '2026-01-01'"
    ).fetchone() == (40,)
