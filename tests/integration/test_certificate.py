"""Certificates: what they say, when they no longer count, and verification that never ends."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg.rows import dict_row

from pymig.worker import keep_in_sync
from tests.conftest import Database
from tests.oracle import default_narrow, difference

CREATE: LiteralString = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text NOT NULL, data_channel_id text NOT NULL, created_time timestamp NOT NULL,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CALL pymig.register_source('n', 'tenant.tbl_data_timeseries', 'ship_id', 'data_channel_id', 'created_time',
    '{double_v,long_v,str_v,bool_v}', 'value_format',
    '{"Decimal":"double_v","Integer":"long_v","String":"str_v","Boolean":"bool_v"}');
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)
    SELECT s, 'c' || c, '2024-01-01'::timestamp + g * interval '10 min', g / 3.0, 'Decimal'
    FROM generate_series(0, 59) AS g, generate_series(1, 5) AS c, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)
    VALUES ('X', 'c1', '2024-01-02', 1, 'Nonsense')
"""
NARROW: Final = default_narrow(source="n")
WIDE: LiteralString = "tenant.tbl_data_timeseries_x"
PLANT: LiteralString = (
    "UPDATE tenant.tbl_data_timeseries_x SET c3 = '77' WHERE created_time = '2024-01-01 03:00'"
)
FAULT: LiteralString = "SELECT pymig.certificate_fault('X')"
HURRY: LiteralString = "CALL pymig.set_verification(1)"


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """Ship X is certified, ship Y verified."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    conn.execute("CALL pymig.migrate('X', p_column_types => 'text')")
    conn.execute("CALL pymig.migrate('Y')")
    conn.execute("CALL pymig.certify('X')")
    return conn


def _one(conn: psycopg.Connection[Any], query: LiteralString, *values: Any) -> Any:
    found = conn.execute(query, values).fetchone()
    return found and found[0]


def _refused(conn: psycopg.Connection[Any], statement: LiteralString, sqlstate: str) -> str:
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(statement)
    assert raised.value.sqlstate == sqlstate, raised.value
    assert raised.value.diag.message_hint
    return str(raised.value.diag.message_primary)


def _reverify_all(conn: psycopg.Connection[Any]) -> None:
    """As a worker does for ever; buckets just compared have their rest first, so it is taken away."""
    conn.execute("UPDATE pymig.verification SET checked_at = checked_at - interval '1 minute'")
    conn.execute("UPDATE pymig.changed_bucket SET changed_at = changed_at - interval '1 minute'")
    conn.execute(HURRY)
    conn.execute("CALL pymig.reverify()")


def test_what_it_says(conn: psycopg.Connection[Any]) -> None:
    """Counts, bounds and digests, all to be checked from pymig.verification and the tables."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("SELECT * FROM pymig.certificate").fetchone()
    assert row
    assert {
        name: row[name]
        for name in ("source", "entity", "buckets", "cells", "wide_rows", "quarantined")
    } == {
        "source": "n",
        "entity": "X",
        "buckets": 11,
        "cells": 300,
        "wide_rows": 61,
        "quarantined": 1,
    }
    assert (row["from_time"], row["to_time"]) == (
        "2024-01-01 00:00:00",
        "2024-01-02 00:59:59.999999",
    )
    assert row["wide_table"] == WIDE
    assert row["certified_by"] == "postgres"
    assert row["voided_at"] is None
    assert _one(conn, "SELECT %s::pg_lsn <= pg_current_wal_lsn()", row["lsn"])
    digests = conn.execute(
        "SELECT bucket, digest FROM pymig.verification WHERE entity = 'X' ORDER BY bucket"
    ).fetchall()
    assert row["bucket_digests"] == {str(bucket): digest for bucket, digest in digests}
    lines = "\n".join(f"{bucket}:{digest}" for bucket, digest in digests)
    assert row["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    assert _one(conn, FAULT) is None
    assert _one(conn, "SELECT pymig.certificate_fault('Y')") == "it was never certified"


def test_digest_is_of_the_content(conn: psycopg.Connection[Any]) -> None:
    """The same content has the same digest, another cell another one; the older one is void."""
    conn.execute("CALL pymig.certify('X')")
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries SET double_v = 5 WHERE ship_id = 'X' AND data_channel_id = 'c1' AND created_time = '2024-01-01'"
    )
    conn.execute("CALL pymig.certify('X')")
    rows = conn.execute(
        "SELECT digest, void_reason FROM pymig.certificate ORDER BY certificate"
    ).fetchall()
    assert rows[0][0] == rows[1][0] != rows[2][0]
    assert [reason for _, reason in rows] == [
        "a newer one was given",
        "a newer one was given",
        None,
    ]


def test_not_given(conn: psycopg.Connection[Any]) -> None:
    """Not before the backfill is done, nor with a difference, which also voids the one there is."""
    conn.execute("CALL pymig.roll_back('Y')")
    conn.execute("CALL pymig.start_sync('Y')")
    _refused(conn, "CALL pymig.certify('Y')", "PM004")
    _refused(conn, "CALL pymig.certify('Z')", "PM002")
    conn.execute(PLANT)
    _refused(conn, "CALL pymig.certify('X')", "PM013")
    assert "1 differences were found from 2024-01-01 03:00:00" in _one(conn, FAULT)
    assert _one(conn, "SELECT count(*) FROM pymig.certificate") == 1
    conn.execute("CALL pymig.verify('X', p_repair => true)")
    conn.execute("CALL pymig.certify('X')")
    assert _one(conn, FAULT) is None


def test_not_given_where_triggers_drift_meanwhile(conn: psycopg.Connection[Any]) -> None:
    """What holds when the last bucket was compared must hold when the certificate is written."""
    conn.execute("ALTER TABLE tenant.tbl_data_timeseries DISABLE TRIGGER pymig_record_delete")
    said = _refused(conn, "CALL pymig.certify('X')", "PM041")
    assert "not as installed" in said
    assert _one(conn, "SELECT count(*) FROM pymig.certificate") == 1


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (
            "ALTER TABLE tenant.tbl_data_timeseries DISABLE TRIGGER pymig_record_insert",
            "not as installed",
        ),
        (
            "ALTER TABLE tenant.tbl_data_timeseries ENABLE TRIGGER pymig_record_insert",
            "not as installed",
        ),
        ("DROP TRIGGER pymig_record_truncate ON tenant.tbl_data_timeseries", "not as installed"),
        (
            "CREATE OR REPLACE FUNCTION pymig.n_record_insert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "have changed since",
        ),
        (
            "CREATE OR REPLACE VIEW pymig.n_cell AS SELECT c.* FROM (TABLE pymig.n_cell_was) AS c",
            "have changed since",
        ),
        ("CALL pymig.set_verification(0.05, '1 microsecond')", "longer ago than"),
        ("CALL pymig.roll_back('X')", "it was rolled back"),
        ("SELECT nextval('pymig.n_lost')", "keys were lost"),
        ("UPDATE pymig.entity SET repair_from = 0 WHERE entity = 'X'", "keys were lost"),
        ("UPDATE pymig.certificate SET voided_at = now(), void_reason = 'by hand'", "by hand"),
    ],
)
def test_it_goes_stale(conn: psycopg.Connection[Any], statement: LiteralString, fault: str) -> None:
    """Each rule of docs/explanation/certificate.md; and cut_over refuses then."""
    if "n_cell_was" in statement:
        definition = _one(conn, "SELECT pg_get_viewdef('pymig.n_cell')")
        conn.execute(f"CREATE VIEW pymig.n_cell_was AS {definition}".encode())
    conn.execute(statement)
    assert fault in _one(conn, FAULT)
    _refused(
        conn,
        "CALL pymig.cut_over('X', p_lock_wait => '0')",
        "PM004" if "roll_back" in statement else "PM040",
    )


def test_writes_do_not_make_it_stale(conn: psycopg.Connection[Any]) -> None:
    """Sync carries them; a worker compares their buckets again."""
    conn.execute(
        "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)"
        " VALUES ('X', 'c1', '2024-03-01', 1, 'Decimal'), ('Z', 'c1', '2024-03-01', 1, 'Decimal')"
    )
    conn.execute("CALL pymig.sync_pending()")
    assert _one(conn, FAULT) is None
    changed: LiteralString = "SELECT entity, bucket FROM pymig.changed_bucket"
    assert len(conn.execute(changed).fetchall()) == 1
    _reverify_all(conn)
    assert conn.execute(changed).fetchall() == []
    assert _one(
        conn,
        "SELECT is_equal FROM pymig.verification WHERE entity = 'X' AND from_time LIKE '2024-03-01%%'",
    )
    assert _one(conn, FAULT) is None


def test_planted_cell(conn: psycopg.Connection[Any]) -> None:
    """Found by itself, voids the certificate, blocks cutover, is repaired; then certify succeeds."""
    conn.execute(PLANT)
    assert _one(conn, FAULT) is None
    _reverify_all(conn)
    assert difference(conn, NARROW) == []
    assert "1 differences were found from 2024-01-01 03:00:00" in _one(conn, FAULT)
    assert _one(conn, "SELECT state FROM pymig.entity WHERE entity = 'X'") == "backfilled"
    _refused(conn, "CALL pymig.cut_over('X')", "PM004")
    conn.execute("CALL pymig.verify('X')")
    _refused(conn, "CALL pymig.cut_over('X')", "PM040")
    said = conn.execute(
        "SELECT what, level FROM pymig.event WHERE entity = 'X' ORDER BY event DESC LIMIT 5"
    ).fetchall()
    assert ("verification mismatch", "CRITICAL") in said
    assert ("certificate void", "WARNING") in said
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.cut_over('X')")
    # Also afterwards.
    conn.execute(f"ALTER TABLE {WIDE} DISABLE TRIGGER pymig_guard")
    conn.execute(PLANT)
    _reverify_all(conn)
    assert difference(conn, NARROW) == []
    assert _one(conn, "SELECT state FROM pymig.entity WHERE entity = 'X'") == "cut_over"
    assert "differences were found" in _one(conn, FAULT)


def test_every_bucket_has_its_turn(conn: psycopg.Connection[Any]) -> None:
    """Those that changed first, then those compared longest ago; each once a round."""
    conn.execute(
        "UPDATE pymig.verification SET checked_at = '2024-01-01'::timestamptz + bucket %% 7 * interval '1 hour'".replace(
            "%%", "%"
        )
    )
    expected = conn.execute(
        "SELECT entity, bucket FROM pymig.verification ORDER BY checked_at"
    ).fetchall()
    conn.execute(
        "INSERT INTO pymig.changed_bucket SELECT 'n', e, b, '2024-01-01' FROM (SELECT %s, %s) AS c (e, b)",
        expected[-1],
    )
    seen = []
    while True:
        due = conn.execute(
            "SELECT d.entity, d.bucket FROM pymig.source AS s, pymig._due_bucket(s) AS d"
        ).fetchone()
        assert due
        if due == (None, None):
            break
        seen.append(due)
        conn.execute("SELECT pymig._reverify_bucket(s, %s, %s) FROM pymig.source AS s", due)
        conn.execute("UPDATE pymig.source SET verify_after = NULL")
    assert seen[0] == expected[-1]
    assert sorted(seen[1:]) == sorted(expected[:-1])
    times = dict(
        conn.execute("SELECT (entity, bucket)::text, 0 FROM pymig.verification").fetchall()
    )
    assert len(times) == len(expected)


def test_budget(conn: psycopg.Connection[Any]) -> None:
    """A share of the time, 0 for none; wrong shares are refused."""
    conn.execute("CALL pymig.set_verification(0)")
    conn.execute("UPDATE pymig.verification SET checked_at = '2024-01-01'")
    conn.execute("CALL pymig.reverify()")
    old: LiteralString = "SELECT count(*) FROM pymig.verification WHERE checked_at = '2024-01-01'"
    all_of_them = _one(conn, "SELECT count(*) FROM pymig.verification")
    assert _one(conn, old) == all_of_them
    conn.execute(
        "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format) VALUES ('X', 'c1', '2024-03-01', 1, 'Decimal')"
    )
    conn.execute("CALL pymig.sync_pending()")
    assert _one(conn, "SELECT count(*) FROM pymig.changed_bucket") == 0
    conn.execute("CALL pymig.set_verification(0.0001)")
    conn.execute("UPDATE pymig.source SET verify_after = now()")
    conn.execute("CALL pymig.reverify()")
    spent = _one(
        conn,
        "SELECT sum(seconds) FROM pymig.verification WHERE checked_at > now() - interval '10 s' AND checked_at <> '2024-01-01'",
    )
    assert 0 < all_of_them - _one(conn, old) < all_of_them
    paid = _one(conn, "SELECT extract(epoch FROM verify_after - now()) FROM pymig.source")
    assert float(paid) > spent / 0.0001 - 1
    for wrong in ("-0.1", "1.5", "'NaN'", "NULL"):
        _refused(conn, f"CALL pymig.set_verification({wrong})", "PM007")
    _refused(conn, "CALL pymig.set_verification(0.1, '-1 day')", "PM007")


def test_worker_verifies_without_false_alarm(db: Database, conn: psycopg.Connection[Any]) -> None:
    """Beside live writers, for a few seconds at full budget: buckets compared, nothing found."""
    conn.execute(HURRY)
    conn.execute("UPDATE pymig.verification SET checked_at = '2024-01-01'")
    stop = threading.Event()
    worker = threading.Thread(target=keep_in_sync, args=(db.url, stop))
    worker.start()
    try:
        until = time.monotonic() + 3
        with psycopg.connect(db.url, autocommit=True) as writer:
            while time.monotonic() < until:
                writer.execute(
                    "UPDATE tenant.tbl_data_timeseries SET double_v = double_v + 1 WHERE created_time = '2024-01-01'::timestamp + (random() * 59)::int * interval '10 min'"
                )
                if time.monotonic() < until - 1.5:
                    writer.execute("UPDATE pymig.verification SET checked_at = '2024-01-01'")
    finally:
        stop.set()
        worker.join(20)
    assert _one(conn, "SELECT count(*) FROM pymig.event WHERE level = 'CRITICAL'") == 0
    assert _one(conn, "SELECT count(*) FROM pymig.verification WHERE checked_at > '2024-01-01'") > 0
    assert _one(conn, FAULT) is None
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, NARROW) == []
