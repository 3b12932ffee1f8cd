"""Real ships' data, migrated with every strategy and judged cell by cell by the oracle.

dirona has no unique key and 75,061 keys met more than once, so the tie-break decides. susteranna
has 1,667 channels, so several parts. channels_1037.txt are the ids of a real ship, here as text
columns whose values have the sizes that fill a row most.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import default_narrow, difference

STRATEGIES: Final = ("transpose", "json", "crosstab", "filter")
COLUMN_TYPES: Final = ("text", "native")
TABLE: Final = "fleet.narrow"
CREATE: LiteralString = """
CREATE SCHEMA fleet;
CREATE TABLE fleet.narrow (
    id bigint, ship_id text NOT NULL, data_channel_id text NOT NULL,
    created_time timestamp NOT NULL, server_created_time timestamp, bool_v bool, str_v text,
    long_v int8, double_v float8, value_format varchar(50));
"""
COPY: LiteralString = """
COPY fleet.narrow (id, ship_id, data_channel_id, created_time, server_created_time, bool_v, str_v,
    long_v, double_v, value_format) FROM STDIN (FORMAT csv, HEADER)
"""
REGISTER: LiteralString = """
CALL pymig.register_source('fleet', 'fleet.narrow', 'ship_id', 'data_channel_id', 'created_time',
    '{double_v,long_v,str_v,bool_v}', 'value_format',
    '{"Decimal":"double_v","Integer":"long_v","String":"str_v","Boolean":"bool_v"}',
    p_tie_break => %s::text[], p_bucket => %s::interval)
"""
BY_TIME: LiteralString = "CREATE INDEX ON fleet.narrow (ship_id, created_time)"
BY_KEY: LiteralString = """
DELETE FROM fleet.narrow AS n USING fleet.narrow AS o
WHERE o.ship_id = n.ship_id AND o.data_channel_id = n.data_channel_id
  AND o.created_time = n.created_time AND o.id > n.id;
ALTER TABLE fleet.narrow ADD PRIMARY KEY (ship_id, data_channel_id, created_time);
"""


@dataclass(frozen=True)
class Ship:
    """A file of real data and what is known of it."""

    name: str
    file: str
    rows: int
    channels: int
    times: int
    bucket: str


DIRONA: Final = Ship("DIRONA", "narrow_dirona.csv.gz", 122_814, 811, 1_468, "20 seconds")
SUSTERANNA: Final = Ship(
    "SUSTERANNA", "narrow_susteranna.csv.gz", 32_974, 1_667, 10_122, "10 seconds"
)


def _connect(db: Database) -> psycopg.Connection[Any]:
    conn = db.connect()
    conn.execute("CREATE EXTENSION tablefunc")
    return conn


def _one(conn: psycopg.Connection[Any], query: LiteralString, *values: object) -> Any:
    row = conn.execute(query, values).fetchone()
    assert row is not None
    return row[0]


def _load(
    conn: psycopg.Connection[Any], ship: Ship, data: Path, index: LiteralString, part: float = 1
) -> None:
    """Load the first rows (all, or a part of them), and make the index or key."""
    file = data / ship.file
    if not file.is_file():
        pytest.skip(f"no real data: {file} is missing")
    conn.execute(CREATE)
    with gzip.open(file) as lines, conn.cursor().copy(COPY) as copy:
        for line in islice(lines, 1 + round(ship.rows * part)):
            copy.write(line)
    conn.execute(index)
    conn.execute("ANALYZE fleet.narrow")


def _migrate(
    conn: psycopg.Connection[Any], ship: str, column_types: str, strategy: str, verify: bool
) -> None:
    """Migrate with one strategy and nothing else."""
    conn.execute(
        "CALL pymig.start_sync(%s, 'fleet', p_column_types => %s, p_strategy => %s)",
        [ship, column_types, strategy],
    )
    conn.execute("CALL pymig.backfill(%s, 'fleet')", [ship])
    chunks = conn.execute("SELECT DISTINCT c.strategy, c.state FROM pymig.chunk AS c").fetchall()
    assert chunks == [(strategy, "done")]
    if verify:
        conn.execute("CALL pymig.verify(%s, 'fleet')", [ship])
        assert _one(conn, "SELECT state FROM pymig.entity WHERE entity = %s", ship) == "verified"


def _check_counts(conn: psycopg.Connection[Any], ship: Ship) -> None:
    """That the oracle had something to compare."""
    assert _one(conn, "SELECT count(*) FROM pymig.channel_map") == ship.channels
    table = _one(conn, "SELECT min(wide_table) FROM pymig.channel_map")
    assert conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (ship.times,)


@pytest.mark.repetition
@pytest.mark.parametrize("strategy,column_types", [*zip(STRATEGIES, COLUMN_TYPES * 2, strict=True)])
def test_dirona_without_unique_key(
    db: Database, shared_data: Path, strategy: str, column_types: str
) -> None:
    """75,061 duplicate keys: the row with the highest id is the cell, everywhere the same."""
    conn = _connect(db)
    _load(conn, DIRONA, shared_data, BY_TIME)
    conn.execute(REGISTER, [["id"], DIRONA.bucket])
    _migrate(conn, DIRONA.name, column_types, strategy, verify=strategy == "transpose")
    narrow = default_narrow(TABLE, "fleet", tie_break=("id",))
    assert difference(conn, narrow) == []
    _check_counts(conn, DIRONA)
    moved, superseded = conn.execute(
        "SELECT sum(narrow_rows), sum(superseded_rows) FROM pymig.chunk"
    ).fetchall()[0]
    assert moved + superseded == DIRONA.rows  # nothing silent: each row decided a cell or lost
    assert superseded > 0


@pytest.mark.repetition
@pytest.mark.parametrize("strategy,column_types", [*zip(STRATEGIES, COLUMN_TYPES * 2, strict=True)])
def test_susteranna_in_several_parts(
    db: Database, shared_data: Path, strategy: str, column_types: str
) -> None:
    """1,667 channels, few of them at any time: more than one table holds, and very sparse rows."""
    conn = _connect(db)
    _load(conn, SUSTERANNA, shared_data, BY_TIME)
    conn.execute(REGISTER, [["id"], SUSTERANNA.bucket])
    _migrate(conn, SUSTERANNA.name, column_types, strategy, verify=strategy == "transpose")
    assert difference(conn, default_narrow(TABLE, "fleet", tie_break=("id",))) == []
    _check_counts(conn, SUSTERANNA)
    assert _one(conn, "SELECT count(DISTINCT wide_table) FROM pymig.channel_map") > 1


@pytest.mark.parametrize("index", [BY_TIME, BY_KEY], ids=["by_time", "by_key"])
@pytest.mark.parametrize("ship", [DIRONA, SUSTERANNA], ids=lambda ship: ship.name)
@pytest.mark.parametrize("column_types", COLUMN_TYPES)
def test_every_strategy_on_its_beginning(
    db: Database, shared_data: Path, column_types: str, ship: Ship, index: LiteralString
) -> None:
    """All strategies one after the other on the same rows, read by time and channel by channel."""
    conn = _connect(db)
    _load(conn, ship, shared_data, index, part=0.06)
    tie_break = ["id"] if index is BY_TIME else []
    conn.execute(REGISTER, [tie_break, "1 second"])
    narrow = default_narrow(TABLE, "fleet", tie_break=tuple(tie_break))
    for strategy in STRATEGIES:
        _migrate(conn, ship.name, column_types, strategy, verify=strategy == "filter")
        assert _one(conn, "SELECT count(DISTINCT entity) FROM pymig.channel_map") == 1
        assert _one(conn, "SELECT count(DISTINCT channel) FROM pymig.channel_map") > 300
        assert difference(conn, narrow) == []
        conn.execute("CALL pymig.roll_back(%s, 'fleet')", [ship.name])


FILL: LiteralString = """
INSERT INTO fleet.narrow (id, ship_id, data_channel_id, created_time, str_v, value_format)
SELECT row_number() OVER (), 'MVP', c.channel, '2024-01-01'::timestamp + t.t * interval '15 s',
    CASE t.t
        -- 23 bytes are the worst: one more and the toaster may move the value out of the row.
        WHEN 0 THEN substr(md5(c.ord::text), 1, 23)
        WHEN 1 THEN substr(md5(c.ord::text) || md5(c.channel), 1, 40)
        WHEN 2 THEN substr(md5(c.ord::text) || md5(c.channel), 1, 22 + (c.ord %% 4)::int)
        WHEN 3 THEN repeat('x', 40)
        WHEN 4 THEN substr(md5(c.ord::text) || md5(c.channel), 1, (c.ord * 7 %% 41)::int)
        WHEN 5 THEN repeat(chr(128674), 5) || 'abc'
        ELSE (c.ord * t.t)::text
    END, 'String'
FROM unnest(%s::text[]) WITH ORDINALITY AS c (channel, ord), generate_series(0, 9) AS t (t)
"""


def test_1037_text_channels_fill_every_row(db: Database, shared_data: Path) -> None:
    """The row-size trap: every sensor reports, and every value has the worst length."""
    file = shared_data / "channels_1037.txt"
    if not file.is_file():
        pytest.skip(f"no real data: {file} is missing")
    channels = file.read_text("utf-8").splitlines()
    assert len(set(channels)) == 1037
    conn = _connect(db)
    conn.execute(CREATE)
    conn.execute(FILL, [channels])
    conn.execute(BY_KEY)
    conn.execute(REGISTER, [[], "1 minute"])
    for strategy in STRATEGIES:
        conn.execute("CALL pymig.roll_back('MVP')")
        _migrate(conn, "MVP", "text", strategy, verify=strategy == "transpose")
        assert difference(conn, default_narrow(TABLE, "fleet")) == []
    assert _one(conn, "SELECT count(*) FROM pymig.channel_map WHERE column_type = 'text'") == 1037
    # A correction goes another way (single keys), and must fit as well.
    conn.execute("UPDATE fleet.narrow SET str_v = left(md5(data_channel_id || id), 23)")
    conn.execute("CALL pymig.sync_pending()")
    assert _one(conn, "SELECT count(*) FROM pymig.pending") == 0
    assert difference(conn, default_narrow(TABLE, "fleet")) == []


def test_1037_channels_come_one_by_one(db: Database, shared_data: Path) -> None:
    """Columns appended behind others: the room left in the last part is counted right, too."""
    file = shared_data / "channels_1037.txt"
    if not file.is_file():
        pytest.skip(f"no real data: {file} is missing")
    channels = file.read_text("utf-8").splitlines()
    conn = _connect(db)
    conn.execute(CREATE)
    conn.execute(BY_KEY)
    conn.execute(REGISTER, [[], "1 minute"])
    conn.execute(FILL, [channels[:300]])
    conn.execute("CALL pymig.migrate('MVP', 'fleet')")
    for first in range(300, 1037, 250):
        conn.execute(FILL, [channels[first : first + 250]])
        conn.execute("CALL pymig.sync_pending()")
    conn.execute("CALL pymig.verify('MVP')")
    assert _one(conn, "SELECT count(*) FROM pymig.channel_map") == 1037
    assert difference(conn, default_narrow(TABLE, "fleet")) == []
