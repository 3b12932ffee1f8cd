"""How a chunk's rows are found: by the key alone, and no more of it than the chunk needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database

#: As of array_plan_settings() in sql/macros.sql.j2, what decides which index is read.
SETTINGS: LiteralString = """
SET enable_seqscan = off; SET enable_indexscan = off; SET enable_nestloop = off; SET enable_sort = off;
SET pymig.writes_wide = 'on'
"""  # noqa: E501
OTHERS: Final[dict[str, LiteralString]] = {
    "n_ship": "CREATE INDEX n_ship ON n (ship)",
    "n_ts": "CREATE INDEX n_ts ON n (ts)",
    "n_brin": "CREATE INDEX n_brin ON n USING brin (ts)",
}


def _started(db: Database, ships: int, channels: int, times: int) -> psycopg.Connection[Any]:
    """So many ships with so many channels of their own at so many times; ship1 is started."""
    conn = db.connect()
    conn.execute(
        """CREATE TABLE n (ship text NOT NULL, ch text NOT NULL, ts timestamp NOT NULL, f float8,
               PRIMARY KEY (ship, ch, ts)) WITH (autovacuum_enabled = off)"""
    )
    conn.execute(
        "INSERT INTO n SELECT 'ship' || s, s || '/' || c,"
        " '2024-01-01'::timestamp + t * interval '15 s', t"
        " FROM generate_series(1, %s) AS t, generate_series(1, %s) AS s,"
        " generate_series(1, %s) AS c",
        [times, ships, channels],
    )
    conn.execute("ALTER TABLE n ALTER ch SET (n_distinct = 800000)")  # of 256 ships, ANALYZE says
    conn.execute("CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{f}')")
    conn.execute("CALL pymig.start_sync('ship1')")
    return conn


def _scans(conn: psycopg.Connection[Any], hour: str) -> list[dict[str, Any]]:
    """What reads an index while a bucket of ship1 is moved."""
    statement = conn.execute(
        "SELECT pymig._recompute_by_arrays_sql(s, 'ship1',"
        " pymig._time_condition(s, 'n.raw_time', b.b, b.b), true) FROM pymig.source AS s,"
        " pymig.bucket_of(pymig.tick_of(%s::timestamp), s.bucket_ticks) AS b (b)",
        [hour],
    ).fetchone()
    assert statement
    conn.execute(SETTINGS)
    plan = conn.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement[0]}".encode()
    ).fetchone()
    assert plan
    return [node for node in _nodes(plan[0][0]["Plan"]) if "Index Name" in node]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def test_a_chunk_reads_its_part_of_the_key(db: Database) -> None:
    """A condition on ship and time alone would read all of the ship before PostgreSQL 18."""
    conn = _started(db, ships=1, channels=5, times=40_000)
    conn.execute("ANALYZE n")
    key = [scan for scan in _scans(conn, "2024-01-01 20:00") if scan["Index Name"] == "n_pkey"]
    assert max(scan["Actual Rows"] for scan in key) == 5 * 240
    pages = max(scan["Shared Hit Blocks"] + scan["Shared Read Blocks"] for scan in key)
    size = conn.execute("SELECT pg_relation_size('n_pkey') / 8192").fetchone()
    assert size and pages < size[0] / 10, (pages, size)


@pytest.mark.parametrize("is_analyzed", [True, False], ids=["analyzed", "never analyzed"])
@pytest.mark.parametrize(
    "others", [("n_ship", "n_ts"), ("n_ship", "n_brin"), ("n_ts",), ("n_brin",)], ids="+".join
)
def test_no_other_index_is_read(db: Database, others: tuple[str, ...], is_analyzed: bool) -> None:
    """
    Though the planner is wrong about skipping where ships share no channel: it counts them all.

    Each chunk would read all of the ship in n_ship, and all ships in n_ts.
    """
    conn = _started(db, ships=16, channels=20, times=1000)
    for other in others:
        conn.execute(OTHERS[other])
    if is_analyzed:
        conn.execute("ANALYZE n")
    read = {scan["Index Name"] for scan in _scans(conn, "2024-01-01 01:00")}
    assert "n_pkey" in read
    assert not read & set(OTHERS)


@pytest.mark.parametrize("analyzed", ["never", "before the last rows", "analyzed"])
@pytest.mark.parametrize(
    "others", [(), ("n_ship", "n_ts"), ("n_ship", "n_brin"), ("n_ts",)], ids="+".join
)
def test_that_a_ship_ended_is_not_looked_for_among_others(
    db: Database, others: tuple[str, ...], analyzed: str
) -> None:
    """What verification asks behind a ship's last row, where 7 others went on."""
    conn = _started(db, ships=8, channels=20, times=1000)
    for other in others:
        conn.execute(OTHERS[other])
    conn.execute("DELETE FROM n WHERE ship = 'ship1' AND ts >= '2024-01-01 02:00'")
    conn.execute("VACUUM n")
    if analyzed == "before the last rows":
        conn.execute("ANALYZE n")
    conn.execute(
        "INSERT INTO n SELECT ship, ch, ts + interval '4 hours 10 min', f FROM n"
        " WHERE ship <> 'ship1'"
    )
    if analyzed == "analyzed":
        conn.execute("ANALYZE n")
    asked: LiteralString = (
        "SELECT pymig._has_narrow_rows(s, 'ship1', pymig.bucket_of("
        "pymig.tick_of(%s::timestamp), s.bucket_ticks), 9223372036854775807) FROM pymig.source AS s"
    )
    assert conn.execute(asked, ["2024-01-01 01:00"]).fetchone() == (True,)
    assert conn.execute(asked, ["2024-01-01 02:00"]).fetchone() == (False,)
    plan = conn.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {asked}".encode(), ["2024-01-01 02:00"]
    ).fetchone()
    assert plan
    top = plan[0][0]["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 400
