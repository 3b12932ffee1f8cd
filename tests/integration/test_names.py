"""T11: any legal text is an entity and a channel id: it migrates, verifies, and rolls back."""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import Database
from tests.oracle import Narrow, difference

EMOJI: Final = "\U0001f6a2"
NASTY: Final = (
    "", " ", "'", '"', "''", '""', "%", "%s", "%I", "%1$I", "%%", "{", "{}", "{entity}", "{table}",
    "{a,b}", ",", "a,b", ";", "--", "/*", "*/", "$$", "$1", "$f$", "$b$", "$sql$", "\\", "\\x00",
    "\n", "a\nb", "\r", "\t", "\x01", "\x7f", EMOJI, EMOJI * 15, EMOJI * 16, "a" + EMOJI * 16,
    "é" * 31, "é" * 32, "x" * 57, "x" * 58, "x" * 59, "x" * 62, "x" * 63, "x" * 64, "x" * 63 + "y",
    "x" * 63 + "z", "x" * 300, "select", "SELECT", "user", "table", "all", "null", "NULL", "true",
    '"; DROP TABLE narrow; --', "'; DROP SCHEMA pymig CASCADE; --", "ctid", "xmin", "XMIN", "cmax",
    "tableoid", "oid", "ts", "TS", "time", "channel", "cells", "ord", "value", "part", "narrow",
    "n", "w", "grid", "1", "-1", "1_1", "_1", "a_1", "a", "A", "ä", "Ä", "a\u0308", "ß", "SS",
    "\u0130", "\u0131", "\u202e", "\u200b", "\ufeff", "\uffff", "\U0010ffff",
    "........pg.dropped.2........",
    "channel_d41d8cd98f00b204e9800998ecf8427e", "_d41d8cd9", "narrow_pkey", "narrow_a", "infinity",
)  # fmt: skip
ID = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=90),
    st.text("aAäé\U0001f6a2'\"%{}_1", min_size=55, max_size=66),
)
IDS = st.lists(ID, min_size=1, max_size=7, unique=True)
SHIPS = st.lists(ID.filter(lambda name: name != "all"), min_size=1, max_size=2, unique=True)
LIMIT: Final = "-c statement_timeout=60s"
NARROW: Final = Narrow("narrow", "narrow", "ship", "channel", "ts", ("v", "w"))
RELATIONS: LiteralString = """
SELECT n.nspname, c.relname, c.relkind::text FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2
"""


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """A narrow table without rows; pymig knows nothing of it yet."""
    conn = db.connect(options=LIMIT)
    conn.execute(
        "CREATE EXTENSION tablefunc; CREATE TABLE narrow (ship text, channel text, ts timestamp,"
        " v text, w float8, PRIMARY KEY (ship, channel, ts)); CREATE INDEX ON narrow (ts)"
    )
    return conn


def _insert(
    conn: psycopg.Connection[Any], ships: list[str], channels: list[str], first: int, last: int
) -> None:
    """Each channel with times of its own; a value in one column or the other, or in none."""
    with conn.cursor().copy("COPY narrow (ship, channel, ts, v, w) FROM STDIN") as copy:
        for ship in ships:
            for c, channel in enumerate(channels):
                for t in range(first, last):
                    if (t + c) % 3:
                        text, number = (channel, None) if c % 2 else (None, t / 7)
                        empty = (t + c) % 7 == 0
                        at = f"2024-01-01 {t // 60:02d}:{t % 60:02d}:00"
                        row = (ship, channel, at, *((None, None) if empty else (text, number)))
                        copy.write_row(row)


def _migrate_and_roll_back(
    conn: psycopg.Connection[Any],
    ships: list[str],
    channels: list[str],
    strategy: str,
    column_types: str,
) -> None:
    conn.execute("DELETE FROM narrow")
    before = conn.execute(RELATIONS).fetchall()
    conn.execute(
        "CALL pymig.register_source('narrow', 'narrow', 'ship', 'channel', 'ts', '{v,w}',"
        " p_bucket => '15 minutes')"
    )
    _insert(conn, ships, channels[:-1] or channels, 0, 40)
    for ship in ships:
        conn.execute(
            "CALL pymig.migrate(%s, p_strategy => %s, p_column_types => %s)",
            [ship, strategy, column_types],
        )
        conn.execute("CALL pymig.set_sync(%s, 'direct', p_budget => interval '10 s')", [ship])
    # A channel never seen before, and a change of every other one: by the statement itself, where
    # it can.
    _insert(conn, ships, channels[-1:], 40, 44)
    conn.execute(
        "UPDATE narrow SET v = v || '''\"' WHERE v IS NOT NULL AND ts > '2024-01-01 00:30'"
    )
    conn.execute("CALL pymig.sync_pending()")
    conn.execute("UPDATE narrow SET w = 0.5 WHERE w IS NOT NULL AND ts > '2024-01-01 00:20'")
    assert conn.execute("SELECT count(*) FROM pymig.pending").fetchone() == (0,)
    assert difference(conn, NARROW) == []
    assert sorted(conn.execute("SELECT entity, channel FROM pymig.channel_map").fetchall()) == (
        sorted((ship, channel) for ship in ships for channel in channels)
    )
    for ship in ships:
        resolved = conn.execute("SELECT entity FROM pymig.resolve_entities(%s)", [ship])
        assert resolved.fetchall() == [(ship,)]
        conn.execute("SELECT * FROM pymig.plan(%s)", [ship])
        conn.execute("CALL pymig.verify(%s)", [ship])
    assert conn.execute("SELECT DISTINCT state FROM pymig.status").fetchall() == [("verified",)]
    conn.execute("SELECT * FROM pymig.pending")
    for ship in ships:
        conn.execute("CALL pymig.roll_back(%s)", [ship])
        conn.execute("CALL pymig.roll_back(%s)", [ship])
    conn.execute("CALL pymig.unregister_source('narrow')")
    assert conn.execute(RELATIONS).fetchall() == before


@pytest.mark.once
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(ships=["a", "A"], channels=["x" * 63 + "y", "x" * 63 + "z", "x" * 63, "x" * 64])
@example(ships=["a", "a_1"], channels=[EMOJI * 15 + "abc", EMOJI * 16, "é" * 31 + "x", "é" * 32])
@example(ships=["x" * 300, "x" * 299 + "y"], channels=["ts", "xmin", "ctid", "tableoid", "TS"])
@example(ships=["", "'; DROP TABLE narrow; --"], channels=["", " ", '"; DROP TABLE narrow; --'])
@example(ships=["%s,{}", "a,b"], channels=["%", "%s", "%1$I", "{}", "{entity}", "a,b", "$$"])
@example(ships=["{table}", "pkey"], channels=["\n", "\\", "'", '"', EMOJI, "select", "null"])
@given(ships=SHIPS, channels=IDS)
def test_any_text_is_a_name(
    conn: psycopg.Connection[Any], ships: list[str], channels: list[str]
) -> None:
    """Strategy and column types vary with the names, so that the same example is the same run."""
    strategies = ("auto", "transpose", "json", "crosstab", "filter")
    strategy = strategies[len("".join(channels)) % len(strategies)]
    column_types = ("text", "native")[len("".join(ships)) % 2]
    _migrate_and_roll_back(conn, ships, channels, strategy, column_types)


@pytest.mark.parametrize("strategy", ["transpose", "json", "crosstab", "filter"])
def test_all_nasty_names_at_once(conn: psycopg.Connection[Any], strategy: str) -> None:
    """One ship with every one of them: names that are unique alone may meet after a cut."""
    assert len(set(NASTY)) == len(NASTY)
    _migrate_and_roll_back(conn, [NASTY[0]], list(NASTY), strategy, "native")


def test_all_nasty_ships_at_once(conn: psycopg.Connection[Any]) -> None:
    """Every one of them as a ship: all wide tables in one schema, none in another's way."""
    ships = [name for name in NASTY if name != "all"]
    conn.execute("CALL pymig.register_source('narrow', 'narrow', 'ship', 'channel', 'ts', '{v,w}')")
    _insert(conn, ships, ["c"], 0, 3)
    for ship in ships:
        conn.execute("CALL pymig.migrate(%s)", [ship])
    assert difference(conn, NARROW) == []
    tables = conn.execute("SELECT count(DISTINCT wide_table) FROM pymig.channel_map").fetchone()
    assert tables == (len(ships),)
    conn.execute("CALL pymig.unregister_source('narrow')")
    left = conn.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'narrow%'").fetchone()
    assert left == (3,)  # the narrow table and its two indexes


def test_names_of_columns_and_tables(db: Database) -> None:
    """The narrow table's own names are as free as the ids in it."""
    conn = db.connect(options=LIMIT)
    conn.execute("CREATE EXTENSION tablefunc")
    table = '"S\'%s "" {}"."t;--%I"'
    conn.execute(
        'CREATE SCHEMA "S\'%s "" {}"; CREATE TABLE "S\'%s "" {}"."t;--%I" ("select" text,'
        ' "%1$I" text, "time ""\'" timestamp, "v,1" float8, "{v}" text, PRIMARY KEY ("select",'
        ' "%1$I", "time ""\'"))'
    )
    narrow = Narrow("odd", table, "select", "%1$I", "time \"'", ("v,1", "{v}"))
    conn.execute(
        "CALL pymig.register_source('odd', %s::regclass, 'select', '%%1$I', %s, %s::text[],"
        " p_wide_schema => %s)",
        [table, "time \"'", ["v,1", "{v}"], "S'%s \" {}"],
    )
    conn.execute(
        f"INSERT INTO {table} SELECT 'x', c, '2024-01-01'::timestamp + t * interval '1 min',"
        " CASE WHEN c = 'a' THEN t END, CASE WHEN c <> 'a' THEN t || c END"
        " FROM unnest('{a,b,select}'::text[]) AS c, generate_series(1, 90) AS t".encode()
    )
    for strategy in ("transpose", "json", "crosstab", "filter"):
        conn.execute("CALL pymig.migrate('x', p_strategy => %s)", [strategy])
        conn.execute(f"""DELETE FROM {table} WHERE "v,1" = {7 + len(strategy)}""".encode())
        conn.execute("CALL pymig.verify('x')")
        assert difference(conn, narrow) == []
        conn.execute("CALL pymig.roll_back('x')")
