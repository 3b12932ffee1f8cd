"""How a history is dealt into chunks: equal shares at the end, and small trials of strategies."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import Narrow, difference
from tests.waiting import until

# A bucket is an hour and has one sample: a chunk is 64 of them, the most it may be.
CREATE: LiteralString = """
CREATE EXTENSION IF NOT EXISTS tablefunc;
CREATE TABLE n (ship text, ch text, ts timestamp, v float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT 'X', 'c' || c, '2024-01-01'::timestamp + h * interval '1 hour', c + h / 7.0
FROM generate_series(1, 17) AS c, generate_series(0, %s - 1) AS h;
ANALYZE n;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{v}');
CALL pymig.start_sync('X');
"""
NARROW: Final = Narrow("n", "n", "ship", "ch", "ts", ("v",))
CHUNKS: LiteralString = """
SELECT c.strategy, c.last_bucket - c.first_bucket + 1, c.first_bucket
FROM pymig.chunk AS c ORDER BY c.first_bucket
"""
WAITING: LiteralString = """
SELECT count(*) FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.wait_event_type = 'Lock'
"""
BROKEN_JSON: LiteralString = """
CREATE OR REPLACE FUNCTION pymig._insert_record_sql(
    p_source pymig.source, p_wide_table text, p_part int)
RETURNS text LANGUAGE sql AS $$ SELECT 'SELECT FROM generate_series(1, 1 / 0)' $$
"""


def _prepared(db: Database, hours: int) -> psycopg.Connection[Any]:
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute((statement % hours if "%s" in statement else statement).encode())
    return conn


def _step(conn: psycopg.Connection[Any], workers: int = 1) -> str:
    query = "SELECT b.outcome FROM pymig.backfill_chunk('X', p_workers => %s) AS b"
    found = conn.execute(query, [workers]).fetchone()
    assert found
    return str(found[0])


@pytest.mark.parametrize(
    ("workers", "sizes"),
    [(1, [64, 36]), (2, [50, 50]), (3, [33, 33, 34]), (0, [64, 36]), (1000, [1, 1, 1, 1])],
)
def test_last_chunks_are_equal_shares(db: Database, workers: int, sizes: list[int]) -> None:
    """So that no worker waits for another at the end; more are dealt when these are taken."""
    conn = _prepared(db, 100)
    assert _step(conn, workers) == "dealt"
    assert [size for _, size, _ in conn.execute(CHUNKS)] == sizes


def test_whoever_waits_for_a_deal_goes_on_at_once(db: Database) -> None:
    """Two workers begin together: the second has a chunk when the first has dealt them."""
    one, two = _prepared(db, 100), db.connect()
    with ThreadPoolExecutor() as pool:
        with one.transaction():
            assert _step(one, 2) == "dealt"
            waiting = pool.submit(_step, two, 2)
            until(lambda: db.connect().execute(WAITING).fetchone() == (1,), "nobody waits")
        assert waiting.result() == "dealt"
    assert _step(two, 2) == "moved"


def test_shares_are_of_rows(db: Database) -> None:
    """The last hour has ten minutes: two workers take two hours, and two with what is left."""
    conn = _prepared(db, 1)
    conn.execute("CALL pymig.roll_back('X')")
    conn.execute("DELETE FROM n")
    conn.execute(
        "INSERT INTO n SELECT 'X', 'c' || c, '2025-01-01'::timestamp + t * interval '1 min', t "
        "FROM generate_series(1, 20) AS c, generate_series(0, 249) AS t"
    )
    conn.execute("ANALYZE n")
    conn.execute("CALL pymig.start_sync('X')")
    assert _step(conn, 2) == "dealt"
    assert [size for _, size, _ in conn.execute(CHUNKS)] == [2, 3]


def test_trial_takes_an_eighth_of_a_chunk(db: Database) -> None:
    """After four chunks each other strategy has its try, and what it left undone goes on."""
    conn = _prepared(db, 7 * 64)
    while (outcome := _step(conn)) != "done":
        assert outcome in ("dealt", "moved")
    chunks = conn.execute(CHUNKS).fetchall()
    sizes = [(strategy, size) for strategy, size, _ in chunks]
    assert sizes[:4] == [("transpose", 64)] * 4
    assert sizes[4:6] == [("json", 8), ("crosstab", 7)]
    assert sizes[6][1] == 49
    for (_, size, first), (_, _, after) in pairwise(chunks):
        assert first + size == after
    assert sum(size for _, size in sizes) == 7 * 64
    conn.execute("CALL pymig.verify('X')")
    assert difference(conn, NARROW) == []


def test_sparse_rows_have_their_trials_after_one_chunk(db: Database) -> None:
    """Where a time has a few of the channels, the first strategy may be the slowest by far."""
    conn = _prepared(db, 4 * 64)
    conn.execute("CALL pymig.roll_back('X')")
    conn.execute(
        "DELETE FROM n WHERE (extract(epoch FROM ts) / 3600)::int % 17 + 1 <> substr(ch, 2)::int"
    )
    conn.execute("ANALYZE n")
    conn.execute("CALL pymig.start_sync('X')")
    while _step(conn) != "done":
        pass
    strategies = [strategy for strategy, _, _ in conn.execute(CHUNKS)]
    assert strategies[:3] == ["transpose", "json", "crosstab"]
    conn.execute("CALL pymig.verify('X')")
    assert difference(conn, NARROW) == []


def test_trial_that_fails_leaves_the_chunk_whole(db: Database) -> None:
    """What is halved after a failure is what was there before the trial."""
    conn = _prepared(db, 7 * 64)
    for _ in range(5):
        _step(conn)  # dealt, then four chunks
    assert _step(conn) == "dealt"
    conn.execute(BROKEN_JSON)
    assert _step(conn) == "retry"
    planned = (
        "SELECT c.last_bucket - c.first_bucket + 1 FROM pymig.chunk AS c WHERE c.state = 'planned'"
    )
    sizes = [size for (size,) in conn.execute(planned + " ORDER BY c.first_bucket")]
    assert sizes[:2] == [32, 32]
    assert sum(sizes) == 3 * 64


def test_a_dense_stretch_after_a_gap(db: Database) -> None:
    """Dealt by the whole range it would be one chunk; the planner knows better where rows are."""
    conn = _prepared(db, 1)
    conn.execute("CALL pymig.roll_back('X')")
    conn.execute(
        "INSERT INTO n SELECT 'X', 'c' || c, '2025-01-01'::timestamp + t * interval '10 s', t "
        "FROM generate_series(1, 20) AS c, generate_series(0, 10 * 360 - 1) AS t"
    )
    conn.execute("ANALYZE n")
    conn.execute("CALL pymig.set_chunk_target('20 ms', 'X')")  # 20,000 rows, as nothing is measured
    conn.execute("CALL pymig.start_sync('X')")
    while _step(conn) != "moved":
        pass
    first = conn.execute("SELECT narrow_rows FROM pymig.chunk WHERE state = 'done'").fetchone()
    assert first == (17,)
    while _step(conn) != "moved":
        pass
    rows = "SELECT max(narrow_rows) FROM pymig.chunk WHERE state = 'done'"
    assert conn.execute(rows).fetchone() < (40_000,)  # type: ignore[operator]
    conn.execute("CALL pymig.set_chunk_target('1 s', 'X')")
    conn.execute("CALL pymig.migrate('X')")
    assert difference(conn, NARROW) == []


@pytest.mark.parametrize(
    "statement", ["CALL pymig.roll_back('X')", "CALL pymig.start_sync('X')"], ids=["gone", "again"]
)
def test_who_changes_a_ship_waits_for_no_chunk(db: Database, statement: LiteralString) -> None:
    """A session that has claimed a chunk waits for the ship: both would wait, and one be ended."""
    conn, changer, mover = _prepared(db, 100), db.connect(), db.connect()
    _step(conn)
    # It looks for a deadlock once, while the other has the ship.
    mover.execute("SET deadlock_timeout = '300ms'")
    # The chunk is cut: the row of the rest locks the ship's.
    step = "SELECT b.outcome FROM pymig.backfill_chunk('X', p_target => '0.1 ms') AS b"
    with ThreadPoolExecutor() as pool:
        with conn.transaction():
            conn.execute("SELECT pymig._lock_entity('n', 'X', false)")
            changing = pool.submit(changer.execute, statement)
            until(lambda: db.connect().execute(WAITING).fetchone() == (1,), "nobody waits")
            moving = pool.submit(mover.execute, step)
            until(lambda: db.connect().execute(WAITING).fetchone() == (2,), "only one waits")
            time.sleep(0.2)
        assert moving.result().fetchall() == [("moved",)]
        changing.result()
