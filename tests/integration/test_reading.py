"""The doors for readers: read(), the compat view, and the routing that both follow."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import timedelta
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import Narrow, default_narrow, difference
from tests.waiting import sync_until

DEFAULT: LiteralString = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text NOT NULL, data_channel_id text NOT NULL, created_time timestamp NOT NULL,
    server_created_time timestamp DEFAULT now(), bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
CALL pymig.register_source('n', 'tenant.tbl_data_timeseries', 'ship_id', 'data_channel_id', 'created_time',
    '{double_v,long_v,str_v,bool_v}', 'value_format',
    '{"Decimal":"double_v","Integer":"long_v","String":"str_v","Boolean":"bool_v"}');
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)
    SELECT s, 'de"c', '2024-01-01'::timestamp + g * interval '15 min', CASE g WHEN 3 THEN '-0' WHEN 4 THEN 'NaN' WHEN 5 THEN 1e300 ELSE g / 3.0 END, 'Decimal' FROM generate_series(0, 29) AS g, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v, value_format)
    SELECT s, '/int', '2024-01-01'::timestamp + g * interval '30 min', g, 'Integer' FROM generate_series(0, 9) AS g, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, str_v, value_format)
    SELECT s, 'te''xt', '2024-01-01'::timestamp + g * interval '15 min', 'say ' || g, 'String' FROM generate_series(0, 29) AS g, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, bool_v, value_format)
    SELECT s, 'yes', '2024-01-01'::timestamp + g * interval '15 min', g % 2 = 0, 'Boolean' FROM generate_series(0, 29) AS g, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)
    VALUES ('X', 'yes', '2024-02-01', 1, 'Nonsense'), ('X', 'de"c', '2024-02-01', NULL, 'Decimal')
"""
MANY: LiteralString = """
CREATE TABLE many (ship text, ch text, ts timestamptz, v float8, PRIMARY KEY (ship, ch, ts));
CALL pymig.register_source('n', 'many', 'ship', 'ch', 'ts', '{v}');
INSERT INTO many SELECT s, 'c' || c, '2024-01-01 00:00+00'::timestamptz + g * interval '15 s', c + g / 7.0 FROM generate_series(1, 1700) AS c, generate_series(0, 5) AS g, unnest('{X,Y}'::text[]) AS s
"""
TYPED: LiteralString = """
CREATE TABLE samples (plant uuid NOT NULL, tag int NOT NULL, at bigint NOT NULL, f real, i smallint, s varchar(20), note text) PARTITION BY RANGE (at);
CREATE TABLE samples_1 PARTITION OF samples FOR VALUES FROM (0) TO (1000000);
CREATE TABLE samples_2 PARTITION OF samples FOR VALUES FROM (1000000) TO (9000000);
CREATE UNIQUE INDEX ON samples (plant, tag, at);
CALL pymig.register_source('n', 'samples', 'plant', 'tag', 'at', '{f,i,s}', p_time_unit => 'ms');
INSERT INTO samples SELECT p, 1, g * 60000, g / 2.0 FROM generate_series(0, 40) AS g, unnest('{00000000-0000-0000-0000-00000000000a,00000000-0000-0000-0000-00000000000b}'::uuid[]) AS p;
INSERT INTO samples (plant, tag, at, i) SELECT p, 2, g * 60000, g FROM generate_series(0, 40) AS g, unnest('{00000000-0000-0000-0000-00000000000a,00000000-0000-0000-0000-00000000000b}'::uuid[]) AS p;
INSERT INTO samples (plant, tag, at, s) SELECT p, 3, g * 60000, 's' || g FROM generate_series(0, 40) AS g, unnest('{00000000-0000-0000-0000-00000000000a,00000000-0000-0000-0000-00000000000b}'::uuid[]) AS p
"""
DOUBLED: LiteralString = """
CREATE TABLE log (unit text NOT NULL, name text NOT NULL, at timestamp NOT NULL, seq int NOT NULL, value numeric);
CREATE INDEX ON log (unit, at);
CALL pymig.register_source('n', 'log', 'unit', 'name', 'at', '{value}', p_tie_break => '{seq}', p_time_grain => '1 s');
INSERT INTO log SELECT u, n, '2024-01-01'::timestamp + g * interval '250 ms', q, g + q / 10.0 FROM generate_series(0, 39) AS g, unnest('{a,b,c}'::text[]) AS n, generate_series(0, 1) AS q, unnest('{X,Y}'::text[]) AS u
"""
SOURCES: Final[dict[str, tuple[LiteralString, Narrow, str]]] = {
    "default": (DEFAULT, default_narrow(source="n"), "X"),
    "many": (MANY, Narrow("n", "many", "ship", "ch", "ts", ("v",)), "X"),
    "typed": (
        TYPED,
        Narrow("n", "samples", "plant", "tag", "at", ("f", "i", "s"), time_unit="ms"),
        "00000000-0000-0000-0000-00000000000a",
    ),
    "doubled": (
        DOUBLED,
        Narrow(
            "n",
            "log",
            "unit",
            "name",
            "at",
            ("value",),
            tie_break=("seq",),
            time_grain=timedelta(seconds=1),
        ),
        "X",
    ),
}


def _migrated(db: Database, name: str, types: str) -> psycopg.Connection[Any]:
    conn = db.connect()
    conn.execute("SET TimeZone = 'UTC'")
    create, _, entity = SOURCES[name]
    for statement in create.split(";\n"):
        conn.execute(statement.encode())
    conn.execute("CALL pymig.migrate(%s, p_column_types => %s)", [entity, types])
    return conn


def _route(
    conn: psycopg.Connection[Any], entity: str, routing: str, percent: int | None = None
) -> None:
    conn.execute("CALL pymig.set_routing(%s, %s, %s)", [entity, routing, percent])


def _read(conn: psycopg.Connection[Any], *arguments: Any) -> Counter[tuple[str, str, str]]:
    query = f"SELECT channel, time, value FROM pymig.read({', '.join(['%s'] * len(arguments))})"
    return Counter(conn.execute(query.encode(), arguments).fetchall())


def _cells(conn: psycopg.Connection[Any], narrow: Narrow, entity: str) -> set[tuple[str, str]]:
    """Of the narrow table, in plain SQL of the test's own: keys that have a value of a known format."""
    grain = "date_trunc('second', {})" if narrow.source == "n" and narrow.table == "log" else "{}"
    found = conn.execute(
        f"SELECT DISTINCT {narrow.channel_column}::text, {grain.format(narrow.time_column)}::text FROM {narrow.table}"
        f" WHERE {narrow.entity_column}::text = %s AND num_nonnulls({', '.join(narrow.value_columns)}) = 1"
        f" AND {'value_format <> %s' if narrow.format_column else '%s::text IS NOT NULL'}".encode(),
        [entity, "Nonsense"],
    )
    return set(found.fetchall())


@pytest.mark.parametrize("types", ["text", "native"])
@pytest.mark.parametrize("name", SOURCES)
def test_read_is_the_same_from_both_sides(db: Database, name: str, types: str) -> None:
    """All cells, some channels, a span with its lower and without its upper bound; also nothing."""
    conn = _migrated(db, name, types)
    _, narrow, entity = SOURCES[name]
    assert difference(conn, narrow) == []
    everything = _read(conn, entity)
    assert {(channel, time) for channel, time, _ in everything} == _cells(conn, narrow, entity)
    assert set(everything.values()) == {1}
    times = sorted({time for _, time, _ in everything}, key=lambda t: (len(t), t))
    channels = sorted({channel for channel, _, _ in everything})
    asked: list[tuple[Any, ...]] = [
        (entity,),
        (entity, channels[:2]),
        (entity, channels, times[1], times[-1]),
        (entity, channels[-1:], times[2], times[3]),
        (entity, None, times[2], None),
        (entity, None, None, times[2]),
        (entity, channels[:1], times[3], times[3]),
    ]
    narrow_side = [_read(conn, *arguments) for arguments in asked]
    expected = [
        Counter(
            cell
            for cell in everything
            if (len(a) < 2 or a[1] is None or cell[0] in a[1])
            and (len(a) < 3 or a[2] is None or times.index(cell[1]) >= times.index(a[2]))
            and (len(a) < 4 or a[3] is None or times.index(cell[1]) < times.index(a[3]))
        )
        for a in asked
    ]
    assert narrow_side == expected
    _route(conn, entity, "wide")
    assert [_read(conn, *arguments) for arguments in asked] == expected
    assert _read(conn, entity, []) == Counter()


@pytest.mark.parametrize("types", ["text", "native"])
@pytest.mark.parametrize("name", SOURCES)
def test_row_by_row_is_the_same_as_column_by_column(db: Database, name: str, types: str) -> None:
    """As json, with all channels and with some; each value as it is printed, whatever is in it."""
    conn = _migrated(db, name, types)
    entity = SOURCES[name][2]
    if name == "default":
        odd = ["1e-05", "-Infinity", "123456789012345678", "0.1"]
        conn.execute(
            "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)"
            " SELECT 'X', 'de\"c', '2024-03-01'::timestamp + o.n * interval '1 s', o.v::float8, 'Decimal' FROM unnest(%s::text[]) WITH ORDINALITY AS o (v, n)",
            [odd],
        )
        odd = [
            'a "b" \\ /',
            "tab\t, line\n, \x01\x7f",
            "null",
            "{}",
            " ",
            "é 한국어 \U0001f6a2",
            "\\u0041",
        ]
        conn.execute(
            "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, str_v, value_format)"
            " SELECT 'X', 'te''xt', '2024-03-01'::timestamp + o.n * interval '1 s', o.v, 'String' FROM unnest(%s::text[]) WITH ORDINALITY AS o (v, n)",
            [odd],
        )
        conn.execute("CALL pymig.sync_pending()")
    some = conn.execute("SELECT array_agg(channel) FROM pymig.channel WHERE ord % 2 = 0").fetchone()
    found = []
    for channels in (None, some and some[0]):
        for way in ("_read_rows_sql", "_read_columns_sql"):
            query = f"SELECT pymig.{way}(s, %s, %s, NULL, NULL) FROM pymig.source AS s"
            statement = conn.execute(query.encode(), [entity, channels]).fetchone()
            assert statement
            found.append(Counter(conn.execute(statement[0].encode()).fetchall()))
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0].total() > found[2].total() > 0


def test_few_rows_of_many_columns_are_read_row_by_row(db: Database) -> None:
    """Where that is cheaper, and not where jsonb strings would lose their quotes."""
    conn = _migrated(db, "many", "native")
    query = "SELECT pymig._read_wide_sql(s, 'X', %s, %s, NULL) FROM pymig.source AS s"

    def way(channels: list[str] | None, start: str | None) -> str:
        row = conn.execute(query.encode(), [channels, start]).fetchone()
        assert row
        return "rows" if "row_to_json" in row[0] else "columns"

    early = "2024-01-01 00:00+00"
    assert way(None, early) == "rows"
    assert way(None, None) == "columns"
    assert way(["c1", "c2"], early) == "columns"
    hundred = [f"c{n}" for n in range(1, 101)]
    assert way(hundred, "2024-01-01 00:01:15+00") == "rows"
    assert way(hundred, early) == "columns", "six rows of 1,700 for 100 of them"
    conn.execute("UPDATE pymig.channel SET column_type = 'jsonb' WHERE ord = 7")
    assert way(None, early) == "columns"


def test_wide_side_reads_wide(db: Database) -> None:
    """Not the narrow table by another way: a wrong cell shows, in an open session, at once."""
    conn = _migrated(db, "default", "native")
    reader = db.connect()
    reader.execute(
        "PREPARE p AS SELECT value FROM pymig.read('X', '{/int}', '2024-01-01', '2024-01-01 00:01')"
    )
    assert reader.execute("EXECUTE p").fetchall() == [("0",)]
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries_x SET \"/int\" = 99 WHERE created_time = '2024-01-01'"
    )
    assert reader.execute("EXECUTE p").fetchall() == [("0",)]
    _route(conn, "X", "wide")
    assert reader.execute("EXECUTE p").fetchall() == [("99",)]
    _route(conn, "X", "narrow")
    assert reader.execute("EXECUTE p").fetchall() == [("0",)]


@pytest.mark.parametrize("types", ["text", "native"])
@pytest.mark.parametrize("name", SOURCES)
def test_compat_view_is_the_narrow_table(db: Database, name: str, types: str) -> None:
    """Column by column, but for those wide does not keep, and rows that are no cells."""
    conn = _migrated(db, name, types)
    _, narrow, entity = SOURCES[name]
    conn.execute("CALL pymig.create_compat_view()")
    view = f"{narrow.table}_compat"
    columns = [
        narrow.entity_column,
        narrow.channel_column,
        narrow.time_column,
        *narrow.value_columns,
    ]
    if narrow.format_column:
        columns.append(narrow.format_column)
    listed = ", ".join(f"{column}::text" for column in columns)
    plain = Counter(conn.execute(f"SELECT {listed} FROM {narrow.table}".encode()).fetchall())
    assert Counter(conn.execute(f"SELECT {listed} FROM {view}".encode()).fetchall()) == plain
    shapes = [
        conn.execute(
            f"SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '{r}'::regclass AND attnum > 0 ORDER BY attnum".encode()
        ).fetchall()
        for r in (narrow.table, view)
    ]
    assert shapes[0] == shapes[1]
    _route(conn, entity, "wide")
    values = range(3, 3 + len(narrow.value_columns))
    if name == "doubled":  # the last sample of each second, as its one row
        cells = _read(conn, entity)
        rows = conn.execute(
            f"SELECT name, at::text, value::text FROM {view} WHERE unit = 'X'".encode()
        ).fetchall()
        assert Counter(rows) == cells
        others = conn.execute(f"SELECT {listed} FROM {view} WHERE unit <> 'X'".encode()).fetchall()
        assert Counter(others) == Counter({row: n for row, n in plain.items() if row[0] != "X"})
        return
    expected = Counter(
        {
            row: n
            for row, n in plain.items()
            if row[0] != entity
            or (row[-1] != "Nonsense" and any(row[i] is not None for i in values))
        }
    )
    assert Counter(conn.execute(f"SELECT {listed} FROM {view}".encode()).fetchall()) == expected


def test_compat_view_of_drifted_text(db: Database) -> None:
    """Text that does not look like its channel's kind comes back as text, never as an error."""
    conn = _migrated(db, "default", "text")
    conn.execute("CALL pymig.create_compat_view()")
    conn.execute(
        "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, str_v, value_format) VALUES ('X', '/int', '2024-03-01', 'abc', 'String')"
    )
    conn.execute("CALL pymig.sync_pending()")
    _route(conn, "X", "wide")
    query: LiteralString = "SELECT str_v, long_v, value_format FROM tenant.tbl_data_timeseries_compat WHERE ship_id = 'X' AND data_channel_id = '/int' AND created_time >= '2024-03-01'"
    assert conn.execute(query).fetchall() == [("abc", None, "String")]


def test_spans_of_a_grain_of_epochs(db: Database) -> None:
    """Each bound alone, none, and bounds off the grid; and the narrow index is left at the end of the span."""
    conn = db.connect()
    conn.execute(
        "CREATE TABLE ticks (ship text, ch text, at bigint, v float8, PRIMARY KEY (ship, ch, at))"
    )
    conn.execute(
        "CALL pymig.register_source('n', 'ticks', 'ship', 'ch', 'at', '{v}', p_time_unit => 'ms', p_time_grain => '1 s')"
    )
    conn.execute(
        "INSERT INTO ticks SELECT 'X', 'c', g * 250, g FROM generate_series(0, 19999) AS g"
    )
    conn.execute("ANALYZE ticks")
    conn.execute("CALL pymig.migrate('X')")
    spans = [
        (None, None),
        (None, 3000),
        (4990000, None),
        (1500, 3500),
        (1000, 3000),
        (0, 2**63 - 1),
    ]
    for routing in ("narrow", "wide", "shadow"):
        _route(conn, "X", routing)
        for first, last in spans:
            expected = Counter(
                ("c", str(row * 1000), str(row * 4 + 3))
                for row in range(5000)
                if (first is None or row * 1000 >= first) and (last is None or row * 1000 < last)
            )
            bounds = (None if bound is None else str(bound) for bound in (first, last))
            assert _read(conn, "X", ["c"], *bounds) == expected, (routing, first, last)
    assert conn.execute("SELECT sum(differences)::int FROM pymig.shadow_read").fetchone() == (0,)
    found = conn.execute(
        "SELECT pymig._read_narrow_sql(s, 'X', '{c}', '1000', '3000') FROM pymig.source AS s"
    ).fetchone()
    assert found is not None
    plan = conn.execute(f"EXPLAIN (ANALYZE) {found[0]}".encode()).fetchall()
    removed = [line for (line,) in plan if "Rows Removed by Filter" in line]
    assert all(int(line.split(": ")[1]) < 10 for line in removed), plan


@pytest.mark.parametrize("grain", ["NULL", "'1 s'"])
def test_rows_without_time_or_channel_are_no_cells(db: Database, grain: LiteralString) -> None:
    """They are in quarantine, and the narrow side leaves them out as the wide side has to."""
    conn = db.connect()
    conn.execute("SET TimeZone = 'UTC'")
    conn.execute("CREATE TABLE holes (ship text, ch text, at timestamptz, v float8)")
    conn.execute("CREATE INDEX ON holes (ship, at)")
    conn.execute(
        f"CALL pymig.register_source('n', 'holes', 'ship', 'ch', 'at', '{{v}}', p_tie_break => '{{v}}', p_time_grain => {grain})"
    )
    conn.execute(
        "INSERT INTO holes VALUES ('X', 'c', '2024-01-01', 1), ('X', 'c', NULL, 2), ('X', NULL, '2024-01-01', 3), ('X', 'c', 'infinity', 4)"
    )
    conn.execute("CALL pymig.migrate('X')")
    first, last = ("c", "2024-01-01 00:00:00+00", "1"), ("c", "infinity", "4")
    for routing in ("narrow", "wide", "shadow"):
        _route(conn, "X", routing)
        assert _read(conn, "X") == Counter([first, last]), routing
        assert _read(conn, "X", None, "-infinity", "infinity") == Counter([first]), routing
    assert conn.execute("SELECT sum(differences)::int FROM pymig.shadow_read").fetchone() == (0,)


def _plan(conn: psycopg.Connection[Any], query: LiteralString) -> str:
    return json.dumps(conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").fetchall()[0][0])


def test_predicates_are_pushed_down(db: Database) -> None:
    """Ship and time reach the tables; a ship not asked for is not read, nor is narrow for one cut over."""
    conn = _migrated(db, "default", "native")
    conn.execute("CALL pymig.create_compat_view()")
    _route(conn, "X", "wide")
    conn.execute("ANALYZE")
    view: LiteralString = "SELECT * FROM tenant.tbl_data_timeseries_compat WHERE created_time >= '2024-01-01 01:00' AND created_time < '2024-01-01 02:00' AND ship_id = "
    of_x, of_y = _nodes(_plan(conn, f"{view}'X'")), _nodes(_plan(conn, f"{view}'Y'"))
    assert "tbl_data_timeseries_x" in of_x
    assert "tbl_data_timeseries" not in {
        name for name, node in of_x.items() if node["Actual Loops"]
    }
    assert "tbl_data_timeseries_x" not in {
        name for name, node in of_y.items() if node["Actual Loops"]
    }
    wide = of_x["tbl_data_timeseries_x"]
    assert "created_time" in wide.get("Index Cond", wide.get("Filter", ""))
    assert wide["Actual Rows"] * wide["Actual Loops"] <= 4 * 4
    narrow = of_y["tbl_data_timeseries"]
    assert "ship_id" in narrow.get("Index Cond", "") + narrow.get("Filter", "")
    assert "created_time" in narrow.get("Index Cond", "") + narrow.get("Filter", "")
    one = _nodes(_plan(conn, f"{view}'X' AND data_channel_id = 'yes'"))
    assert one["channel"]["Actual Rows"] == 1


def _nodes(plan: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(node: dict[str, Any]) -> None:
        if "Relation Name" in node:
            found[node["Relation Name"]] = node
        for child in node.get("Plans", []):
            walk(child)

    walk(json.loads(plan)[0]["Plan"])
    return found


def test_percent_is_stable_and_about_that(db: Database) -> None:
    """A session stays on its side; of many sessions about so many are on the wide one."""
    conn = _migrated(db, "default", "native")
    conn.execute("CALL pymig.create_compat_view()")
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries_x SET \"/int\" = 99 WHERE created_time = '2024-01-01'"
    )
    _route(conn, "X", "percent", 40)
    both: LiteralString = (
        "SELECT (SELECT value FROM pymig.read('X', '{/int}', '2024-01-01', '2024-01-01 00:01')),"
        " (SELECT long_v::text FROM tenant.tbl_data_timeseries_compat WHERE ship_id = 'X' AND data_channel_id = '/int' AND created_time = '2024-01-01')"
    )
    sides = Counter[str]()
    for _ in range(60):
        with psycopg.connect(db.url, autocommit=True) as reader:
            seen = {reader.execute(both).fetchone() for _ in range(3)}
            assert len(seen) == 1
            (side,) = seen
            assert side and side[0] == side[1]
            sides[side[0]] += 1
    assert 8 <= sides["99"] <= 42, sides
    for percent, value in ((0, "0"), (100, "99")):
        _route(conn, "X", "percent", percent)
        assert conn.execute(both).fetchone() == (value, value)


def test_shadow(db: Database) -> None:
    """Narrow is returned; differences and both times are on record; not in a read-only transaction."""
    conn = _migrated(db, "default", "native")
    _route(conn, "X", "shadow")
    expected = _read(conn, "X", ["/int"], "2024-01-01", "2024-01-02")
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries SET long_v = 7 WHERE ship_id = 'X' AND data_channel_id = '/int' AND created_time = '2024-01-01 00:30'"
    )
    assert ("/int", "2024-01-01 00:30:00", "7") in _read(
        conn, "X", ["/int"], "2024-01-01", "2024-01-02"
    )
    conn.execute("CALL pymig.sync_pending()")
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries_x SET \"/int\" = 99 WHERE created_time = '2024-01-01'"
    )
    assert expected - _read(conn, "X", ["/int"], "2024-01-01", "2024-01-02") == Counter(
        {("/int", "2024-01-01 00:30:00", "1"): 1}
    )
    rows = conn.execute(
        "SELECT differences, cells, sample, narrow_ms > 0 AND wide_ms > 0, channels, from_time, to_time, read_by FROM pymig.shadow_read ORDER BY shadow_read"
    ).fetchall()
    # A key that is pending is no difference.
    assert [row[0] for row in rows] == [0, 0, 2]
    assert rows[-1][1:2] + rows[-1][3:] == (
        10,
        True,
        ["/int"],
        "2024-01-01",
        "2024-01-02",
        "postgres",
    )
    assert {(cell["side"], cell["value"]) for cell in rows[-1][2]} == {
        ("narrow", "0"),
        ("wide", "99"),
    }
    with conn.transaction(force_rollback=True):
        conn.execute("SET TRANSACTION READ ONLY")
        _read(conn, "X", ["/int"])
    assert conn.execute("SELECT shadow_reads, shadow_differing FROM pymig.routing").fetchone() == (
        3,
        1,
    )
    conn.execute(
        "INSERT INTO pymig.shadow_read (source, entity, cells, differences, narrow_ms, wide_ms) SELECT 'n', 'X', 1, 0, 1, 1 FROM generate_series(1, 10100)"
    )
    conn.execute("CALL pymig.reverify()")
    assert conn.execute("SELECT count(*) FROM pymig.shadow_read").fetchone() == (10000,)


def test_what_is_refused(db: Database) -> None:
    """Unverified ships stay on narrow; wrong names and numbers get a sentence; taken names, too."""
    conn = _migrated(db, "default", "native")
    conn.execute("CALL pymig.start_sync('Y')")
    conn.execute("CREATE TABLE tenant.tbl_data_timeseries_compat (a int)")
    for statement, sqlstate in (
        ("CALL pymig.set_routing('Y', 'wide')", "PM050"),
        ("CALL pymig.set_routing('Y', 'shadow')", "PM050"),
        ("CALL pymig.set_routing('X', 'widely')", "PM007"),
        ("CALL pymig.set_routing('X', 'percent')", "PM007"),
        ("CALL pymig.set_routing('X', 'wide', 5)", "PM007"),
        ("CALL pymig.set_routing('X', 'percent', 101)", "PM007"),
        ("CALL pymig.set_routing('Z', 'wide')", "PM002"),
        ("CALL pymig.create_compat_view()", "PM014"),
        ("SELECT * FROM pymig.read('Z')", "PM002"),
        ("SELECT * FROM pymig.read('X', NULL, 'yesterdayish')", "22007"),
    ):
        with pytest.raises(psycopg.Error) as raised:
            conn.execute(statement.encode())
        assert raised.value.sqlstate == sqlstate, statement
    conn.execute("CALL pymig.set_routing('Y', 'narrow')")
    assert conn.execute("SELECT count(*) FROM pymig.read('Y', '{never}')").fetchone() == (0,)


def test_reader_needs_no_more_than_to_read(db: Database) -> None:
    """USAGE of the schema and SELECT of the catalog; what he may not read there he may not read here."""
    conn = _migrated(db, "default", "native")
    conn.execute("CREATE ROLE reader_of_x")
    conn.execute("CREATE ROLE stranger")
    try:
        conn.execute("GRANT USAGE ON SCHEMA tenant, pymig TO reader_of_x, stranger")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA pymig TO reader_of_x, stranger")
        conn.execute(
            "GRANT SELECT ON tenant.tbl_data_timeseries, tenant.tbl_data_timeseries_x TO reader_of_x"
        )
        conn.execute("CALL pymig.create_compat_view()")
        for routing in ("narrow", "wide", "shadow"):
            _route(conn, "X", routing)
            with conn.transaction(force_rollback=True):
                conn.execute("SET LOCAL ROLE reader_of_x")
                assert len(_read(conn, "X")) == 100
                assert conn.execute(
                    "SELECT count(*) >= 100 FROM tenant.tbl_data_timeseries_compat WHERE ship_id = 'X'"
                ).fetchone() == (True,)
            for query in (
                "SELECT * FROM pymig.read('X')",
                "SELECT * FROM tenant.tbl_data_timeseries_compat",
                "SELECT * FROM pymig.n_cell",
            ):
                with conn.transaction(force_rollback=True):
                    conn.execute("SET LOCAL ROLE stranger")
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        conn.execute(query.encode())
    finally:
        for role in ("reader_of_x", "stranger"):
            conn.execute(f"DROP OWNED BY {role}".encode())
            conn.execute(f"DROP ROLE {role}".encode())


def test_the_compat_view_follows(db: Database) -> None:
    """New channels and parts, promotion, a rename, cutover, rollback, uninstalling: nothing is in the way."""
    conn = _migrated(db, "default", "native")
    conn.execute("CALL pymig.create_compat_view()")
    conn.execute("CALL pymig.create_compat_view()")
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.cut_over('X')")
    assert conn.execute("SELECT routing FROM pymig.routing").fetchone() == ("wide",)
    conn.execute(
        "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format) SELECT 'X', 'new ' || g, '2024-01-01', g, 'Decimal' FROM generate_series(1, 1100) AS g"
    )
    conn.execute("CALL pymig.sync_pending()")
    count: LiteralString = "SELECT count(*) FROM tenant.tbl_data_timeseries_compat WHERE ship_id = 'X' AND created_time = '2024-01-01'"
    assert conn.execute(count).fetchone() == (1104,)
    conn.execute("ALTER TABLE tenant.tbl_data_timeseries_x_1 RENAME COLUMN yes TO no")
    conn.execute("CALL pymig.verify('X')")
    conn.execute("CALL pymig.set_type_drift(NULL, 'promote')")
    conn.execute(
        "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format) VALUES ('X', '/int', '2024-01-02', 0.5, 'Decimal')"
    )
    promoted: LiteralString = "SELECT column_type FROM pymig.channel WHERE channel = '/int'"
    sync_until(conn, promoted, "float8", "/int is not promoted")
    assert conn.execute(count).fetchone() == (1104,)
    assert conn.execute(
        "SELECT double_v FROM tenant.tbl_data_timeseries_compat WHERE ship_id = 'X' AND data_channel_id = '/int' AND created_time = '2024-01-02'"
    ).fetchone() == (0.5,)
    conn.execute("CALL pymig.roll_back('X')")
    assert conn.execute(count).fetchone() == (1104,)
    conn.execute("CALL pymig.drop_compat_view()")
    conn.execute("CALL pymig.create_compat_view(p_name => 'as_before')")
    conn.execute("CALL pymig.unregister_source('n')")
    assert conn.execute("SELECT to_regclass('tenant.as_before')").fetchone() == (None,)


def test_two_sessions_change_the_compat_view(db: Database) -> None:
    """The second waits for the first to commit, and shows what that changed."""
    conn = _migrated(db, "default", "native")
    conn.execute("CALL pymig.migrate('Y', p_column_types => 'native')")
    conn.execute("CALL pymig.create_compat_view()")
    other = db.connect()
    with conn.transaction():
        conn.execute("SELECT pymig._set_routing('n', 'X', 'wide')")
        # Without the timeout of set_routing, which would make it try again and look anew.
        second: LiteralString = "SELECT pymig._set_routing('n', 'Y', 'wide')"
        thread = threading.Thread(target=other.execute, args=(second,))
        thread.start()
        thread.join(0.4)
        assert thread.is_alive()
    thread.join(20)
    shown = conn.execute("SELECT pg_get_viewdef('tenant.tbl_data_timeseries_compat')").fetchone()
    assert shown
    assert "tbl_data_timeseries_x" in shown[0]
    assert "tbl_data_timeseries_y" in shown[0]
