"""Native columns whose type drifts: promoted without loss in the background, or quarantined."""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import Narrow, difference
from tests.races.interleave import SOURCE, TABLE, WIDE, Stage
from tests.waiting import sync_until

FORMATS: Final = {
    "double_v": "Decimal",
    "long_v": "Integer",
    "str_v": "String",
    "bool_v": "Boolean",
}
STEP: LiteralString = (
    "SELECT pymig._promote_step(s, e.entity) FROM pymig.source AS s JOIN pymig.entity AS e"
    " USING (source) WHERE e.entity = %s"
)
TYPE: LiteralString = "SELECT column_type FROM pymig.channel_map WHERE entity = %s AND channel = %s"
HOURS: Final = [f"2024-03-02 {hour:02d}:00:00" for hour in range(8)]


@pytest.fixture
def stage(db: Database) -> Stage:
    """The default source on a fresh database."""
    return Stage(db)


def put(s: Stage, channel: str, at: str, column: str, value: Any, ship: str = "x") -> None:
    """One row, in the value column named."""
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, {column}, value_format)"
        " VALUES (%s, %s, %s::timestamp, %s, %s)",
        ship, channel, at, value, FORMATS[column],
    )  # fmt: skip


def migrate(s: Stage, policy: str | None = "promote", ship: str = "x") -> None:
    """With native columns."""
    if policy:
        s.main.run("CALL pymig.set_type_drift(%s, %s)", ship, policy)
    s.main.run("CALL pymig.migrate(%s, p_column_types => 'native', p_strategy => 'json')", ship)


def promote(s: Stage, passes: int = 40) -> None:
    """Passes of the worker until no promotion is under way and nothing pending."""
    for _ in range(passes):
        s.drain()
        if s.main.value("SELECT pymig._due_promotions(source) = '{}' FROM pymig.source"):
            break
    s.drain()


def types(s: Stage, *channels: str) -> list[str]:
    """Column types of some channels, by the catalog, which must be those of the tables."""
    wrong = s.main.run(
        "SELECT m.* FROM pymig.channel_map AS m LEFT JOIN pg_attribute AS a"
        " ON a.attrelid = m.wide_table::regclass AND a.attname = m.wide_column"
        " WHERE a.atttypid IS DISTINCT FROM m.column_type::regtype::oid"
    )
    assert wrong == []
    return [s.main.value(TYPE, "x", channel) for channel in channels]


def events(s: Stage) -> list[str]:
    """Kinds of events, in order."""
    return [row[0] for row in s.main.run("SELECT what FROM pymig.event ORDER BY event")]


def check(s: Stage) -> None:
    """Equal by the oracle, by verify, and nothing left over."""
    assert s.damage("x") == []
    s.main.run("CALL pymig.verify('x')")
    assert s.main.run("SELECT * FROM pymig.promotion") == []
    left = s.main.run(
        "SELECT attname FROM pg_attribute WHERE attname LIKE 'promoted%%' AND NOT attisdropped"
    )
    assert left == []


FLOATS = ("0.1", "-0", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "1e15")
CASES: Final[dict[str, tuple[list[tuple[str, Any]], list[tuple[str, Any]], str]]] = {
    "int-float": ([("long_v", 7), ("long_v", -(2**53))], [("double_v", 0.5)], "float8"),
    "big-int-float": ([("long_v", 2**53 + 1)], [("double_v", 0.5)], "text"),
    "int-text": ([("long_v", 7)], [("str_v", "seven")], "text"),
    "float-text": ([("double_v", v) for v in FLOATS], [("str_v", "")], "text"),
    "float-big-int": ([("double_v", 1.5)], [("long_v", 2**53 + 1)], "text"),
    "float-bool": ([("double_v", 1e22)], [("bool_v", True)], "text"),
    "bool-int": ([("bool_v", True), ("bool_v", False)], [("long_v", 1)], "text"),
    "int-float-text": ([("long_v", 7)], [("double_v", 0.5), ("str_v", "x")], "text"),
}


@pytest.mark.parametrize("case", CASES)
def test_lattice(stage: Stage, case: str) -> None:
    """What was stored stays, what did not fit comes in, and quarantine is empty."""
    before, after, expected = CASES[case]
    for at, (column, value) in zip(HOURS, before, strict=False):
        put(stage, "c", at, column, value)
    put(stage, "other", HOURS[0], "long_v", 1)
    migrate(stage)
    for at, (column, value) in zip(reversed(HOURS), after, strict=False):
        # Beside another channel that a row of this time has, too.
        put(stage, "c", at.replace(":00:00", ":30:00"), column, value)
        put(stage, "other", at.replace(":00:00", ":30:00"), "long_v", 2)
    stage.main.run("CALL pymig.sync_pending()")
    promote(stage)
    check(stage)
    assert types(stage, "c", "other") == [expected, "int8"]
    assert stage.main.value("SELECT count(*) FROM pymig.quarantine") == 0
    assert events(stage)[-2:] == ["columns promoted", "verified"]


def test_other_sources(db: Database) -> None:
    """Without a format column, read by time, with duplicates: int8 and numeric make numeric."""
    conn = db.connect()
    conn.execute(
        "CREATE TABLE n (id bigserial, ship int, ch int, ts timestamptz, i int4, n numeric(20, 6),"
        " j jsonb); CREATE INDEX ON n (ship, ts)"
    )
    conn.execute(
        "CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{i,n,j}', p_tie_break => '{id}',"
        " p_column_types => 'native'); CALL pymig.set_type_drift(NULL, 'promote')"
    )
    add = "INSERT INTO n (ship, ch, ts, i, n, j) VALUES (1, %s, %s, %s, %s, %s)"
    for hour in HOURS[:3]:
        conn.execute(add, [1, hour, 5, None, None])
        conn.execute(add, [1, hour, 6, None, None])
        conn.execute(add, [2, hour, 7, None, None])
    conn.execute("CALL pymig.migrate('1', p_allow_scan => true)")
    conn.execute(add, [1, HOURS[1], None, "2.500000", None])
    conn.execute(add, [2, HOURS[2], None, None, '{"a": 1}'])
    promoted: LiteralString = (
        "SELECT string_agg(column_type, ', ' ORDER BY channel) FROM pymig.channel_map"
    )
    sync_until(conn, promoted, "numeric, text", "not both are promoted")
    narrow = Narrow("n", "n", "ship", "ch", "ts", ("i", "n", "j"), tie_break=("id",))
    assert difference(conn, narrow) == []
    conn.execute("CALL pymig.verify('1')")


def test_quarantine_is_the_default(stage: Stage) -> None:
    """Nothing is promoted unless somebody says so; of a source, or of one ship."""
    for ship in ("x", "y"):
        put(stage, "c", HOURS[0], "long_v", 1, ship)
        migrate(stage, None, ship)
        put(stage, "c", HOURS[1], "double_v", 0.5, ship)
    promote(stage)
    assert stage.main.value("SELECT count(*) FROM pymig.quarantine") == 2
    stage.main.run("CALL pymig.set_type_drift('y', 'quarantine')")
    stage.main.run("CALL pymig.set_type_drift(NULL, 'promote')")
    promote(stage)
    assert stage.main.run("SELECT DISTINCT entity FROM pymig.quarantine") == [("y",)]
    assert types(stage, "c") == ["float8"]
    check(stage)
    with pytest.raises(psycopg.Error, match="the policy for type drift is quarantine or promote"):
        stage.main.run("CALL pymig.set_type_drift('x', 'ignore')")


def drifted(stage: Stage) -> None:
    """A migrated ship with an integer channel, and a fraction of it in quarantine."""
    for at in HOURS:
        put(stage, "c", at, "long_v", 1)
    migrate(stage)
    put(stage, "c", "2024-03-02 09:00:00", "double_v", 0.5)
    stage.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    stage.main.run(
        "SELECT pymig._recompute_todo(s, 'x', ARRAY[%s::int8]) FROM pymig.source AS s",
        stage.bucket("2024-03-02 09:00:00"),
    )


def test_the_policy_may_change_half_way(stage: Stage) -> None:
    """The new column goes, the old one was whole all the time."""
    drifted(stage)
    assert [stage.main.value(STEP, "x") for _ in range(3)] == [True, True, True]
    assert len(stage.main.run("SELECT * FROM pymig.promotion")) == 1
    stage.main.run("CALL pymig.set_type_drift('x', 'quarantine')")
    promote(stage)
    check(stage)
    assert types(stage, "c") == ["int8"]
    assert stage.main.value("SELECT count(*) FROM pymig.quarantine") == 1


def test_what_depends_on_a_column_is_not_dropped(stage: Stage) -> None:
    """A view or an index of somebody's holds its column up, and only that; then it goes on."""
    for channel in ("a", "b", "c"):
        put(stage, channel, HOURS[0], "long_v", 1)
    migrate(stage)
    stage.main.run(f"CREATE VIEW theirs AS SELECT a FROM {WIDE}x")
    stage.main.run(f"CREATE INDEX their_index ON {WIDE}x (b)")
    stage.main.run(f"COMMENT ON COLUMN {WIDE}x.c IS 'bilge'")
    for channel in ("a", "b", "c"):
        put(stage, channel, HOURS[1], "double_v", 0.5)
    promote(stage)
    assert types(stage, "a", "b", "c") == ["int8", "int8", "float8"]
    said = stage.main.run("SELECT detail FROM pymig.event WHERE what = 'promotion held up'")
    assert len(said) == 2 and "view public.theirs" in said[0][0] and "their_index" in said[1][0]
    assert stage.main.value(f"SELECT col_description('{WIDE}x'::regclass, a.attnum) FROM pg_attribute AS a WHERE a.attrelid = '{WIDE}x'::regclass AND a.attname = 'c'") == "bilge"  # fmt: skip  # noqa: E501
    stage.main.run("CALL pymig.verify('x')")  # two columns filled, waiting
    # Another one drifts meanwhile and does not wait for them.
    put(stage, "d", HOURS[0], "bool_v", True)
    stage.drain()
    put(stage, "d", HOURS[1], "long_v", 2)
    promote(stage)
    assert types(stage, "d") == ["text"]
    stage.main.run("DROP VIEW theirs")
    stage.main.run("DROP INDEX tenant.their_index")
    stage.main.run("UPDATE pymig.promotion SET retry_at = NULL")
    promote(stage)
    assert types(stage, "a", "b", "c") == ["float8", "float8", "float8"]
    check(stage)
    assert len(stage.main.run("SELECT 1 FROM pymig.event WHERE what = 'promotion held up'")) == 2


def test_the_new_column_may_need_a_new_part(stage: Stage) -> None:
    """1,000 float8 columns are a full table: text goes to a second part, the view has the rest."""
    stage.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, double_v, value_format)"
        " SELECT 'x', 'c' || i, %s::timestamp, i, 'Decimal' FROM generate_series(1, 1000) AS i",
        HOURS[0],
    )
    migrate(stage)
    put(stage, "c500", HOURS[1], "str_v", "off")
    stage.main.run(f"CREATE ROLE reader_{stage.db.name}")
    stage.main.run(f"GRANT SELECT ON {WIDE}x TO reader_{stage.db.name}")
    try:
        promote(stage)
        assert types(stage, "c499", "c500") == ["float8", "text"]
        check(stage)
        assert stage.main.run(f"SELECT c499, c500, c501 FROM {WIDE}x ORDER BY created_time") == [
            (499.0, "500", 501.0),
            (None, "off", None),
        ]
        # Again, with a view in place.
        put(stage, "c7", HOURS[2], "str_v", "off")
        put(stage, "c500", HOURS[2], "double_v", 0.25)
        promote(stage)
        check(stage)
        row = stage.main.run(f"SELECT c7, c500 FROM {WIDE}x WHERE created_time = %s", HOURS[2])
        assert row == [("off", "0.25")]
        assert stage.main.value(
            f"SELECT has_table_privilege('reader_{stage.db.name}', '{WIDE}x', 'SELECT')"
        )
    finally:
        stage.main.run(f"DROP OWNED BY reader_{stage.db.name}")
        stage.main.run(f"DROP ROLE reader_{stage.db.name}")


def test_values_whose_narrow_rows_are_gone_stay(stage: Stage) -> None:
    """A wide row that outlives its narrow rows keeps its cells in the new type."""
    put(stage, "c", HOURS[0], "double_v", 0.1)
    put(stage, "c", HOURS[1], "double_v", 0.2)
    migrate(stage)
    with stage.main.conn.transaction():
        stage.main.run(f"ALTER TABLE {TABLE} DISABLE TRIGGER ALL")
        stage.main.run(f"DELETE FROM {TABLE} WHERE created_time = %s", HOURS[0])
        for event in ("insert", "update", "delete", "truncate"):
            stage.main.run(f"ALTER TABLE {TABLE} ENABLE ALWAYS TRIGGER pymig_record_{event}")
        stage.main.run(f"ALTER TABLE {TABLE} ENABLE REPLICA TRIGGER pymig_record_row")
    put(stage, "c", HOURS[2], "str_v", "off")
    promote(stage)
    assert [row[1] for row in stage.wide("x")] == ["0.1", "0.2", "off"]


@pytest.mark.parametrize("broken", [False, True])
def test_what_retention_keeps_is_promoted_too(db: Database, broken: bool) -> None:
    """A dropped partition's cells have only the old column to come from, not what arrives late."""
    conn = db.connect()
    conn.execute(
        "CREATE TABLE t (ship text, ch text, ts timestamp, v float8, s text,"
        " PRIMARY KEY (ship, ch, ts)) PARTITION BY RANGE (ts);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');"
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03');"
        "INSERT INTO t SELECT 'x', c, '2024-03-01'::timestamp + n * interval '6 hours', n + 0.5"
        " FROM unnest('{a,b}'::text[]) AS c, generate_series(0, 7) AS n;"
        "CALL pymig.register_source('t', 't', 'ship', 'ch', 'ts', '{v,s}',"
        " p_column_types => 'native'); CALL pymig.set_type_drift(NULL, 'promote')"
    )
    if broken:
        patched = conn.execute(
            "SELECT pg_get_functiondef('pymig._fill_promoted'::regproc)"
        ).fetchone()
        assert patched is not None and "p_times, p_entity), v_wide" in patched[0]
        conn.execute(patched[0].replace("p_times, p_entity), v_wide", "p_times), v_wide"))
    conn.execute("CALL pymig.set_retention('keep')")
    conn.execute("CALL pymig.migrate('x')")
    conn.execute("DROP TABLE t_1")
    conn.execute("CALL pymig.sync_pending()")
    conn.execute(
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');"
        "INSERT INTO t VALUES ('x', 'a', '2024-03-01', 99, NULL),"
        " ('x', 'a', '2024-03-02', NULL, 'off')"
        " ON CONFLICT (ship, ch, ts) DO UPDATE SET v = excluded.v, s = excluded.s"
    )
    promoted: LiteralString = "SELECT column_type FROM pymig.channel_map WHERE channel = 'a'"
    sync_until(conn, promoted, "text", "a is not promoted")
    found = [row[0] for row in conn.execute("SELECT a FROM t_x ORDER BY ts").fetchall()]
    kept = ["0.5", "1.5", "2.5", "3.5", "off", "5.5", "6.5", "7.5"]
    assert found == (["99", *kept[1:]] if broken else kept)
    if not broken:
        conn.execute("CALL pymig.verify('x')")


def test_roll_back_in_the_middle(stage: Stage) -> None:
    """Nothing is left of a promotion that had begun."""
    drifted(stage)
    assert [stage.main.value(STEP, "x") for _ in range(2)] == [True, True]
    stage.main.run("CALL pymig.roll_back('x')")
    assert stage.main.run("SELECT * FROM pymig.promotion") == []
    assert stage.main.value(f"SELECT to_regclass('{WIDE}x')") is None
    migrate(stage)
    promote(stage)
    check(stage)
    assert SOURCE in stage.main.value("SELECT source FROM pymig.channel_map LIMIT 1")
