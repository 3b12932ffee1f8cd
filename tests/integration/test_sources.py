"""Narrow tables of other shapes than the default source: migrated, kept in sync, or refused.

Every source that is served is judged by the oracle after its backfill and after changes; every one
that is not is refused in one sentence and leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Database
from tests.oracle import Narrow, difference

LIMIT: Final = "-c statement_timeout=30s"  # a loop without an end is a failure, not a hang
SHIP: Final = "0b1e3c5a-0000-4000-8000-00000000000a"


@dataclass(frozen=True)
class Case:
    """A narrow table, how it is registered, and changes made after the migration."""

    name: str
    create: LiteralString
    arguments: LiteralString
    narrow: Narrow
    entity: str
    rows: LiteralString
    change: LiteralString
    quarantined: int = 0


def _narrow(table: str, *columns: str, **more: Any) -> Narrow:
    entity, channel, time, *values = columns
    return Narrow("plant", table, entity, channel, time, tuple(values), **more)


EPOCH_CREATE: LiteralString = """
CREATE TABLE t (ship int, ch text, ts bigint, v float8, PRIMARY KEY (ship, ch, ts))
"""
EPOCH_CHANGE: LiteralString = """
UPDATE t SET v = -v WHERE v > 5; DELETE FROM t WHERE v = 3;
UPDATE t SET ts = ts + 1 WHERE v = 4; INSERT INTO t VALUES (7, 'a', -1, 0.5), (7, 'b', 0, 0.25);
"""


def _epoch(unit: str, per_second: int) -> Case:
    rows = f"""
INSERT INTO t SELECT s, c, 1700000000::bigint * {per_second} + n * {per_second}::bigint * 600, n
FROM unnest('{{7,8}}'::int[]) AS s, unnest('{{a,b,c}}'::text[]) AS c, generate_series(-6, 9) AS n;
INSERT INTO t VALUES (7, 'a', -3600 * {per_second}::bigint, 1), (7, 'a', -3601 *
    {per_second}::bigint, 2),
    (7, 'b', 9223372036854775807, 3), (7, 'b', -9223372036854775808, 4), (7, 'c', 0, 5)
"""
    return Case(
        f"bigint_{unit}",
        EPOCH_CREATE,
        f"'t', 'ship', 'ch', 'ts', '{{v}}', p_time_unit => '{unit}'",
        _narrow("t", "ship", "ch", "ts", "v", time_unit=unit),
        "7",
        rows,
        EPOCH_CHANGE,
    )


def _values(name: str, column: LiteralString, first: LiteralString, other: LiteralString) -> Case:
    """One value column of some type, in which `first` and `other` are array literals."""
    insert: LiteralString = "INSERT INTO t SELECT 'x', "
    rows: LiteralString = "::{}[]) WITH ORDINALITY AS u (v, n)".replace("{}", column)
    return Case(
        name,
        f"CREATE TABLE t (ship text, ch text, ts timestamp, v {column},"
        " PRIMARY KEY (ship, ch, ts))",
        "'t', 'ship', 'ch', 'ts', '{v}'",
        _narrow("t", "ship", "ch", "ts", "v"),
        "x",
        f"{insert}'ch' || n % 3, '2024-01-01'::timestamp + n * interval '7 min', v"
        f" FROM unnest({first}{rows}",
        f"UPDATE t SET v = ({other}::{column}[])[1] WHERE ch = 'ch1';"
        f" {insert}'new', '2024-01-02'::timestamp + n * interval '1 day', v"
        f" FROM unnest({other}{rows}",
    )


CASES: Final = (
    Case(
        "uuid_dictionary_timestamptz_schema",
        """
        CREATE SCHEMA "Plant 1"; CREATE SCHEMA "wide ones";
        CREATE TABLE "Plant 1".dict (no int PRIMARY KEY, label text);
        INSERT INTO "Plant 1".dict VALUES (1, 'oil temp'), (2, 'same'), (3, 'same'), (4, 'at time'),
            (5, ''), (6, NULL), (7, 'xmin');
        CREATE TABLE "Plant 1"."Samples" (machine uuid, sensor int, "at time" timestamptz,
            num double precision, note text, fmt smallint,
            PRIMARY KEY (machine, sensor, "at time"));
        """,
        "'\"Plant 1\".\"Samples\"', 'machine', 'sensor', 'at time', '{num,note}', 'fmt',"
        ' \'{"1":"num","2":"note"}\', p_wide_schema => \'wide ones\','
        " p_wide_name => 'w {entity}',"
        " p_dictionary => '\"Plant 1\".dict', p_dictionary_key => 'no',"
        " p_dictionary_name => 'label', p_bucket => '5 minutes'",
        _narrow(
            '"Plant 1"."Samples"',
            "machine",
            "sensor",
            "at time",
            "num",
            "note",
            format_column="fmt",
            formats={"1": "num", "2": "note"},
        ),
        SHIP,
        f"""
        INSERT INTO "Plant 1"."Samples"
        SELECT m, s, '2024-03-31 00:30+00'::timestamptz + n * interval '1 minute', n / 7.0, NULL, 1
        FROM unnest('{{{SHIP},0b1e3c5a-0000-4000-8000-00000000000b}}'::uuid[]) AS m,
            generate_series(1, 9) AS s, generate_series(0, 90) AS n WHERE s % 3 > 0 OR n % 4 = 0;
        UPDATE "Plant 1"."Samples" SET note = 'n' || num, num = NULL, fmt = 2 WHERE sensor = 8;
        UPDATE "Plant 1"."Samples" SET fmt = 3 WHERE sensor = 9
            AND "at time" = '2024-03-31 00:30+00';
        """,
        f"""
        DELETE FROM "Plant 1"."Samples" WHERE "at time" = '2024-03-31 01:00+00';
        UPDATE "Plant 1"."Samples" SET sensor = 10 WHERE sensor = 1;
        INSERT INTO "Plant 1"."Samples" VALUES ('{SHIP}', 11, 'infinity', 1, NULL, 1);
        """,
        quarantined=1,
    ),
    _epoch("s", 1),
    _epoch("ms", 1_000),
    _epoch("us", 1_000_000),
    Case(
        "date",
        "CREATE TABLE t (ship text, ch text, d date, v int, PRIMARY KEY (ship, ch, d))",
        "'t', 'ship', 'ch', 'd', '{v}', p_bucket => '10 days'",
        _narrow("t", "ship", "ch", "d", "v"),
        "x",
        """
        INSERT INTO t SELECT 'x', c, '1999-12-20'::date + n, n
        FROM unnest('{a,b}'::text[]) AS c, generate_series(0, 60, 3) AS n;
        INSERT INTO t VALUES ('x', 'a', 'infinity', 1), ('x', 'b', '-infinity', 2),
            ('x', 'a', '4714-11-24 BC', 3), ('x', 'a', '5874897-12-31', 4)
        """,
        "UPDATE t SET d = d + 1 WHERE v > 30; DELETE FROM t WHERE v = 1;"
        " INSERT INTO t VALUES ('x', 'b', '5874897-12-31', 9)",
    ),
    _values("text", "text", '\'{a,"",NULL,"NULL",b}\'', "'{\"\",z}'"),
    _values(
        "jsonb",
        "jsonb",
        "ARRAY['1.0','1.00','null','\"x\"','{\"a\": [1, \"b\"]}','[]',NULL]",
        "ARRAY['1e400','\"\\u00e9\"']",
    ),
    _values(
        "numeric",
        "numeric",
        "'{1.0,1.00,-0.00,NaN,Infinity,-Infinity,1e200,1e-200,NULL}'",
        "'{0.10,99999999999999999999.5}'",
    ),
    _values("real", "real", "'{0.1,-0,NaN,1e-45,3.4e38,Infinity,16777217}'", "'{0.3,-Infinity}'"),
    _values("smallint", "smallint", "'{-32768,32767,0,NULL}'", "'{1,2}'"),
    _values("varchar", "varchar(12)", "'{a,\"b \",NULL}'", "'{\" c\",d}'"),
    _values("interval", "interval", "'{1 day,25:00,-1 mon}'", "'{1 year}'"),
    _values("bytea", "bytea", '\'{"\\\\\\\\x00ff",""}\'', "'{\"\\\\\\\\x01\"}'"),
    Case(
        "typed_columns_without_format",
        "CREATE TABLE t (ship text, ch text, ts timestamp, f float8, i int8, s text, b bool,"
        " PRIMARY KEY (ship, ch, ts))",
        "'t', 'ship', 'ch', 'ts', '{f,i,s,b}'",
        _narrow("t", "ship", "ch", "ts", "f", "i", "s", "b"),
        "x",
        """
        INSERT INTO t SELECT 'x', 'f', '2024-01-01'::timestamp + n * interval '1 min', n / 3.0
            FROM generate_series(1, 90) n;
        INSERT INTO t (ship, ch, ts, i) SELECT 'x', 'i', '2024-01-01'::timestamp + n * interval
            '2 min', n FROM generate_series(1, 45) n;
        INSERT INTO t (ship, ch, ts, s, b) SELECT 'x', 'mixed', '2024-01-01'::timestamp + n *
            interval '2 min',
            CASE n % 3 WHEN 0 THEN 'text' END, CASE n % 3 WHEN 1 THEN true END FROM
                generate_series(1, 45) n;
        INSERT INTO t VALUES ('x', 'b', '2024-01-01', NULL, NULL, NULL, false),
            ('x', 'several', '2024-01-01', 1, NULL, NULL, false), ('x', 'several',
                '2024-01-01 00:10', NULL, 7, 'a', NULL),
            ('x', 'several', '2024-01-01 00:20', NULL, NULL, NULL, NULL), ('x', 'several',
                '2024-01-01 00:30', 3, NULL, NULL, NULL)
        """,
        """
        UPDATE t SET b = NULL WHERE ch = 'several' AND ts = '2024-01-01';
        UPDATE t SET s = 'now two' WHERE ch = 'b';
        INSERT INTO t (ship, ch, ts, s, b) VALUES ('x', 's', '2024-01-02', '', NULL);
        """,
        quarantined=2,
    ),
    Case(
        "grain_of_one_second",
        "CREATE TABLE t (ship text, ch text, ts timestamp, v float8, PRIMARY KEY (ship, ch, ts))",
        "'t', 'ship', 'ch', 'ts', '{v}', p_time_grain => '1 second', p_bucket => '1 minute'",
        _narrow("t", "ship", "ch", "ts", "v", time_grain=timedelta(seconds=1)),
        "x",
        """
        INSERT INTO t SELECT 'x', c, '1999-12-31 23:58:00'::timestamp + n * interval '0.3 s', n +
            length(c)
        FROM unnest('{a,bb}'::text[]) AS c, generate_series(0, 900) AS n WHERE length(c) = 1 OR n
            % 5 = 0;
        INSERT INTO t VALUES ('x', 'a', '2024-01-01 00:00:59.999999', NULL), ('x', 'a',
            '2024-01-01 00:00:59.5', 1),
            ('x', 'a', 'infinity', 1), ('x', 'a', '-infinity', 2), ('x', 'a', '4713-01-01 BC',
                3), ('x', 'bb', '1900-01-01', 4),
            ('x', 'bb', '294276-12-31 23:59:59.999999', 5), ('x', 'bb',
                '1900-01-01 00:00:00.000001', 6)
        """,
        """
        DELETE FROM t WHERE ch = 'a' AND ts = (SELECT max(ts) FROM t WHERE ts < '2000-01-01');
        UPDATE t SET v = NULL WHERE ch = 'bb' AND ts > '2000-01-01' AND ts < '2001-01-01';
        INSERT INTO t VALUES ('x', 'a', '2024-01-01 00:00:59.999998', 9), ('x', 'a',
            '2024-01-01 00:01:00.1', 9);
        """,
    ),
    Case(
        "grain_of_ten_seconds_in_ms",
        "CREATE TABLE t (ship text, ch text, ts bigint, v float8, PRIMARY KEY (ship, ch, ts))",
        "'t', 'ship', 'ch', 'ts', '{v}', p_time_unit => 'ms', p_time_grain => '10 s'",
        _narrow("t", "ship", "ch", "ts", "v", time_grain=timedelta(seconds=10), time_unit="ms"),
        "x",
        "INSERT INTO t SELECT 'x', 'a', n * 777, n FROM generate_series(-300, 300) AS n",
        "DELETE FROM t WHERE ts % 13 = 0; UPDATE t SET v = v + 0.5 WHERE ts % 7 = 0;"
        " INSERT INTO t VALUES ('x', 'b', -1, 1), ('x', 'b', -10000, 2), ('x', 'b', -10001, 3)",
    ),
    Case(
        "no_key_and_nulls",
        "CREATE TABLE t (seq bigserial, ship text, ch text, ts timestamp, v float8);"
        " CREATE INDEX ON t (ship, ts)",
        "'t', 'ship', 'ch', 'ts', '{v}', p_tie_break => '{seq}'",
        _narrow("t", "ship", "ch", "ts", "v", tie_break=("seq",)),
        "x",
        """
        INSERT INTO t (ship, ch, ts, v) SELECT 'x', 'a', '2024-01-01'::timestamp + n % 40 *
            interval '5 min', n FROM generate_series(1, 90) AS n;
        INSERT INTO t (ship, ch, ts, v) VALUES ('x', NULL, '2024-01-01', 1), ('x', 'a', NULL, 2),
            ('x', NULL, NULL, 3),
            ('x', 'a', NULL, 4), ('x', NULL, '2024-06-01', NULL), ('x', 'b', '2024-01-01', NULL)
        """,
        """
        INSERT INTO t (ship, ch, ts, v) VALUES ('x', 'only', NULL, 1), ('x', NULL,
            '2024-06-01 05:00', 1);
        UPDATE t SET ts = '2024-01-01 00:02' WHERE v = 2 AND ts IS NULL;
        UPDATE t SET ch = 'c' WHERE ts = '2024-06-01';
        DELETE FROM t WHERE v = 3;
        """,
        quarantined=5,
    ),
    Case(
        "nullable_columns_under_a_unique_key",
        "CREATE TABLE t (seq int, ship text, ch text, ts timestamp, v float8,"
        " UNIQUE (ship, ch, ts));"
        " CREATE INDEX ON t (ts)",
        "'t', 'ship', 'ch', 'ts', '{v}', p_tie_break => '{seq}'",
        _narrow("t", "ship", "ch", "ts", "v", tie_break=("seq",)),
        "x",
        """
        INSERT INTO t SELECT n, 'x', 'a', '2024-01-01'::timestamp + n * interval '5 min', n FROM
            generate_series(1, 90) AS n;
        INSERT INTO t VALUES (91, 'x', NULL, '2024-01-01', 1), (92, 'x', 'a', NULL, 2), (NULL,
            'x', 'a', '2023-01-01', 2)
        """,
        "INSERT INTO t VALUES (1, 'x', NULL, '2025-01-01', 1); "
        " UPDATE t SET ch = 'z' WHERE ch IS NULL AND seq = 91",
        quarantined=2,
    ),
)


def _register(conn: psycopg.Connection[Any], arguments: str) -> None:
    conn.execute(f"CALL pymig.register_source('plant', {arguments})".encode())


def _count(conn: psycopg.Connection[Any], query: LiteralString) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("column_types", ["text", "native"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_source_equals_the_oracle(db: Database, case: Case, column_types: str) -> None:
    """After the migration, after changes, and after rolling back and migrating again."""
    conn = db.connect(options=LIMIT)
    conn.execute(case.create)
    conn.execute(case.rows)
    _register(conn, case.arguments)
    conn.execute("CALL pymig.migrate(%s, p_column_types => %s)", [case.entity, column_types])
    assert difference(conn, case.narrow) == []
    assert _count(conn, "SELECT count(*) FROM pymig.quarantine") == case.quarantined
    before = _count(conn, "SELECT count(*) FROM pymig.channel_map")
    assert before > 0
    conn.execute(case.change)
    assert _count(conn, "SELECT count(*) FROM pymig.pending") > 0
    conn.execute("CALL pymig.sync_pending()")
    assert _count(conn, "SELECT count(*) FROM pymig.pending") == 0
    assert difference(conn, case.narrow) == []
    conn.execute("CALL pymig.verify(%s)", [case.entity])
    for strategy in ("transpose", "json", "filter"):
        conn.execute("CALL pymig.roll_back(%s)", [case.entity])
        assert _count(conn, "SELECT count(*) FROM pymig.channel_map") == 0
        conn.execute(
            "CALL pymig.migrate(%s, p_column_types => %s, p_strategy => %s)",
            [case.entity, column_types, strategy],
        )
        assert difference(conn, case.narrow) == []


def test_dictionary_names_the_columns(db: Database) -> None:
    """Readable names where they serve; a hash where two are equal, empty, reserved or too long."""
    conn = db.connect(options=LIMIT)
    case = CASES[0]
    conn.execute(case.create)
    conn.execute(case.rows)
    _register(conn, case.arguments)
    conn.execute("CALL pymig.migrate(%s)", [case.entity])
    names = dict(conn.execute("SELECT channel, wide_column FROM pymig.channel_map").fetchall())
    assert names["1"] == "oil temp"
    assert names["8"] == "8"  # not in the dictionary
    assert names["6"] == "6"  # there, without a name
    assert names["2"] != names["3"]
    assert names["2"].startswith("same_") and names["3"].startswith("same_")
    assert names["4"] not in ("at time", "4") and names["7"] != "xmin" and names["5"]
    tables = {row[0] for row in conn.execute("SELECT wide_table FROM pymig.channel_map")}
    assert tables == {f'"wide ones"."w {SHIP}"'}


def test_wide_tables_stand_beside_the_narrow_one(db: Database) -> None:
    """Without p_wide_schema, also where the schema's name needs quotes."""
    conn = db.connect(options=LIMIT)
    conn.execute(
        'CREATE SCHEMA "Plant ""1"; CREATE TABLE "Plant ""1"."N" (ship int, ch int, ts timestamp,'
        ' v int, PRIMARY KEY (ship, ch, ts)); INSERT INTO "Plant ""1"."N" VALUES (1, 2, now(), 3)'
    )
    _register(conn, "'\"Plant \"\"1\".\"N\"', 'ship', 'ch', 'ts', '{v}'")
    conn.execute("CALL pymig.migrate('1')")
    tables = conn.execute("SELECT wide_table, wide_column FROM pymig.channel_map").fetchall()
    assert tables == [('"Plant ""1"."N_1"', "2")]
    assert difference(conn, _narrow('"Plant ""1"."N"', "ship", "ch", "ts", "v")) == []


INGEST_TYPES: Final[tuple[tuple[LiteralString, LiteralString], ...]] = (
    ("char(8)", "ABCDEFGH"),
    ("varchar(8)", "ABCDEFGH"),
    ("name", "ABCDEFGH"),
    ("d_not_null", "ABCDEFGH"),
    ("kind", "A"),
    ("smallint", "12"),
)


@pytest.mark.parametrize("kind,value", INGEST_TYPES, ids=[k for k, _ in INGEST_TYPES])
def test_entity_type_never_breaks_ingest(
    db: Database, kind: LiteralString, value: LiteralString
) -> None:
    """An entity column of another type is served or refused; ingest never fails for it."""
    conn = db.connect(options=LIMIT)
    conn.execute(
        "CREATE DOMAIN d_not_null AS text NOT NULL; CREATE TYPE kind AS ENUM ('A', 'B');"
        f"CREATE TABLE t (ship {kind}, ch text, ts timestamp, v int, PRIMARY KEY (ship, ch, ts));"
        f"INSERT INTO t VALUES ('{value}', 'a', '2024-01-01', 1)"
    )
    try:
        _register(conn, "'t', 'ship', 'ch', 'ts', '{v}'")
    except psycopg.Error as error:
        assert error.sqlstate == "PM003"
        return
    conn.execute("CALL pymig.migrate(%s)", [value])
    conn.execute(f"INSERT INTO t VALUES ('{value}', 'a', '2024-01-02', 2)")
    conn.execute("UPDATE t SET v = v + 1")
    conn.execute("CALL pymig.verify(%s)", [value])
    assert difference(conn, _narrow("t", "ship", "ch", "ts", "v")) == []
    conn.execute("DELETE FROM t WHERE v = 2")
    conn.execute("TRUNCATE t")
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, _narrow("t", "ship", "ch", "ts", "v")) == []


# --- refusals -----------------------------------------------------------------------------------

TABLES: LiteralString = """
CREATE TABLE t (id int, ship text, ch text, ts timestamp, tz timestamptz, d date, e bigint, n int,
    v float8, s text, f text, j json, PRIMARY KEY (ship, ch, ts));
CREATE TABLE bare (ship text, ch text, ts timestamp, v float8);
CREATE TABLE partial (ship text, ch text, ts timestamp, v float8);
CREATE INDEX ON partial (ship, ts) WHERE v > 0;
CREATE TABLE loose (id int, ship text, ch text, ts timestamp, v float8, j json);
CREATE INDEX ON loose (ship, ts);
CREATE TABLE hashed (ship text, ch text, ts timestamp, v float8);
CREATE INDEX ON hashed USING hash (ts);
CREATE TABLE epoch (ship text, ch text, ts bigint, v float8, PRIMARY KEY (ship, ch, ts));
CREATE TABLE parted (ship text, ch text, ts timestamp, v float8, PRIMARY KEY (ship, ch, ts))
    PARTITION BY RANGE (ts);
CREATE TABLE parent (LIKE t INCLUDING ALL); CREATE TABLE child () INHERITS (parent);
CREATE VIEW a_view AS SELECT * FROM t; CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM t;
CREATE SEQUENCE a_sequence;
CREATE TABLE dict (k int, name text);
CREATE TEMPORARY TABLE gone (LIKE t INCLUDING ALL);
"""
GOOD: Final = {
    "p_source": "'plant'",
    "p_narrow": "'t'",
    "p_entity_column": "'ship'",
    "p_channel_column": "'ch'",
    "p_time_column": "'ts'",
    "p_value_columns": "'{v}'",
}
BY_FORMAT: Final = {"p_format_column": "'f'", "p_formats": '\'{"D":"v"}\''}
REFUSED: Final[dict[str, dict[str, str]]] = {
    "name with capitals": {"p_source": "'Plant'"},
    "name too long": {"p_source": f"'{'a' * 41}'"},
    "name with a quote": {"p_source": "'a\"b'"},
    "empty name": {"p_source": "''"},
    "NULL name": {"p_source": "NULL"},
    "NULL table": {"p_narrow": "NULL"},
    "inheritance": {"p_narrow": "'parent'"},
    "view": {"p_narrow": "'a_view'"},
    "materialized view": {"p_narrow": "'a_matview'"},
    "sequence": {"p_narrow": "'a_sequence'"},
    "temporary": {"p_narrow": "'gone'"},
    "no entity column": {"p_entity_column": "'nope'"},
    "no channel column": {"p_channel_column": "'CH'"},
    "no time column": {"p_time_column": "'nope'"},
    "system column": {"p_tie_break": "'{ctid}'"},
    "no value column": {"p_value_columns": "'{v,nope}'"},
    "no tie-break column": {"p_tie_break": "'{nope}'"},
    "no format column": {**BY_FORMAT, "p_format_column": "'nope'"},
    "no values": {"p_value_columns": "'{}'"},
    "NULL values": {"p_value_columns": "NULL"},
    "NULL among values": {"p_value_columns": "'{v,NULL}'"},
    "value twice": {"p_value_columns": "'{v,v}'"},
    "NULL entity column": {"p_entity_column": "NULL"},
    "NULL channel column": {"p_channel_column": "NULL"},
    "NULL time column": {"p_time_column": "NULL"},
    "time is text": {"p_time_column": "'s'"},
    "time is int": {"p_time_column": "'n'"},
    "epoch without unit": {"p_narrow": "'epoch'"},
    "unit without epoch": {"p_time_unit": "'s'"},
    "unknown unit": {"p_narrow": "'epoch'", "p_time_unit": "'ns'"},
    "format without formats": {"p_format_column": "'f'"},
    "formats without format": {"p_formats": '\'{"D":"v"}\''},
    "formats empty": {**BY_FORMAT, "p_formats": "'{}'"},
    "formats not an object": {**BY_FORMAT, "p_formats": "'[]'"},
    "formats a scalar": {**BY_FORMAT, "p_formats": "'7'"},
    "formats with null": {**BY_FORMAT, "p_formats": '\'{"D":null}\''},
    "formats name another column": {**BY_FORMAT, "p_formats": '\'{"D":"s"}\''},
    "column types": {"p_column_types": "'varchar'"},
    "NULL column types": {"p_column_types": "NULL"},
    "policy": {"p_new_entities": "'maybe'"},
    "NULL policy": {"p_new_entities": "NULL"},
    "no wide schema": {"p_wide_schema": "'nope'"},
    "wide name without entity": {"p_wide_name": "'wide_{table}'"},
    "NULL wide name": {"p_wide_name": "NULL"},
    "dictionary without columns": {"p_dictionary": "'dict'"},
    "dictionary with a wrong column": {
        "p_dictionary": "'dict'", "p_dictionary_key": "'k'", "p_dictionary_name": "'label'",
    },
    "dictionary columns without one": {"p_dictionary_key": "'k'", "p_dictionary_name": "'name'"},
    "no index": {"p_narrow": "'bare'"},
    "partial index": {"p_narrow": "'partial'", "p_tie_break": "'{v}'"},
    "hash index": {"p_narrow": "'hashed'", "p_tie_break": "'{v}'"},
    "no unique key, no tie-break": {"p_narrow": "'loose'"},
    "tie-break without an order": {"p_narrow": "'loose'", "p_tie_break": "'{j}'"},
    "bucket no multiple of grain": {"p_time_grain": "'7 seconds'"},
    "NULL bucket": {"p_bucket": "NULL"},
    "bucket of nothing": {"p_bucket": "'0'"},
    "negative bucket": {"p_bucket": "'-1 hour'"},
    "negative grain": {"p_time_grain": "'-1 second'"},
    "grain below the unit": {
        "p_narrow": "'epoch'", "p_time_unit": "'s'", "p_time_grain": "'100 ms'",
    },
}  # fmt: skip
OBJECTS: LiteralString = """
SELECT (SELECT array_agg(c.relname::text ORDER BY 1) FROM pg_class AS c
        WHERE c.relnamespace = 'pymig'::regnamespace),
    (SELECT array_agg(p.proname::text ORDER BY 1) FROM pg_proc AS p
     WHERE p.pronamespace = 'pymig'::regnamespace),
    (SELECT count(*) FROM pymig.source), (SELECT count(*) FROM pymig.event),
    pg_get_viewdef('pymig.pending'::regclass), (SELECT count(*) FROM pg_trigger)
"""


def _refused(conn: psycopg.Connection[Any], changed: dict[str, str]) -> psycopg.Error:
    """Try to register; returns the error after checking that nothing was left behind."""
    before = conn.execute(OBJECTS).fetchone()
    arguments = ", ".join(f"{name} => {value}" for name, value in {**GOOD, **changed}.items())
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"CALL pymig.register_source({arguments})".encode())
    assert conn.execute(OBJECTS).fetchone() == before
    return caught.value


def _is_one_sentence(error: psycopg.Error) -> bool:
    sentence = error.diag.message_primary or ""
    return bool(sentence) and "\n" not in sentence and len(sentence) < 200 and ". " not in sentence


def test_the_good_arguments_are_accepted(db: Database) -> None:
    """Otherwise all refusals below could be one and the same."""
    conn = db.connect(options=LIMIT)
    conn.execute(TABLES)
    arguments = ", ".join(f"{name} => {value}" for name, value in GOOD.items())
    conn.execute(f"CALL pymig.register_source({arguments})".encode())
    assert _count(conn, "SELECT count(*) FROM pymig.source") == 1
    assert _refused(conn, {"p_source": "'other'"}).sqlstate == "PM003"  # the table is taken
    assert _refused(conn, {"p_narrow": "'parent'"}).sqlstate == "PM003"  # the name is taken


@pytest.mark.parametrize("what", REFUSED)
def test_refusal_is_one_sentence_and_leaves_nothing(db: Database, what: str) -> None:
    """PM003, one sentence, a hint, and neither an object nor a row more than before."""
    conn = db.connect(options=LIMIT)
    conn.execute(TABLES)
    error = _refused(conn, REFUSED[what])
    assert (error.sqlstate, _is_one_sentence(error)) == ("PM003", True), str(error)
    assert error.diag.message_hint


@pytest.mark.parametrize("column", ["ship", "ch"])
def test_a_collation_that_blurs_is_refused(db: Database, column: str) -> None:
    """Where 'X' and 'x' are equal, the triggers would take two entities for one."""
    conn = db.connect(options=LIMIT)
    conn.execute(TABLES)
    try:
        conn.execute(
            "CREATE COLLATION blur (provider = icu, locale = 'und-u-ks-level2',"
            " deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server is built without ICU, so no collation of it blurs")
    conn.execute("DROP VIEW a_view; DROP MATERIALIZED VIEW a_matview")
    conn.execute(f"ALTER TABLE t ALTER COLUMN {column} TYPE text COLLATE blur".encode())
    error = _refused(conn, {})
    assert (error.sqlstate, _is_one_sentence(error)) == ("PM003", True), str(error)
    assert f"the collation of {column} " in (error.diag.message_primary or "")


@pytest.mark.parametrize("granted", ["nothing", "SELECT", "TRIGGER"])
def test_missing_privilege_is_refused(db: Database, granted: LiteralString) -> None:
    """Who may not read the table, or not create triggers on it, hears so now (PM008)."""
    conn = db.connect(options=LIMIT)
    conn.execute(TABLES)
    role = sql.Identifier(f"guest_{db.name}")
    conn.execute(sql.SQL("CREATE ROLE {}").format(role))
    conn.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA pymig TO {}").format(role))
    conn.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA pymig TO {}").format(role))
    if granted != "nothing":
        conn.execute(sql.SQL("GRANT {} ON t TO {}").format(sql.SQL(granted), role))
    try:
        conn.execute(sql.SQL("SET ROLE {}").format(role))
        error = _refused(conn, {})
        assert (error.sqlstate, _is_one_sentence(error)) == ("PM008", True), str(error)
        assert error.diag.message_hint
    finally:
        conn.execute("RESET ROLE")
        conn.execute(sql.SQL("DROP OWNED BY {}").format(role))
        conn.execute(sql.SQL("DROP ROLE {}").format(role))


def test_a_table_never_vacuumed_is_not_slower(db: Database) -> None:
    """Live tables are: no index-only scan serves the loose scans, and no plan may need one.

    0.1 s each where it is right; where a loose scan falls back to bitmaps, minutes.
    """
    conn = db.connect(options="-c statement_timeout=10s")
    conn.execute(
        "CREATE TABLE t (ship text, ch text, ts timestamp, v float8, PRIMARY KEY (ship, ch, ts))"
        " WITH (autovacuum_enabled = off);"
        " INSERT INTO t SELECT 'x', 'channel/' || c, '2024-01-01'::timestamp + n * interval '1 min'"
        ", n FROM generate_series(1, 1000) AS n, generate_series(1, 300) AS c; ANALYZE t"
    )
    _register(conn, "'t', 'ship', 'ch', 'ts', '{v}'")
    for strategy in ("json", "transpose"):
        conn.execute("CALL pymig.roll_back('x')")
        conn.execute("CALL pymig.start_sync('x', p_strategy => %s)", [strategy])
        conn.execute("CALL pymig.backfill('x')")
        conn.execute("CALL pymig.verify('x')")
