"""Every strategy gives the same wide tables, of sparse rows in several parts too.

Each time has a few of 1,100 channels, and one has a single one: the part without it has its row all
the same. Rows come once by a unique key, or several times under an index that is not unique,
where the latest one counts. Rows have every format that their channel's column is not of, too.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import SKIPS, Database
from tests.oracle import Narrow, difference

STRATEGIES: Final = ("transpose", "json", "crosstab", "filter")
CHANNELS: Final = 1100
"""More than one part can hold."""
CREATE: LiteralString = """
CREATE EXTENSION IF NOT EXISTS tablefunc;
CREATE TABLE n (id bigserial, ship text NOT NULL, ch text NOT NULL, ts timestamp NOT NULL,
    f float8, s text, fmt text);
-- Every channel once, one of them once more; a NULL, a format nobody knows.
INSERT INTO n (ship, ch, ts, f, s, fmt)
SELECT 'X', format('c%%s', c), '2024-01-01'::timestamp + c %% 40 * interval '15 s',
    CASE WHEN c %% 7 > 0 THEN c / 3.0 END, CASE WHEN c %% 7 = 0 THEN 't' || c END,
    CASE WHEN c %% 7 > 0 THEN 'f' ELSE 's' END
FROM generate_series(1, %s) AS c;
INSERT INTO n (ship, ch, ts, f, fmt) VALUES ('X', 'c1', '2024-01-01 00:50:00', 1.5, 'f');
INSERT INTO n (ship, ch, ts, fmt) VALUES ('X', 'c1', '2024-01-01 00:00:00', 'f'),
    ('X', 'c2', '2024-01-01 00:00:00', 'nonsense'), ('Y', 'c1', '2024-01-01 00:00:00', 'f');
"""
UNIQUE: LiteralString = "ALTER TABLE n ADD PRIMARY KEY (ship, ch, ts)"
REPEATED: LiteralString = """
CREATE INDEX ON n (ship, ch, ts);
INSERT INTO n (ship, ch, ts, f, s, fmt)
SELECT n.ship, n.ch, n.ts, -n.f, n.s || '!', n.fmt FROM n WHERE n.ship = 'X'
"""
REGISTER: LiteralString = """
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{f,s}', 'fmt', '{"f":"f","s":"s"}',
    p_tie_break => '{id}', p_column_types => 'native')
"""
NARROW: Final = Narrow(
    "n",
    "n",
    "ship",
    "ch",
    "ts",
    ("f", "s"),
    format_column="fmt",
    formats={"f": "f", "s": "s"},
    tie_break=("id",),
)


def _migrated(db: Database, key: LiteralString, strategy: str) -> psycopg.Connection[Any]:
    conn = db.connect()
    conn.execute((CREATE % CHANNELS).encode())
    for statement in key.split(";\n"):
        conn.execute(statement)
    conn.execute(REGISTER)
    conn.execute("CALL pymig.migrate('X', p_strategy => %s)", [strategy])
    return conn


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("key", [UNIQUE, REPEATED], ids=["unique", "repeated"])
def test_sparse_rows_in_two_parts(db: Database, key: LiteralString, strategy: str) -> None:
    conn = _migrated(db, key, strategy)
    assert difference(conn, NARROW, {"X"}) == []
    tables = [
        t for (t,) in conn.execute("SELECT p.wide_table FROM pymig.part AS p ORDER BY p.part")
    ]
    assert len(tables) == 2
    counts = conn.execute(
        f"SELECT (SELECT count(*) FROM {tables[0]}), (SELECT count(*) FROM {tables[1]})"
    )
    assert counts.fetchone() == (41, 41)
    used = conn.execute("SELECT DISTINCT c.strategy FROM pymig.chunk AS c WHERE c.narrow_rows > 0")
    assert used.fetchall() == [(strategy,)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unknown_channel_is_told(db: Database, strategy: str) -> None:
    """A row that no trigger has seen, of a channel without a column: refused, not passed over."""
    conn = _migrated(db, UNIQUE, strategy)
    conn.execute("SET session_replication_role = replica")
    conn.execute("INSERT INTO n (ship, ch, ts, f, fmt) VALUES ('X', 'new', '2024-01-01', 1, 'f')")
    with pytest.raises(
        psycopg.DatabaseError, match="'X' has a channel without a column: 'new'"
    ) as e:
        conn.execute(RECOMPUTE, [strategy])
    assert e.value.sqlstate == "PM009"


@pytest.mark.parametrize("skips", [True, False], ids=["skipped", "listed"])
def test_channels_are_skipped_or_listed(db: Database, skips: bool) -> None:
    """The same cells either way, and an unknown channel is told by backfill and verify."""
    conn = db.connect()
    conn.execute(SKIPS.format(skips).encode())
    conn = _migrated(db, UNIQUE, "transpose")
    assert difference(conn, NARROW, {"X"}) == []
    assert conn.execute(
        "SELECT e.state FROM pymig.entity AS e WHERE e.entity = 'X'"
    ).fetchone() == ("verified",)
    conn.execute("ALTER TABLE n DISABLE TRIGGER USER")
    conn.execute("INSERT INTO n (ship, ch, ts, f, fmt) VALUES ('X', 'new', '2024-01-01', 1, 'f')")
    with pytest.raises(psycopg.DatabaseError, match="a channel without a column: 'new'"):
        conn.execute(RECOMPUTE, ["transpose"])
    verified = conn.execute(
        "SELECT v.is_equal, v.sample FROM pymig.source AS s, pymig.verify_bucket('X',"
        " pymig.bucket_of(pymig.tick_of(timestamp '2024-01-01'), s.bucket_ticks)) AS v"
    ).fetchone()
    assert verified
    assert not verified[0] and ("new", "no column") in [
        (found["channel"], found["wide_value"]) for found in verified[1]
    ]


MIXED: LiteralString = """
CREATE EXTENSION IF NOT EXISTS tablefunc;
CREATE TABLE n (ship text NOT NULL, ch text NOT NULL, ts timestamp NOT NULL,
    f float8, i bigint, s text, b bool, fmt text, PRIMARY KEY (ship, ch, ts));
-- Of each channel 40 rows of its own format; c0 to c4 are float8, the commonest type.
INSERT INTO n
SELECT 'X', ch, '2024-01-01'::timestamp + t * interval '15 s', CASE WHEN k = 'f' THEN t / 3.0 END,
    CASE WHEN k = 'i' THEN t * 7 END, CASE WHEN k = 's' THEN 's' || t END,
    CASE WHEN k = 'b' THEN t % 3 = 0 END, k
FROM (SELECT 'c' || c AS ch, 'f' AS k FROM generate_series(0, 4) AS c
      UNION ALL SELECT k || c, k FROM unnest('{i,s,b}'::text[]) AS k, generate_series(1, 4) AS c
      ) AS c, generate_series(0, 39) AS t;
-- One that had three formats from the start is text.
INSERT INTO n SELECT 'X', 's5', '2024-01-01'::timestamp + t * interval '15 s',
    CASE t % 3 WHEN 0 THEN t / 3.0 END, CASE t % 3 WHEN 1 THEN t END,
    CASE t % 3 WHEN 2 THEN 's' END, NULL, substr('fis', t % 3 + 1, 1)
FROM generate_series(0, 39) AS t;
"""
REGISTER_MIXED: LiteralString = """
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{f,i,s,b}', 'fmt',
    '{"f":"f","i":"i","s":"s","b":"b"}', p_column_types => 'native')
"""
ODD: LiteralString = """
-- i1, s1, b1 stay as they are. NULLs in all columns; values in two columns; in another column.
UPDATE n SET f = NULL, i = NULL, s = NULL, b = NULL WHERE ch ~ '[0-9]2' AND ts::text LIKE '%:30';
UPDATE n SET f = 0.5 WHERE ch ~ '[isb]3' AND ts::text LIKE '%:15';
UPDATE n SET f = NULL, i = 1, s = NULL, b = NULL WHERE ch ~ '[csb]4' AND ts::text LIKE '%:45';
-- Other formats than the column's, and no known one.
UPDATE n SET f = 2.5, i = NULL, s = NULL, b = NULL, fmt = 'f'
WHERE ch ~ '[isb]4' AND ts::text LIKE '%:00';
UPDATE n SET i = 9007199254740993, f = NULL, fmt = 'i' WHERE ch = 'c1' AND ts::text LIKE '%:00';
UPDATE n SET fmt = 'nonsense' WHERE ch ~ '[cisb]3' AND ts::text LIKE '%:45';
UPDATE n SET i = 5, f = NULL, fmt = 'i' WHERE ch = 'c2' AND ts::text LIKE '%:15';
DELETE FROM n WHERE ch ~ '[cisb]4' AND ts = '2024-01-01 00:02:15';
"""
NULLS: LiteralString = """
UPDATE n SET f = NULL, i = NULL, s = NULL, b = NULL WHERE ch ~ '[cisb]2' AND ts::text LIKE '%:30'
"""
RECOMPUTE: LiteralString = """
SELECT pymig._recompute(s, 'X', %s, c.first_bucket, c.last_bucket, NULL)
FROM pymig.source AS s, pymig.chunk AS c WHERE c.narrow_rows > 0
"""
NARROW_MIXED: Final = Narrow(
    "n",
    "n",
    "ship",
    "ch",
    "ts",
    ("f", "i", "s", "b"),
    format_column="fmt",
    formats={"f": "f", "i": "i", "s": "s", "b": "b"},
)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_formats_that_a_column_is_not_of(db: Database, strategy: str) -> None:
    conn = db.connect()
    conn.execute(MIXED)
    conn.execute(REGISTER_MIXED)
    conn.execute("CALL pymig.migrate('X')")
    types = dict(conn.execute("SELECT c.channel, c.column_type FROM pymig.channel AS c").fetchall())
    assert [types[ch] for ch in ("c1", "i1", "s1", "b1", "s5")] == [
        "float8",
        "int8",
        "text",
        "bool",
        "text",
    ]
    assert difference(conn, NARROW_MIXED, {"X"}) == []
    conn.execute("SET session_replication_role = replica")  # no trigger repairs what follows
    conn.execute(ODD)
    assert difference(conn, NARROW_MIXED, {"X"}) != []
    conn.execute(RECOMPUTE, [strategy])
    assert difference(conn, NARROW_MIXED, {"X"}) == []
    verified = conn.execute(
        "SELECT bool_and(v.is_equal) FROM pymig.chunk AS c,"
        " pymig.verify_bucket('X', c.first_bucket) AS v WHERE c.narrow_rows > 0"
    )
    assert verified.fetchone() == (True,)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("key", ["ship, ch, ts", "ship, ts, ch"], ids=["by key", "by time"])
def test_nulls_alone_are_no_reason_to_look_for_bad_rows(
    db: Database, key: LiteralString, strategy: str
) -> None:
    """To look at rows one by one takes longer than to move them."""
    conn = db.connect()
    conn.execute(MIXED.replace("(ship, ch, ts)", f"({key})").encode())
    conn.execute(NULLS)
    conn.execute(REGISTER_MIXED)
    conn.execute("CALL pymig.migrate('X', p_allow_scan => true)")
    assert conn.execute("SELECT s.reads_by_key FROM pymig.source AS s").fetchone() == (
        key.startswith("ship, ch"),
    )
    conn.execute("ALTER FUNCTION pymig._quarantine_rows RENAME TO _find_nothing")
    conn.execute(RECOMPUTE, [strategy])
    assert difference(conn, NARROW_MIXED, {"X"}) == []
    conn.execute("SET session_replication_role = replica")
    conn.execute("UPDATE n SET fmt = 'nonsense' WHERE ch = 'i2' AND ts = '2024-01-01 00:00:30'")
    with pytest.raises(psycopg.errors.UndefinedFunction, match="_quarantine_rows"):
        conn.execute(RECOMPUTE, [strategy])
