"""finalize: the narrow table as an inbox; and the way back, from the archive and from wide."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Final, LiteralString

import psycopg
import pytest

from pymig.worker import keep_in_sync
from tests.conftest import Database
from tests.oracle import default_narrow, difference

CREATE: LiteralString = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigint GENERATED ALWAYS AS IDENTITY, ship_id text NOT NULL, data_channel_id text NOT NULL, created_time timestamp NOT NULL,
    server_created_time timestamp DEFAULT clock_timestamp(), bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), double_twice float8 GENERATED ALWAYS AS (double_v * 2) STORED,
    PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
CALL pymig.register_source('n', 'tenant.tbl_data_timeseries', 'ship_id', 'data_channel_id', 'created_time',
    '{double_v,long_v,str_v,bool_v}', 'value_format',
    '{"Decimal":"double_v","Integer":"long_v","String":"str_v","Boolean":"bool_v"}');
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)
    SELECT s, 'c' || c, '2024-01-01'::timestamp + g * interval '10 min', g / 3.0, 'Decimal'
    FROM generate_series(0, 299) AS g, generate_series(1, 4) AS c, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, str_v, value_format)
    SELECT s, 'text', '2024-01-01'::timestamp + g * interval '1 h', 'say ' || g, 'String' FROM generate_series(0, 49) AS g, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)
    VALUES ('X', 'text', '2024-01-01 00:30', 1, 'Nonsense'), ('X', 'c1', '2024-01-01 00:05', NULL, 'Decimal')
"""
NARROW: Final = default_narrow(source="n")
TABLE: LiteralString = "tenant.tbl_data_timeseries"
WIDE: LiteralString = "tenant.tbl_data_timeseries_x"
#: 300 samples of ten minutes are 50 hours: with a day kept, 25 hours and their buckets go.
KEPT: LiteralString = "created_time >= '2024-01-02 01:00'"


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """Two ships; X is cut over."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    conn.execute("CALL pymig.migrate('X', p_column_types => 'native')")
    conn.execute("CALL pymig.migrate('Y')")
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.cut_over('X')")
    return conn


def _one(conn: psycopg.Connection[Any], query: LiteralString, *values: Any) -> Any:
    found = conn.execute(query, values).fetchone()
    return found and found[0]


def _rows(conn: psycopg.Connection[Any], query: LiteralString) -> Counter[Any]:
    return Counter(conn.execute(query).fetchall())


def _refused(conn: psycopg.Connection[Any], statement: LiteralString, sqlstate: str) -> str:
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(statement)
    assert raised.value.sqlstate == sqlstate, raised.value
    assert raised.value.diag.message_hint
    return str(raised.value.diag.message_hint)


def test_there_and_back(conn: psycopg.Connection[Any]) -> None:
    """Old rows go to the archive, wide keeps all; restored, the narrow table has every column again."""
    everything = _rows(conn, f"SELECT * FROM {TABLE}")
    wide = _rows(conn, f"SELECT * FROM {WIDE}")
    kept = _rows(conn, f"SELECT * FROM {TABLE} WHERE ship_id = 'Y' OR {KEPT}")
    conn.execute("CALL pymig.finalize('X', '1 day')")
    assert _rows(conn, f"SELECT * FROM {TABLE}") == kept
    assert _rows(conn, f"SELECT * FROM {TABLE}_archive") == everything - kept
    conn.execute("CALL pymig.sync_pending()")
    assert _rows(conn, f"SELECT * FROM {WIDE}") == wide
    assert _one(conn, "SELECT state FROM pymig.status WHERE entity = 'X'") == "finalized"
    retired = conn.execute(
        "SELECT count(*), sum(narrow_rows), sum(cells), bool_and(digest IS NOT NULL AND is_archived AND certificate = 1) FROM pymig.retired_bucket"
    ).fetchone()
    assert retired == (25, sum((everything - kept).values()), 625, True)
    # What could not become a cell is still on record, as the only copy beside the archive.
    assert _one(conn, "SELECT count(*) FROM pymig.quarantine WHERE is_kept") == 1
    conn.execute("CALL pymig.verify('X')")
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.finalize('X', '1 day')")
    assert _one(conn, "SELECT count(*) FROM pymig.retired_bucket") == 25
    assert _one(conn, "SELECT count(*) FROM pymig.read('X', '{c1}')") == 300
    conn.execute("CALL pymig.restore_narrow('X')")
    assert _rows(conn, f"SELECT * FROM {TABLE}") == everything
    assert _rows(conn, f"SELECT * FROM {TABLE}_archive") == Counter()
    assert _rows(conn, f"SELECT * FROM {WIDE}") == wide
    assert difference(conn, NARROW) == []
    assert _one(conn, "SELECT state FROM pymig.entity WHERE entity = 'X'") == "cut_over"
    conn.execute("CALL pymig.verify('X')")
    conn.execute("CALL pymig.unregister_source('n')")
    assert _one(conn, f"SELECT to_regclass('{TABLE}_archive')") is None
    assert _rows(conn, f"SELECT * FROM {TABLE}") == everything


def test_back_without_an_archive(conn: psycopg.Connection[Any]) -> None:
    """From wide alone: every cell with its type; other columns, NULL values and bad rows are gone."""
    columns: LiteralString = (
        "ship_id, data_channel_id, created_time, bool_v, str_v, long_v, double_v, value_format"
    )
    cells = _rows(
        conn,
        f"SELECT {columns} FROM {TABLE} WHERE num_nonnulls(double_v, str_v) = 1 AND value_format <> 'Nonsense'",
    )
    wide = _rows(conn, f"SELECT * FROM {WIDE}")
    conn.execute("CALL pymig.finalize('X', '0', p_archive => false)")
    assert _one(conn, f"SELECT to_regclass('{TABLE}_archive')") is None
    assert (
        _one(
            conn,
            f"SELECT count(*) FROM {TABLE} WHERE ship_id = 'X' AND created_time < '2024-01-03 01:00'",
        )
        == 0
    )
    conn.execute("CALL pymig.restore_narrow('X')")
    assert (
        _rows(
            conn, f"SELECT {columns} FROM {TABLE} WHERE double_v IS NOT NULL OR str_v IS NOT NULL"
        )
        == cells
    )
    # A time that had nothing but a NULL is no row any more: wide follows the narrow table again.
    gone = _rows(conn, f"SELECT * FROM {WIDE}")
    assert sum((wide - gone).values()) == 1
    assert difference(conn, NARROW) == []


def test_inbox_goes_on(db: Database, conn: psycopg.Connection[Any]) -> None:
    """New rows reach wide, and are retired by a worker in their time; late ones are not lost."""
    conn.execute("CALL pymig.finalize('X', '2 hours')")
    conn.execute(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, double_v, value_format) SELECT 'X', 'c1', '2024-01-03 02:00'::timestamp + g * interval '10 min', g, 'Decimal' FROM generate_series(0, 59) AS g"
    )
    late: LiteralString = f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, double_v, value_format) VALUES ('X', 'c1', '2024-01-01 00:00:30', 77, 'Decimal')"
    conn.execute(late)
    stop = threading.Event()
    worker = threading.Thread(target=keep_in_sync, args=(db.url, stop))
    worker.start()
    try:
        for _ in range(200):
            if (
                _one(
                    conn,
                    f"SELECT count(*) FROM {TABLE} WHERE ship_id = 'X' AND created_time < '2024-01-03 09:00'",
                )
                == 1
            ):
                break
            stop.wait(0.1)
    finally:
        stop.set()
        worker.join(20)
    assert (
        _one(
            conn,
            f"SELECT count(*) FROM {TABLE} WHERE ship_id = 'X' AND created_time < '2024-01-03 09:00'",
        )
        == 1
    )
    assert (
        _one(conn, f"SELECT count(c1) FROM {WIDE} WHERE created_time >= '2024-01-03 02:00'") == 60
    )
    assert conn.execute(
        "SELECT channel, reason, narrow_row ->> 'double_v' FROM pymig.quarantine WHERE reason = 'closed_range'"
    ).fetchall() == [("c1", "closed_range", "77")]
    conn.execute("CALL pymig.verify('X')")
    conn.execute("CALL pymig.restore_narrow('X')")
    assert difference(conn, NARROW) == []
    assert _one(conn, f"SELECT c1 FROM {WIDE} WHERE created_time = '2024-01-01 00:00:30'") == 77


def test_what_is_refused(conn: psycopg.Connection[Any]) -> None:
    """Not cut over, no certificate, wrong interval; and whatever would lose the only copy."""
    _refused(conn, "CALL pymig.finalize('Y', '1 day')", "PM004")
    _refused(conn, "CALL pymig.finalize('X', NULL)", "PM007")
    _refused(conn, "CALL pymig.finalize('X', '-1 day')", "PM007")
    _refused(conn, "CALL pymig.restore_narrow('Y')", "PM004")
    conn.execute("CALL pymig.restore_narrow('X')")
    conn.execute("UPDATE pymig.certificate SET voided_at = now(), void_reason = 'by hand'")
    _refused(conn, "CALL pymig.finalize('X', '1 day')", "PM040")
    conn.execute("CALL pymig.certify('X')")
    conn.execute(f"CREATE TABLE {TABLE}_archive (a int)")
    _refused(conn, "CALL pymig.finalize('X', '1 day')", "PM014")
    conn.execute(f"DROP TABLE {TABLE}_archive")
    conn.execute("CALL pymig.finalize('X', '1 day')")
    assert "restore_narrow" in _refused(conn, "CALL pymig.roll_back('X')", "PM024")
    assert "restore_narrow" in _refused(conn, "CALL pymig.unregister_source('n')", "PM024")
    assert "restore_narrow" in _refused(conn, "CALL pymig.set_routing('X', 'narrow')", "PM050")
    assert "restore_narrow" in _refused(
        conn, f"DELETE FROM {WIDE}_rw WHERE created_time = '2024-01-01'", "PM063"
    )
    conn.execute("CALL pymig.set_retention('drop')")
    conn.execute("CALL pymig.sync_pending()")
    assert _one(conn, f"SELECT count(*) FROM {WIDE}") == 301
    conn.execute(f"UPDATE {WIDE}_rw SET c1 = 5 WHERE created_time = '2024-01-02 12:00'")


def test_a_difference_stays(conn: psycopg.Connection[Any]) -> None:
    """Each bucket is compared once more in the transaction that takes its rows away."""
    conn.execute(f"ALTER TABLE {WIDE} DISABLE TRIGGER pymig_guard")
    conn.execute(f"UPDATE {WIDE} SET c2 = -1 WHERE created_time = '2024-01-01 05:00'")
    assert "certify" in _refused(conn, "CALL pymig.finalize('X', '1 day')", "PM065")
    assert _one(conn, "SELECT count(*) FROM pymig.retired_bucket") == 5
    conn.execute("CALL pymig.retire()")
    assert _one(conn, "SELECT count(*) FROM pymig.event WHERE what = 'not retired'") == 1
    conn.execute("CALL pymig.verify('X', p_repair => true)")
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.finalize('X', '1 day')")
    assert _one(conn, "SELECT count(*) FROM pymig.retired_bucket") == 25
    conn.execute("CALL pymig.restore_narrow('X')")
    assert difference(conn, NARROW) == []


CHANGE: LiteralString = f"UPDATE {TABLE} SET double_v = 1000 WHERE ship_id = 'X' AND data_channel_id = 'c3' AND created_time = '2024-01-01 00:10'"


def test_change_between_comparison_and_deletion(
    db: Database, conn: psycopg.Connection[Any]
) -> None:
    """It has committed by the time its row is deleted: the bucket is not retired, and the value gets to wide."""
    conn.execute(
        "SELECT pymig._begin_finalize(s, e, '1 day', true) FROM pymig.source AS s, pymig.entity AS e WHERE e.entity = 'X'"
    )
    writer = db.connect()
    outcome: list[Any] = []

    def retire() -> None:
        with psycopg.connect(db.url, autocommit=True, application_name="retires") as other:
            outcome.append(other.execute("SELECT pymig._retire_next('n', 'X')").fetchone())

    thread = threading.Thread(target=retire)
    with writer.transaction():
        writer.execute(CHANGE)
        # It compares, then waits for our row.
        thread.start()
        waits: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'retires' AND wait_event_type = 'Lock'"
        for _ in range(200):
            if _one(conn, waits):
                break
            thread.join(0.05)
        assert _one(conn, waits) == 1
    thread.join(20)
    assert outcome == [
        (
            "rows of 'X' from 2024-01-01 00:00:00 to 2024-01-01 00:59:59.999999 changed while they were retired",
        )
    ]
    assert _one(conn, "SELECT count(*) FROM pymig.retired_bucket") == 0
    conn.execute("CALL pymig.finalize('X', '1 day')")
    assert _one(conn, f"SELECT c3 FROM {WIDE} WHERE created_time = '2024-01-01 00:10'") == 1000
    assert (
        _one(
            conn,
            f"SELECT double_v FROM {TABLE}_archive WHERE data_channel_id = 'c3' AND created_time = '2024-01-01 00:10'",
        )
        == 1000
    )


def test_killed_and_called_again(db: Database, conn: psycopg.Connection[Any]) -> None:
    """Bucket by bucket: whatever was not committed is where it was, and the same call goes on."""
    everything = _rows(conn, f"SELECT * FROM {TABLE}")
    for call in (
        "CALL pymig.finalize('X', '1 day', p_pause => '20 ms')",
        "CALL pymig.restore_narrow('X', p_pause => '20 ms')",
    ):
        ends = 0
        while not ends:
            with psycopg.connect(db.url, autocommit=True) as other:
                killer = threading.Timer(
                    0.25,
                    lambda pid=other.info.backend_pid: db.connect().execute(
                        "SELECT pg_terminate_backend(%s)", [pid]
                    ),
                )
                killer.start()
                try:
                    other.execute(call.encode())
                    ends = 1
                except psycopg.OperationalError:
                    pass
                killer.cancel()
                killer.join()
            whole = _rows(conn, f"SELECT * FROM {TABLE} UNION ALL SELECT * FROM {TABLE}_archive")
            assert whole == everything
    assert _rows(conn, f"SELECT * FROM {TABLE}") == everything
    assert difference(conn, NARROW) == []
