"""The oracle against known answers, so that it may judge pymig.

It must agree where tables agree and complain about every single planted fault.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import (
    Fault,
    Narrow,
    OracleError,
    actual,
    default_narrow,
    difference,
    expected,
    fit,
    iso,
    micros,
    pivot,
    same,
)

TABLES = """
CREATE SCHEMA pymig;
CREATE TABLE pymig.channel_map (
    source text, entity text, channel text, wide_table text, wide_column text, column_type text);
CREATE TABLE pymig.entity (source text, entity text, state text);
CREATE TABLE pymig.quarantine (source text, entity text, channel text);
CREATE SCHEMA "Tenant 1";
CREATE TABLE "Tenant 1".narrow (
    id bigserial, ship_id text, data_channel_id text, created_time timestamp, bool_v bool,
    str_v text, long_v int8, double_v float8, value_format varchar(50));
CREATE TABLE "Tenant 1"."x_1" (created_time timestamp PRIMARY KEY, "a/b" text, s text);
CREATE TABLE "Tenant 1"."x_2" (created_time timestamp PRIMARY KEY, f float8, i int8, b bool);
INSERT INTO pymig.entity VALUES ('narrow', 'x', 'verified'), ('narrow', 'y', 'known');
INSERT INTO pymig.channel_map VALUES
    ('narrow', 'x', 'a/b', '"Tenant 1".x_1', 'a/b', 'text'),
    ('narrow', 'x', 's', '"Tenant 1".x_1', 's', 'text'),
    ('narrow', 'x', 'f', '"Tenant 1".x_2', 'f', 'double precision'),
    ('narrow', 'x', 'i', '"Tenant 1".x_2', 'i', 'bigint'),
    ('narrow', 'x', 'b', '"Tenant 1".x_2', 'b', 'boolean');
"""
ROWS = """
INSERT INTO "Tenant 1".narrow
    (ship_id, data_channel_id, created_time, bool_v, str_v, long_v, double_v, value_format) VALUES
    ('x', 'a/b', '2024-01-01 00:00', NULL, NULL, NULL, 0.1::float8 + 0.2, 'Decimal'),
    ('x', 's', '2024-01-01 00:00', NULL, '', NULL, NULL, 'String'),
    ('x', 'f', '2024-01-01 00:00', NULL, NULL, NULL, '-0', 'Decimal'),
    ('x', 'f', '-infinity', NULL, NULL, 9007199254740993, NULL, 'Integer'),
    ('x', 'f', 'infinity', NULL, NULL, 9007199254740992, NULL, 'Integer'),
    ('x', 'f', '4000-01-01 BC', NULL, NULL, NULL, 'NaN', 'Decimal'),
    ('x', 'i', '290000-01-01 00:00:00.5', NULL, NULL, -9223372036854775808, NULL, 'Integer'),
    ('x', 'i', '2024-01-01 00:00', NULL, NULL, NULL, 1.0, 'Decimal'),
    ('x', 'b', '2024-01-01 00:00', true, NULL, NULL, NULL, 'Boolean'),
    ('x', 'a/b', '2024-01-01 00:01', true, NULL, NULL, NULL, 'Boolean'),
    ('x', 's', '2024-01-01 00:02', NULL, NULL, 5, NULL, 'String'),
    ('x', 's', '2024-01-01 00:03', NULL, 'v', NULL, NULL, 'Strange'),
    ('x', 's', '2024-01-01 00:04', NULL, NULL, NULL, NULL, NULL),
    ('x', 's', '2024-01-01 00:05', NULL, NULL, NULL, NULL, 'Boolean'),
    -- duplicates: the latest id wins, also when it is a fault or a NULL
    ('x', 's', '2024-01-01 00:06', NULL, 'old', NULL, NULL, 'String'),
    ('x', 's', '2024-01-01 00:06', NULL, 'new', NULL, NULL, 'String'),
    ('x', 's', '2024-01-01 00:07', NULL, 'old', NULL, NULL, 'String'),
    ('x', 's', '2024-01-01 00:07', NULL, NULL, NULL, 1, 'String'),
    ('y', 's', '2024-01-01 00:00', NULL, 'not migrated', NULL, NULL, 'String');
"""
WIDE = """
INSERT INTO "Tenant 1".x_1 (created_time)
    SELECT unnest('{-infinity, infinity, 4000-01-01 BC, 290000-01-01 00:00:00.5}'::timestamp[])
    UNION ALL SELECT '2024-01-01'::timestamp + m * interval '1 minute' FROM generate_series(2, 5) m;
INSERT INTO "Tenant 1".x_1 VALUES
    ('2024-01-01 00:00', '0.30000000000000004', ''), ('2024-01-01 00:01', 'true', NULL),
    ('2024-01-01 00:06', NULL, 'new'), ('2024-01-01 00:07', NULL, NULL);
INSERT INTO "Tenant 1".x_2 (created_time, f, i, b) VALUES
    ('2024-01-01 00:00', '-0', NULL, true), ('-infinity', NULL, NULL, NULL),
    ('infinity', 9007199254740992, NULL, NULL), ('4000-01-01 BC', 'NaN', NULL, NULL),
    ('290000-01-01 00:00:00.5', NULL, -9223372036854775808, NULL);
INSERT INTO "Tenant 1".x_2 (created_time)
    SELECT '2024-01-01'::timestamp + m * interval '1 minute' FROM generate_series(1, 7) m;
INSERT INTO pymig.quarantine VALUES ('narrow', 'x', 'f'), ('narrow', 'x', 'i'),
    ('narrow', 'x', 's'), ('narrow', 'x', 's'), ('narrow', 'x', 's'), ('narrow', 'x', 's');
"""
TABLE = '"Tenant 1".narrow'
NARROW = default_narrow(TABLE, "narrow", tie_break=("id",))


@pytest.fixture
def conn(empty_db: Database) -> psycopg.Connection[Any]:
    connection = empty_db.connect()
    for script in (TABLES, ROWS, WIDE):
        connection.execute(script)
    return connection


def test_known_answers(conn: psycopg.Connection[Any]) -> None:
    cells = expected(conn, NARROW)["x"]
    assert len(cells) == 12
    first = cells["2024-01-01 00:00:00"]
    assert first == {"a/b": "0.30000000000000004", "s": "", "f": 0.0, "b": True}
    assert same(first["f"], -0.0)
    assert cells["-infinity"] == {} and cells["infinity"] == {"f": 9007199254740992.0}
    assert same(cells["4000-01-01 00:00:00 BC"]["f"], float("nan"))
    assert cells["290000-01-01 00:00:00.5"] == {"i": -(2**63)}
    assert cells["2024-01-01 00:01:00"] == {"a/b": "true"}
    for minute in (2, 3, 4, 5, 7):
        assert cells[f"2024-01-01 00:0{minute}:00"] == {}
    assert cells["2024-01-01 00:06:00"] == {"s": "new"}
    # f: 2^53+1; i: a Decimal; s: 00:02 other column, 00:03 format, 00:04 no format, 00:07 other
    types = {("x", "f"): "float8", ("x", "i"): "int8", ("x", "b"): "bool"}
    assert pivot(conn, NARROW, types).quarantined["x"] == {"f": 1, "i": 1, "s": 4}


def test_equal_tables_have_no_difference(conn: psycopg.Connection[Any]) -> None:
    assert difference(conn, NARROW) == []
    assert actual(conn, NARROW).problems == []


@pytest.mark.parametrize(
    "settings",
    [
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Kolkata'",
        "extra_float_digits = -5",
        "search_path = ''",
    ],
)
def test_session_settings_do_not_matter(conn: psycopg.Connection[Any], settings: str) -> None:
    conn.execute(f"SET {settings}")
    assert difference(conn, NARROW) == []


X1, X2 = '"Tenant 1".x_1', '"Tenant 1".x_2'


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (f"UPDATE {X1} SET s = NULL WHERE s = ''", "narrow '', wide None"),
        (f"UPDATE {X1} SET s = '' WHERE created_time = '2024-01-01 00:07'", "wide ''"),
        (f"UPDATE {X1} SET \"a/b\" = '0.3' WHERE s = ''", "wide '0.3'"),
        (f"UPDATE {X2} SET f = 0 WHERE f = 0", "narrow -0.0, wide 0.0"),
        (f"UPDATE {X2} SET f = 1 WHERE f = 'NaN'", "narrow nan, wide 1.0"),
        (f"UPDATE {X2} SET f = f + 2 WHERE f > 1 AND f < 'NaN'", "wide 9007199254740994.0"),
        (f"UPDATE {X2} SET b = false WHERE b", "narrow True, wide False"),
        (f"UPDATE {X2} SET i = i + 1", "narrow -9223372036854775808"),
        (f"DELETE FROM {X1} WHERE created_time = 'infinity'", "infinity that another part lacks"),
        (f"DELETE FROM {X2} WHERE created_time = 'infinity'", "no row at infinity"),
        (f"INSERT INTO {X1} VALUES ('2025-01-01')", "a wide row without any narrow row"),
        (f"DELETE FROM {TABLE} WHERE created_time = '2024-01-01 00:01'", "without any narrow"),
        (f"DELETE FROM {TABLE} WHERE str_v = 'new'", "narrow 'old', wide 'new'"),
        ("DELETE FROM pymig.quarantine WHERE channel = 'f'", "'f': 1 rows belong in quarantine"),
        ("INSERT INTO pymig.quarantine VALUES ('narrow', 'x', 'b')", "'b': 0 rows belong"),
        ("DELETE FROM pymig.channel_map WHERE channel = 'b'", "narrow 'true', wide None"),
        ("UPDATE pymig.entity SET state = 'verified'", "'y' 2024-01-01 00:00:00: no wide row"),
    ],
)
def test_every_fault_is_found(conn: psycopg.Connection[Any], fault: str, complaint: str) -> None:
    conn.execute(fault)
    lines = difference(conn, NARROW)
    assert any(complaint in line for line in lines), lines


def test_both_parts_lacking_a_time_is_found(conn: psycopg.Connection[Any]) -> None:
    for table in (X1, X2):
        conn.execute(f"DELETE FROM {table} WHERE created_time = 'infinity'")
    assert [line for line in difference(conn, NARROW) if "infinity: no wide row" in line]


def test_long_differences_are_cut(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        f"INSERT INTO {X1} SELECT '2030-01-01'::timestamp + i * interval '1 s'"
        " FROM generate_series(1, 100) i"
    )
    lines = difference(conn, NARROW)
    assert len(lines) == 51 and lines[-1].endswith("differences in all")


def test_duplicates_without_a_tie_break_are_refused(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(OracleError, match="no tie-break"):
        expected(conn, replace(NARROW, tie_break=()))


def test_null_tie_break_loses(conn: psycopg.Connection[Any]) -> None:
    conn.execute(f"ALTER TABLE {TABLE} ALTER COLUMN id DROP NOT NULL")
    conn.execute(f"UPDATE {TABLE} SET id = NULL WHERE str_v = 'new'")
    assert expected(conn, NARROW)["x"]["2024-01-01 00:06:00"] == {"s": "old"}


def test_null_keys(conn: psycopg.Connection[Any]) -> None:
    """A row without a channel still makes a wide row; one without a time makes none."""
    conn.execute(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, str_v, value_format)"
        " VALUES ('z', NULL, '2024-01-01', 'v', 'String'), ('z', 'c', NULL, 'v', 'String')"
    )
    found = pivot(conn, NARROW, {})
    assert found.cells["z"] == {"2024-01-01 00:00:00": {}}
    assert found.quarantined["z"] == {None: 1, "c": 1}


def test_other_names_grain_and_typed_columns(conn: psycopg.Connection[Any]) -> None:
    conn.execute("""
        CREATE TABLE bus (vessel uuid, sensor int, at timestamptz, seq int, n numeric, t text);
        INSERT INTO bus VALUES
            ('00000000-0000-0000-0000-000000000001', 7, '2024-01-01 00:00:00.1+00', 9, 1.50, NULL),
            ('00000000-0000-0000-0000-000000000001', 7, '2024-01-01 00:00:00.9+00', 1, 2.50, NULL),
            ('00000000-0000-0000-0000-000000000001', 7, '2024-01-01 00:00:00.9+00', 2, 2.500, NULL),
            ('00000000-0000-0000-0000-000000000001', 8, '2024-01-01 00:00:00.2+00', 1, 1, 'two'),
            ('00000000-0000-0000-0000-000000000001', 8, '1999-12-31 23:59:59.9+00', 1, NULL, 't'),
            ('00000000-0000-0000-0000-000000000001', 8, 'infinity', 1, NULL, NULL)""")
    narrow = Narrow(
        "bus",
        "bus",
        "vessel",
        "sensor",
        "at",
        ("n", "t"),
        tie_break=("seq",),
        time_grain=timedelta(seconds=1),
    )
    ship = "00000000-0000-0000-0000-000000000001"
    found = pivot(conn, narrow, {})
    assert found.cells == {
        ship: {
            "2024-01-01 00:00:00+00": {"7": "2.500"},
            "1999-12-31 23:59:59+00": {"8": "t"},
            "infinity": {},
        }
    }
    assert found.quarantined[ship] == {"8": 1}


def test_epoch_milliseconds_with_grain_and_one_text_column(conn: psycopg.Connection[Any]) -> None:
    conn.execute("""
        CREATE TABLE log (v int, c text, ms bigint, value jsonb);
        INSERT INTO log VALUES (1, 'a', -1, '"x"'), (1, 'a', -900, '1'), (1, 'a', 1999, NULL)""")
    narrow = Narrow(
        "log", "log", "v", "c", "ms", ("value",), time_unit="ms", time_grain=timedelta(seconds=1)
    )
    assert expected(conn, narrow) == {"1": {"-1000": {"a": '"x"'}, "1000": {}}}


def test_micros_and_iso_agree_with_postgresql(conn: psycopg.Connection[Any]) -> None:
    rng = random.Random(1)
    low, high = -210_866_803_200_000_000, 2**63 - 1  # 4714 BC .. 294247 AD
    sample = [rng.randint(low, high) for _ in range(500)]
    sample += [rng.randint(-70_000_000_000_000_000, -60_000_000_000_000_000) for _ in range(500)]
    conn.execute("SET TimeZone = 'UTC'")
    rows = conn.execute(
        "SELECT m, (timestamptz '1970-01-01+00' + m / 86400000000 * interval '1 day'"
        " + m %% 86400000000 * interval '1 microsecond')::text FROM unnest(%s::int8[]) m",
        [sample],
    ).fetchall()
    assert len(rows) == 1000
    for at, text in rows:
        assert micros(text) == at and iso(at, text) == text


@pytest.mark.parametrize(
    ("text", "value_type", "column_type", "cell"),
    [
        ("1e+300", "float8", "text", "1e+300"),
        ("9007199254740992", "int8", "float8", 9007199254740992.0),
        ("9007199254740993", "int8", "float8", Fault.MISFIT),
        ("-9223372036854775808", "int8", "float8", Fault.MISFIT),
        ("1", "float8", "int8", Fault.MISFIT),
        ("true", "bool", "int8", Fault.MISFIT),
        ("1.5", "text", "float8", Fault.MISFIT),
        ("true", "bool", "text", "true"),
        ("true", "bool", "bool", True),
        ("12", "int4", "int8", 12),
        ("1.10", "numeric", "numeric", "1.10"),
    ],
)
def test_fit(text: str, value_type: str, column_type: str, cell: object) -> None:
    assert same(fit(text, value_type, column_type), cell)


def test_same_is_identity() -> None:
    assert same(float("nan"), float("nan")) and not same(0.0, -0.0)
    assert not same(1, True) and not same(1, 1.0) and not same("", None) and same(None, None)
