"""Verification takes many buckets in one statement; what it records is what each has alone."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database

START: Final = datetime(2024, 1, 1)
HOURS: Final = 30
CREATE: LiteralString = """
CREATE TABLE n (ship text NOT NULL, ch text NOT NULL, ts timestamp NOT NULL, v float8, f text,
    PRIMARY KEY (ship, ch, ts));
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{v}', 'f', '{"D":"v"}',
    p_column_types => 'native')
"""
RESULTS: LiteralString = (
    "SELECT from_time, is_equal, cells, differences, digest FROM pymig.verification"
    " WHERE entity = %s ORDER BY bucket"
)
RUN: LiteralString = (
    "SELECT count(*) FROM pymig.source AS s CROSS JOIN LATERAL pymig._compare_buckets(s, 'X',"
    " (SELECT min(v.bucket) FROM pymig.verification AS v),"
    " (SELECT max(v.bucket) FROM pymig.verification AS v)) AS c"
)


def _rows() -> list[tuple[str, datetime, float | None, str]]:
    """A row each 10 minutes of c1; c2 each 25; c3 now and then NULL; bad rows in hour 7 and 40."""
    rows: list[tuple[str, datetime, float | None, str]] = []
    for minute in range(0, 60 * HOURS, 5):
        at = START + timedelta(minutes=minute)
        if minute % 10 == 0:
            rows.append(("c1", at, minute / 7, "D"))
        if minute % 25 == 0:
            rows.append(("c2", at, -0.0, "D"))
        if minute % 15 == 0:
            rows.append(("c3", at, None if minute % 45 == 0 else minute / 3, "D"))
    rows.append(("c1", START + timedelta(hours=7, minutes=1), 1.0, "bad"))
    rows.append(("c2", START + timedelta(hours=40), 1.0, "bad"))  # nothing else is in this hour
    return rows


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """Ship X with the rows as they come, Y with the same ones the other way round."""
    conn = db.connect()
    conn.execute(CREATE)
    for ship, rows in (("X", _rows()), ("Y", _rows()[::-1])):
        with conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO n VALUES (%s, %s, %s, %s, %s)", [(ship, *row) for row in rows]
            )
    conn.execute("ANALYZE n")
    conn.execute("CALL pymig.migrate('X'); ")
    conn.execute("CALL pymig.migrate('Y')")
    return conn


def test_what_is_recorded(conn: psycopg.Connection[Any]) -> None:
    """A row a bucket, with the cells a count in Python gives; few statements; any order of rows."""
    results = conn.execute(RESULTS, ["X"]).fetchall()
    hours = Counter(f"{at:%Y-%m-%d %H}" for _, at, v, f in _rows() if v is not None and f == "D")
    assert {row[0][:13]: row[2] for row in results if row[2]} == hours
    assert [row[0] for row in results if not row[2]] == ["2024-01-02 16:00:00"]
    assert len(results) == HOURS + 1
    assert all(row[1] and row[3] == 0 for row in results)
    statements = "SELECT count(DISTINCT xmin::text) FROM pymig.verification WHERE entity = 'X'"
    assert conn.execute(statements.encode()).fetchone() == (1,)
    assert conn.execute(RESULTS, ["Y"]).fetchall() == results


def test_alone_they_say_the_same(conn: psycopg.Connection[Any]) -> None:
    """Every bucket compared by itself: the same cells, the same digest."""
    together = conn.execute(RESULTS, ["X"]).fetchall()
    conn.execute(
        "SELECT pymig.verify_bucket('X', v.bucket)"
        " FROM (SELECT v.bucket FROM pymig.verification AS v WHERE v.entity = 'X') AS v"
    )
    assert conn.execute(RESULTS, ["X"]).fetchall() == together


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE n_x SET c1 = 5 WHERE ts = '2024-01-01 20:10'",
        "UPDATE n_x SET c2 = 0.0 WHERE ts = '2024-01-01 20:00'",
        "UPDATE n_x SET c1 = NULL WHERE ts = '2024-01-01 20:10'",
        "UPDATE n_x SET c3 = 1 WHERE ts = '2024-01-01 20:15'",
        "DELETE FROM n_x WHERE ts = '2024-01-01 20:10'",
        "DELETE FROM n_x WHERE ts >= '2024-01-01 20:00' AND ts < '2024-01-01 21:00'",
        "INSERT INTO n_x (ts) VALUES ('2024-01-01 20:01')",
        "UPDATE n_x SET c1 = 1 WHERE ts = '2024-01-02 16:00'",
        "DELETE FROM pymig.quarantine WHERE time LIKE '2024-01-01%%' AND entity = 'X'",
    ],
)
def test_one_wrong_among_many(conn: psycopg.Connection[Any], damage: LiteralString) -> None:
    """The bucket is named, the others are equal; repair touches that one alone."""
    before = conn.execute(RESULTS, ["X"]).fetchall()
    conn.execute(damage)
    with pytest.raises(psycopg.Error) as raised:
        conn.execute("CALL pymig.verify('X')")
    assert raised.value.sqlstate == "PM013"
    hours = {"quarantine": "2024-01-01 07:00:00", "2024-01-02": "2024-01-02 16:00:00"}
    hour = next((hours[part] for part in hours if part in damage), "2024-01-01 20:00:00")
    unequal = [row for row in conn.execute(RESULTS, ["X"]).fetchall() if not row[1]]
    assert [row[0] for row in unequal] == [hour]
    assert unequal[0][2] in [row[2] for row in before if row[0] == hour]  # the narrow side's cells
    conn.execute("CALL pymig.verify('X', p_repair => true)")
    repaired = "SELECT from_time FROM pymig.verification WHERE entity = 'X' AND repaired"
    assert conn.execute(repaired.encode()).fetchall() == [(hour,)]
    after = conn.execute(RESULTS, ["X"]).fetchall()
    assert [(row[0], row[1], row[2], row[4]) for row in after] == [
        (row[0], row[1], row[2], row[4]) for row in before
    ]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE {} SET ts = ts + interval '1 second' WHERE ts = '2024-01-01 01:20'",
        "DELETE FROM {} WHERE ts = '2024-01-01 02:40'",
        "INSERT INTO {} (ts) VALUES ('2024-01-01 02:01')",
    ],
)
@pytest.mark.parametrize("parts", [(1,), (2,), (1, 2)])
def test_rows_of_each_part(db: Database, damage: str, parts: tuple[int, ...]) -> None:
    """They are where the ship has samples; equal cells at other times are others."""
    conn = db.connect()
    conn.execute(CREATE)
    # At 2:40 it has a NULL and nothing else: a row in each part, with no cell.
    conn.execute(
        "INSERT INTO n"
        " SELECT 'X', 'c' || c, '2024-01-01'::timestamp + t * interval '20 min', c, 'D'"
        " FROM generate_series(1, 1100) AS c, generate_series(0, 7) AS t"
        " UNION ALL SELECT 'X', 'c1', '2024-01-01 02:40', NULL, 'D'"
    )
    conn.execute("ANALYZE n")
    conn.execute("CALL pymig.migrate('X')")
    tables = conn.execute("SELECT p.wide_table FROM pymig.part AS p ORDER BY p.part").fetchall()
    assert len(tables) == 2
    for part in parts:
        conn.execute(damage.format(*tables[part - 1]).encode())
    with pytest.raises(psycopg.Error) as raised:
        conn.execute("CALL pymig.verify('X')")
    assert raised.value.sqlstate == "PM013"
    unequal = [row[0] for row in conn.execute(RESULTS, ["X"]).fetchall() if not row[1]]
    assert unequal == [f"2024-01-01 0{1 if 'UPDATE' in damage else 2}:00:00"]
    conn.execute("CALL pymig.verify('X', p_repair => true)")


def test_pending_keys_end_a_run(conn: psycopg.Connection[Any]) -> None:
    """Their bucket is looked at alone, which counts what the narrow side has."""
    assert conn.execute(RUN).fetchone() == (HOURS + 1,)
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-01-01 03:03', 1, 'D')")
    assert conn.execute(RUN).fetchone() == (0,)
    conn.execute("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    assert conn.execute(RUN).fetchone() == (0,)
    conn.execute("CALL pymig.sync_pending()")
    assert conn.execute(RUN).fetchone() == (HOURS + 1,)


def test_a_digest_is_of_the_times_too(conn: psycopg.Connection[Any]) -> None:
    """The same cells a second later are another content."""
    conn.execute(
        "UPDATE n SET ts = ts + interval '1 second' WHERE ship = 'Y' AND ts = '2024-01-01 05:00'"
    )
    conn.execute("CALL pymig.verify('Y')")
    of_both = zip(*(conn.execute(RESULTS, [ship]).fetchall() for ship in "XY"), strict=True)
    assert [x[0] for x, y in of_both if x != y] == ["2024-01-01 05:00:00"]
