"""Statistics, autovacuum's settings and indexes of wide tables, while sync goes on."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest

from tests.command import run
from tests.conftest import Database
from tests.oracle import Narrow, difference

# 1,700 channels: two parts.
CREATE: LiteralString = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT 'X', 'c' || c, '2024-01-01'::timestamp + t * interval '1 min', t
FROM generate_series(1, 1700) AS c, generate_series(1, 20) AS t;
ANALYZE n;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}', p_column_types => 'native');
"""
NARROW = Narrow("n", "n", "ship", "ch", "ts", ("d",))
PARTS: LiteralString = "SELECT 'public.' || wide_table FROM pymig.part ORDER BY part"
INDEXES: LiteralString = """
SELECT c.relname, a.attname, i.indisvalid FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
JOIN pymig.part AS p ON i.indrelid = ('public.' || p.wide_table)::regclass
WHERE NOT i.indisprimary ORDER BY 2
"""


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """A ship of two parts, migrated."""
    conn = db.connect()
    conn.execute(CREATE)
    conn.execute("CALL pymig.migrate('X', p_strategy => 'transpose')")
    return conn


def _statements(
    conn: psycopg.Connection[Any], channels: list[str] | None, *, covering: bool = False
) -> list[str]:
    rows = conn.execute(
        "SELECT * FROM pymig.index_statements('X', %s, p_covering => %s)", [channels, covering]
    )
    return [row[0] for row in rows]


def _names(conn: psycopg.Connection[Any], query: LiteralString) -> list[Any]:
    return conn.execute(query).fetchall()


def test_every_part_is_analyzed_and_set(conn: psycopg.Connection[Any]) -> None:
    """All columns have statistics, and autovacuum comes after a hundredth of growth."""
    for _ in range(2):
        conn.execute("CALL pymig.tune_wide('X')")
    parts = [name for (name,) in _names(conn, PARTS)]
    assert len(parts) == 2
    for part in parts:
        row = conn.execute(
            "SELECT c.reltuples, 'autovacuum_vacuum_insert_scale_factor=0.01' = ANY (c.reloptions),"
            " 'autovacuum_analyze_scale_factor=0.01' = ANY (c.reloptions),"
            " 'toast_tuple_target=8160' = ANY (c.reloptions)"
            " FROM pg_class AS c WHERE c.oid = %s::regclass",
            [part],
        ).fetchone()
        assert row == (20, True, True, True)
    columns = conn.execute("SELECT count(*) FROM pg_stats WHERE tablename LIKE 'n_x%'").fetchone()
    assert columns == (1702,)
    assert conn.execute("SELECT count(*) FROM pymig.event WHERE what = 'tuned'").fetchone() == (2,)


def test_nobody_waits_for_it(conn: psycopg.Connection[Any], db: Database) -> None:
    """A reader and a writer in open transactions don't hold it up, nor it them."""
    with db.connect(autocommit=False) as other:
        other.execute("SELECT count(*) FROM n_x")
        other.execute("INSERT INTO n VALUES ('X', 'c1', '2025-01-01', 1)")
        conn.execute("SET lock_timeout = '1 s'")
        conn.execute("CALL pymig.tune_wide('X')")
        other.rollback()


def test_without_a_wide_table(conn: psycopg.Connection[Any]) -> None:
    """A ship that is not migrated is refused."""
    conn.execute("CALL pymig.roll_back('X')")
    with pytest.raises(psycopg.Error) as error:
        conn.execute("CALL pymig.tune_wide('X')")
    assert error.value.sqlstate == "PM004"


def test_indexes_on_channels(conn: psycopg.Connection[Any]) -> None:
    """One in each part, made while sync goes on; the second time nothing is done."""
    for _ in range(2):
        for statement in _statements(conn, ["c1700", "c1"]):
            conn.execute(statement)
        found = _names(conn, INDEXES)
        assert [(column, valid) for _, column, valid in found] == [("c1", True), ("c1700", True)]
    conn.execute("UPDATE n SET d = -1 WHERE ch IN ('c1', 'c1700') AND ts < '2024-01-01 00:09'")
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, NARROW, {"X"}) == []
    conn.execute("CALL pymig.roll_back('X')")
    for name, _, _ in found:
        assert conn.execute("SELECT to_regclass(%s)", [name]).fetchone() == (None,)


def test_what_a_broken_off_attempt_left_is_replaced(conn: psycopg.Connection[Any]) -> None:
    """An invalid index is dropped first: IF NOT EXISTS would leave it."""
    (statement,) = _statements(conn, ["c1"])
    conn.execute(statement)
    conn.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
        [_names(conn, INDEXES)[0][0]],
    )
    statements = _statements(conn, ["c1"])
    assert [s.split()[0] for s in statements] == ["DROP", "CREATE"]
    for statement in statements:
        conn.execute(statement)
    assert [valid for _, _, valid in _names(conn, INDEXES)] == [True]


def test_key_indexes_are_rebuilt(conn: psycopg.Connection[Any]) -> None:
    """Without channels it is REINDEX, of every part."""
    before = _key_files(conn)
    for statement in _statements(conn, None):
        conn.execute(statement)
    assert len(before) == 2
    assert before.isdisjoint(_key_files(conn))


def test_series_from_the_index_alone(conn: psycopg.Connection[Any]) -> None:
    """One covering index a part; a series of its channels needs no wide row; sync goes on."""
    statements = _statements(conn, ["c999", "c2", "c1"], covering=True)
    assert len(statements) == 2
    for statement in statements:
        conn.execute(statement)
    found = conn.execute(
        "SELECT array_agg(a.attname::text) FROM pg_index AS i"
        " JOIN pg_attribute AS a ON a.attrelid = i.indexrelid"
        " JOIN pymig.part AS p ON i.indrelid = ('public.' || p.wide_table)::regclass"
        " WHERE NOT i.indisprimary GROUP BY p.part ORDER BY p.part"
    ).fetchall()
    assert [set(row[0]) for row in found] == [{"ts", "c1", "c2"}, {"ts", "c999"}]
    conn.execute("VACUUM n_x_1")
    conn.execute("SET enable_seqscan = off")
    plan = conn.execute("EXPLAIN SELECT ts, c1, c2 FROM n_x WHERE ts >= '2024-01-01'").fetchall()
    assert "Index Only Scan" in plan[0][0]
    conn.execute("UPDATE n SET d = -1 WHERE ch IN ('c1', 'c999') AND ts < '2024-01-01 00:09'")
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, NARROW, {"X"}) == []
    for statement in _statements(conn, ["c999", "c2", "c1"], covering=True):
        conn.execute(statement)  # there already


def test_what_no_index_can_cover(conn: psycopg.Connection[Any]) -> None:
    """More than 31 channels of a part; text, whose longest value could not be written any more."""
    first = "SELECT channel FROM pymig.channel WHERE part = 1 LIMIT 32"
    channels = [name for (name,) in conn.execute(first)]
    with pytest.raises(psycopg.Error, match="room for 31 channels") as error:
        _statements(conn, channels, covering=True)
    assert error.value.sqlstate == "PM007"
    assert len(_statements(conn, channels[1:], covering=True)) == 1
    conn.execute("CALL pymig.roll_back('X')")
    conn.execute("CALL pymig.migrate('X', p_column_types => 'text')")
    with pytest.raises(psycopg.Error, match="can't hold 'c1'") as error:
        _statements(conn, ["c1"], covering=True)
    assert error.value.sqlstate == "PM007"


def test_unknown_channel(conn: psycopg.Connection[Any]) -> None:
    """It is named."""
    with pytest.raises(psycopg.Error, match="no channel 'nowhere'") as error:
        _statements(conn, ["c1", "nowhere"])
    assert error.value.sqlstate == "PM007"


def test_command_line(conn: psycopg.Connection[Any], db: Database) -> None:
    """It refuses a channel that is not there before it does anything; else it does all of it."""
    tune = ("tune", "--ship", "X", "--cover", "c2", "--index")
    done = run((*tune, "nowhere"), {"DATABASE_URL": db.url})
    assert (done.code, done.out) == (2, "")
    assert "no channel 'nowhere'" in done.err
    tuned = "SELECT count(*) FROM pymig.event WHERE what = 'tuned'"
    assert conn.execute(tuned).fetchone() == (0,)
    done = run((*tune, "c1"), {"DATABASE_URL": db.url})
    assert (done.code, done.err) == (0, "")
    assert conn.execute(tuned).fetchone() == (1,)
    assert [column for _, column, valid in conn.execute(INDEXES) if valid] == ["c1", "ts"]


def _key_files(conn: psycopg.Connection[Any]) -> set[Any]:
    return set(
        _names(
            conn,
            "SELECT pg_relation_filenode(i.indexrelid) FROM pg_index AS i JOIN pymig.part AS p"
            " ON i.indrelid = ('public.' || p.wide_table)::regclass WHERE i.indisprimary",
        )
    )
