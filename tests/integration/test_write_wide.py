"""The views that end in _rw: written in the wide shape, kept by the narrow table."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql

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
    SELECT s, 'de"c', '2024-01-01'::timestamp + g * interval '15 min', g / 3.0, 'Decimal' FROM generate_series(0, 9) AS g, unnest('{X,Y}'::text[]) AS s;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v, value_format)
    SELECT 'X', '/int', '2024-01-01'::timestamp + g * interval '30 min', g, 'Integer' FROM generate_series(0, 4) AS g;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, str_v, value_format)
    SELECT 'X', 'text', '2024-01-01'::timestamp + g * interval '15 min', 'say ' || g, 'String' FROM generate_series(0, 9) AS g;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, bool_v, value_format)
    SELECT 'X', 'yes', '2024-01-01'::timestamp + g * interval '15 min', g % 2 = 0, 'Boolean' FROM generate_series(0, 9) AS g
"""
TYPED: LiteralString = """
CREATE TABLE samples (plant uuid NOT NULL, tag int NOT NULL, at timestamptz NOT NULL, f real, i smallint, s varchar(20));
CREATE UNIQUE INDEX ON samples (plant, tag, at);
CALL pymig.register_source('n', 'samples', 'plant', 'tag', 'at', '{f,i,s}', p_bucket => '10 minutes');
INSERT INTO samples SELECT '00000000-0000-0000-0000-00000000000a', 1, '2024-01-01 00:00+00'::timestamptz + g * interval '1 min', g / 2.0 FROM generate_series(0, 20) AS g;
INSERT INTO samples (plant, tag, at, i) SELECT '00000000-0000-0000-0000-00000000000a', 2, '2024-01-01 00:00+00'::timestamptz + g * interval '1 min', g FROM generate_series(0, 20) AS g;
INSERT INTO samples (plant, tag, at, s) SELECT '00000000-0000-0000-0000-00000000000a', 3, '2024-01-01 00:00+00'::timestamptz + g * interval '1 min', 's' || g FROM generate_series(0, 20) AS g
"""
DOUBLED: LiteralString = """
CREATE TABLE log (unit text NOT NULL, name text NOT NULL, ms bigint NOT NULL, seq int NOT NULL DEFAULT 0, value numeric);
CREATE INDEX ON log (unit, name, ms);
CALL pymig.register_source('n', 'log', 'unit', 'name', 'ms', '{value}', p_time_unit => 'ms', p_tie_break => '{seq}');
INSERT INTO log SELECT 'X', n, g * 60000, q, g + q / 10.0 FROM generate_series(0, 9) AS g, unnest('{a,b,c}'::text[]) AS n, generate_series(0, 1) AS q
"""


@dataclass(frozen=True)
class Case:
    """A source, its only or first entity, and values its channels can have."""

    create: LiteralString
    narrow: Narrow
    entity: str
    times: tuple[str, ...]
    values: dict[str, tuple[str, ...]]


CASES: Final = {
    "default": Case(
        DEFAULT,
        default_narrow(source="n"),
        "X",
        tuple(f"2024-01-01 {h:02}:{m:02}:00" for h in range(4) for m in (0, 15, 30)),
        {
            'de"c': ("1", "-0", "0.1", "1e+300", "NaN", "Infinity", "-2.5"),
            "/int": ("0", "-7", "9223372036854775807"),
            "text": ("", "a'b", "1.50", "누리", "null", '{"a": 1}'),
            "yes": ("true", "false"),
        },
    ),
    "typed": Case(
        TYPED,
        Narrow("n", "samples", "plant", "tag", "at", ("f", "i", "s")),
        "00000000-0000-0000-0000-00000000000a",
        tuple(f"2024-01-01 00:{m:02}:00+00" for m in range(0, 40, 3)),
        {"1": ("0.5", "-1", "NaN"), "2": ("1", "-3"), "3": ("x", "yy", "")},
    ),
    "doubled": Case(
        DOUBLED,
        Narrow("n", "log", "unit", "name", "ms", ("value",), tie_break=("seq",), time_unit="ms"),
        "X",
        tuple(str(m * 60000) for m in range(15)),
        {"a": ("1.50", "2"), "b": ("-1", "0.00"), "c": ("7",)},
    ),
}


def _run(conn: psycopg.Connection[Any], script: str) -> None:
    for statement in script.split(";\n"):
        conn.execute(statement.encode())


def _cut_over(db: Database, case: Case, types: str) -> psycopg.Connection[Any]:
    conn = db.connect()
    conn.execute("SET TimeZone = 'UTC'")
    _run(conn, case.create)
    conn.execute("CALL pymig.migrate(%s, p_column_types => %s)", [case.entity, types])
    _certify_and_cut_over(conn, case.entity)
    return conn


def _certify_and_cut_over(conn: psycopg.Connection[Any], entity: str) -> None:
    conn.execute("CALL pymig.certify(%s)", [entity])
    conn.execute("CALL pymig.cut_over(%s)", [entity])


def _names(conn: psycopg.Connection[Any], entity: str) -> tuple[sql.Composed, sql.Composed]:
    found = conn.execute(
        "SELECT s.wide_schema, e.wide_table FROM pymig.entity AS e JOIN pymig.source AS s USING (source)"
        " WHERE e.entity = %s",
        [entity],
    ).fetchone()
    assert found
    schema, table = found
    return (
        sql.SQL("{}").format(sql.Identifier(schema, table)),
        sql.SQL("{}").format(sql.Identifier(schema, f"{table}_rw")),
    )


def _columns(conn: psycopg.Connection[Any], entity: str) -> dict[str, str]:
    query = "SELECT channel, wide_column FROM pymig.channel_map WHERE entity = %s"
    return dict(conn.execute(query, [entity]).fetchall())


@pytest.mark.parametrize("types", ["text", "native"])
@pytest.mark.parametrize("name", CASES)
def test_random_writes_equal_a_table(db: Database, name: str, types: str) -> None:
    """The same statements against a plain table and against the view leave the same rows."""
    case = CASES[name]
    conn = _cut_over(db, case, types)
    wide, rw = _names(conn, case.entity)
    time = sql.Identifier(case.narrow.time_column)
    columns = _columns(conn, case.entity)
    plain = sql.Identifier("plain")
    conn.execute(
        sql.SQL("CREATE TABLE plain (LIKE {} INCLUDING INDEXES INCLUDING GENERATED)").format(wide)
    )
    conn.execute(sql.SQL("INSERT INTO plain SELECT * FROM {}").format(wide))
    chosen = random.Random(f"{name} {types}")

    def both(statement: str, *values: Any, names: tuple[sql.Identifier, ...] = ()) -> None:
        outcomes = []
        for table in (rw, plain):
            try:
                query = sql.SQL(statement).format(table, time, *names)
                outcomes.append(conn.execute(query, values).rowcount)
            except psycopg.errors.UniqueViolation:
                outcomes.append(-1)
        assert outcomes[0] == outcomes[1], statement
        conn.execute("CALL pymig.sync_pending()")

    for _ in range(60):
        at, other = chosen.sample(case.times, 2)
        channel = chosen.choice(list(case.values))
        column = sql.Identifier(columns[channel])
        value = chosen.choice([*case.values[channel], None])
        match chosen.randrange(6):
            case 0 | 1:
                both("UPDATE {0} SET {2} = %s WHERE {1} = %s", value, at, names=(column,))
            case 2:
                both("UPDATE {0} SET {1} = %s WHERE {1} = %s", other, at)
            case 3:
                both("DELETE FROM {0} WHERE {1} = %s", at)
            case _:
                others = sql.Identifier(columns[next(c for c in case.values if c != channel)])
                values = (at, chosen.choice(case.values[channel]), None)
                both(
                    "INSERT INTO {0} ({1}, {2}, {3}) VALUES (%s, %s, %s)",
                    *values,
                    names=(column, others),
                )
        # A row whose last cell went is none in the narrow table, nor in the wide one.
        cells = sql.SQL(", ").join(sql.Identifier(c) for c in columns.values())
        conn.execute(
            sql.SQL(
                "DELETE FROM plain WHERE num_nonnulls({}) = 0 AND {} NOT IN (SELECT {} FROM {})"
            ).format(cells, time, time, wide)
        )
        query = "SELECT {1}::text, (to_json(t))::text FROM {0} AS t ORDER BY 1"
        rows = [
            conn.execute(sql.SQL(query).format(table, time)).fetchall() for table in (wide, plain)
        ]
        assert rows[0] == rows[1]
    assert difference(conn, case.narrow) == []


X: LiteralString = "tenant.tbl_data_timeseries_x"
FIRST: Final = "2024-01-01 00:00:00"


@pytest.fixture
def fleet(db: Database) -> psycopg.Connection[Any]:
    """The default source; ship X is cut over, with native columns."""
    return _cut_over(db, CASES["default"], "native")


def _value(conn: psycopg.Connection[Any], query: LiteralString, *values: Any) -> Any:
    found = conn.execute(query, values).fetchone()
    return found and found[0]


def test_update_keeps_the_rest_of_the_narrow_row(fleet: psycopg.Connection[Any]) -> None:
    """Its id, its time of arrival and its format stay; only what the value is changes."""
    query: LiteralString = (
        "SELECT id, server_created_time, value_format, double_v, long_v FROM tenant.tbl_data_timeseries"
        " WHERE ship_id = 'X' AND data_channel_id = %s AND created_time = '2024-01-01 00:30'"
    )
    before = fleet.execute(query, ["/int"]).fetchone()
    fleet.execute(
        f"UPDATE {X}_rw SET \"/int\" = 42 WHERE created_time = '2024-01-01 00:30'".encode()
    )
    after = fleet.execute(query, ["/int"]).fetchone()
    assert before
    assert after == (*before[:4], 42)


def test_stale_row_is_refused(fleet: psycopg.Connection[Any]) -> None:
    """What the narrow table has by now counts, not what sync has brought so far (no lost update)."""
    fleet.execute(
        "UPDATE tenant.tbl_data_timeseries SET double_v = 99 WHERE ship_id = 'X' AND data_channel_id = 'de\"c' AND created_time = %s",
        [FIRST],
    )
    for statement in (f"UPDATE {X}_rw SET yes = false", f"DELETE FROM {X}_rw"):
        with pytest.raises(psycopg.errors.SerializationFailure, match="has changed meanwhile"):
            fleet.execute(f"{statement} WHERE created_time = '{FIRST}'".encode())
    fleet.execute("CALL pymig.sync_pending()")
    fleet.execute(f"UPDATE {X}_rw SET yes = false WHERE created_time = '{FIRST}'".encode())
    fleet.execute("CALL pymig.sync_pending()")
    assert fleet.execute(
        f'SELECT "de""c", yes FROM {X} WHERE created_time = \'{FIRST}\''.encode()
    ).fetchone() == (99.0, False)


def test_what_cannot_be_is_refused_in_one_sentence(db: Database) -> None:
    """A time that is there, a row without value or time, a value its channel can't have."""
    conn = _cut_over(db, CASES["default"], "text")
    for statement, sqlstate, said in (
        (
            f"INSERT INTO {X}_rw (created_time, yes) VALUES ('{FIRST}', 'true')",
            "23505",
            "already has a row",
        ),
        (
            f"UPDATE {X}_rw SET created_time = '2024-01-01 00:15' WHERE created_time = '{FIRST}'",
            "23505",
            "already",
        ),
        (
            f"INSERT INTO {X}_rw (created_time) VALUES ('2030-01-01')",
            "PM062",
            "needs at least one value",
        ),
        (f"INSERT INTO {X}_rw (yes) VALUES ('true')", "PM062", "needs a time"),
        (
            f"UPDATE {X}_rw SET created_time = NULL WHERE created_time = '{FIRST}'",
            "PM062",
            "needs a time",
        ),
        (
            f"INSERT INTO {X}_rw (created_time, \"/int\") VALUES ('2030-01-01', '1.5')",
            "PM062",
            "'1.5' of '/int' can't be",
        ),
        (
            f"INSERT INTO {X}_rw (created_time, yes) VALUES ('2030-01-01', 'maybe')",
            "PM062",
            "'maybe' of 'yes'",
        ),
        (
            f"INSERT INTO {X}_rw (created_time, \"/int\") VALUES ('2030-01-01', '9223372036854775808')",
            "PM062",
            "of '/int'",
        ),
        (f"UPDATE {X} SET yes = 'false'", "PM060", "is written by pymig alone"),
        (f"DELETE FROM {X}", "PM060", "is written by pymig alone"),
        (
            f"INSERT INTO {X} (created_time) VALUES ('2030-01-01')",
            "PM060",
            "is written by pymig alone",
        ),
        (f"TRUNCATE {X}", "PM060", "is written by pymig alone"),
    ):
        with pytest.raises(psycopg.Error, match=said) as raised:
            conn.execute(statement.encode())
        assert raised.value.sqlstate == sqlstate, statement
    assert difference(conn, CASES["default"].narrow) == []


def test_text_takes_the_kind_of_its_channel(db: Database) -> None:
    """A text column takes 1.50 as the number the channel has, and 5 as the integer it was."""
    conn = _cut_over(db, CASES["default"], "text")
    conn.execute(
        f"INSERT INTO {X}_rw (created_time, \"de\"\"c\", \"/int\", text, yes) VALUES ('2030-01-01', '1.50', '5', '5', 'TRUE')".encode()
    )
    conn.execute("CALL pymig.sync_pending()")
    assert conn.execute(
        f'SELECT "de""c", "/int", text, yes FROM {X} WHERE created_time = \'2030-01-01\''.encode()
    ).fetchone() == ("1.5", "5", "5", "true")
    assert sorted(
        conn.execute(
            "SELECT data_channel_id, value_format FROM tenant.tbl_data_timeseries WHERE created_time = '2030-01-01'"
        ).fetchall()
    ) == [("/int", "Integer"), ('de"c', "Decimal"), ("text", "String"), ("yes", "Boolean")]


def test_nobody_else_is_touched(fleet: psycopg.Connection[Any]) -> None:
    """Rows of another ship at the same times stay, also where all rows of X are deleted."""
    before = _value(fleet, "SELECT count(*) FROM tenant.tbl_data_timeseries WHERE ship_id = 'Y'")
    fleet.execute(f"DELETE FROM {X}_rw".encode())
    fleet.execute("CALL pymig.sync_pending()")
    assert _value(fleet, f"SELECT count(*) FROM {X}") == 0
    assert _value(fleet, "SELECT count(*) FROM tenant.tbl_data_timeseries WHERE ship_id = 'X'") == 0
    assert _value(fleet, "SELECT count(*) FROM tenant.tbl_data_timeseries") == before


def test_rolled_back_all_is_in_the_narrow_table(fleet: psycopg.Connection[Any]) -> None:
    """The way back from a cutover loses nothing that was only written in the wide shape."""
    fleet.execute(
        f"INSERT INTO {X}_rw (created_time, yes) SELECT '2031-01-01'::timestamp + g * interval '1 s', true FROM generate_series(1, 50) AS g".encode()
    )
    fleet.execute("CALL pymig.roll_back('X')")
    assert _value(fleet, "SELECT to_regclass(%s)", f"{X}_rw") is None
    assert (
        _value(
            fleet,
            "SELECT count(*) FROM tenant.tbl_data_timeseries WHERE created_time > '2031-01-01' AND bool_v",
        )
        == 50
    )
    fleet.execute("CALL pymig.migrate('X')")
    assert difference(fleet, CASES["default"].narrow) == []
    fleet.execute(f"UPDATE {X} SET yes = yes".encode())


def test_rights_are_those_of_the_view(fleet: psycopg.Connection[Any]) -> None:
    """Who may write the narrow table may write the view; later GRANTs on the view are enough."""
    fleet.execute("CREATE ROLE app_of_view")
    fleet.execute("GRANT USAGE ON SCHEMA tenant TO app_of_view")
    try:
        with fleet.transaction(force_rollback=True):
            fleet.execute("SET LOCAL ROLE app_of_view")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                fleet.execute(
                    f"INSERT INTO {X}_rw (created_time, yes) VALUES ('2032-01-01', true)".encode()
                )
        fleet.execute(f"GRANT SELECT, INSERT, UPDATE ON {X}_rw TO app_of_view".encode())
        with fleet.transaction():
            fleet.execute("SET LOCAL ROLE app_of_view")
            fleet.execute(
                f"INSERT INTO {X}_rw (created_time, yes) VALUES ('2032-01-01', true)".encode()
            )
            fleet.execute(
                f"UPDATE {X}_rw SET text = 'mine' WHERE created_time = '{FIRST}'".encode()
            )
        assert (
            _value(fleet, "SELECT count(*) FROM tenant.tbl_data_timeseries WHERE str_v = 'mine'")
            == 1
        )
    finally:
        fleet.execute("DROP OWNED BY app_of_view")
        fleet.execute("DROP ROLE app_of_view")


def test_narrow_rights_carry_over(db: Database) -> None:
    """Whoever may change the narrow table may do so through the view, right from the cutover."""
    conn = db.connect()
    case = CASES["default"]
    _run(conn, case.create)
    conn.execute("CREATE ROLE old_app")
    try:
        conn.execute("GRANT SELECT, INSERT ON tenant.tbl_data_timeseries TO old_app")
        conn.execute("CALL pymig.migrate('X')")
        _certify_and_cut_over(conn, "X")
        rights = [
            _value(conn, "SELECT has_table_privilege('old_app', %s, %s)", f"{X}_rw", right)
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
        ]
        assert rights == [True, True, False, False]
    finally:
        conn.execute("DROP OWNED BY old_app")
        conn.execute("DROP ROLE old_app")


def test_the_view_follows_its_table(fleet: psycopg.Connection[Any]) -> None:
    """A new channel, a second part, a renamed column and a promoted one; GRANTs stay."""
    fleet.execute("CREATE ROLE follower")
    try:
        fleet.execute(f"GRANT UPDATE ON {X}_rw TO follower".encode())
        fleet.execute(
            "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)"
            " SELECT 'X', 'new ' || g, '2024-01-01', g, 'Decimal' FROM generate_series(1, 1100) AS g"
        )
        fleet.execute("CALL pymig.sync_pending()")
        fleet.execute(
            f'UPDATE {X}_rw SET "new 1" = -1, "new 999" = -2 WHERE created_time = \'{FIRST}\''.encode()
        )
        fleet.execute("CALL pymig.sync_pending()")
        assert difference(fleet, CASES["default"].narrow) == []
        fleet.execute(
            f"UPDATE {X}_2_rw SET \"new 999\" = -3 WHERE created_time = '{FIRST}'".encode()
        )
        fleet.execute(f"ALTER TABLE {X}_1 RENAME COLUMN text TO words".encode())
        fleet.execute("CALL pymig.sync_pending()")
        fleet.execute("CALL pymig.verify('X')")
        fleet.execute(
            f"UPDATE {X}_rw SET words = 'renamed' WHERE created_time = '{FIRST}'".encode()
        )
        fleet.execute("CALL pymig.set_type_drift(NULL, 'promote')")
        fleet.execute(
            "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v, value_format)"
            " VALUES ('X', '/int', '2024-01-02', 0.5, 'Decimal')"
        )
        column_type: LiteralString = "SELECT column_type FROM pymig.channel WHERE channel = '/int'"
        sync_until(fleet, column_type, "float8", "/int is not promoted")
        fleet.execute(f"UPDATE {X}_rw SET \"/int\" = 0.25 WHERE created_time = '{FIRST}'".encode())
        fleet.execute("CALL pymig.sync_pending()")
        assert difference(fleet, CASES["default"].narrow) == []
        assert _value(fleet, "SELECT has_table_privilege('follower', %s, 'UPDATE')", f"{X}_rw")
    finally:
        fleet.execute("DROP OWNED BY follower")
        fleet.execute("DROP ROLE follower")


def _increment_wide(conn: psycopg.Connection[Any]) -> None:
    conn.execute(f'UPDATE {X}_rw SET "/int" = "/int" + 1 WHERE created_time = \'{FIRST}\''.encode())


def _increment_narrow(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "UPDATE tenant.tbl_data_timeseries SET long_v = long_v + 1"
        " WHERE ship_id = 'X' AND data_channel_id = '/int' AND created_time = %s",
        [FIRST],
    )


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_no_update_is_lost(db: Database, fleet: psycopg.Connection[Any], level: str) -> None:
    """Writers of both shapes count one cell up, who is refused tries again: none is missing."""
    each = 12
    stop = threading.Event()
    failures: list[BaseException] = []
    increments = (_increment_wide, _increment_wide, _increment_narrow, _increment_narrow)
    writers = [
        threading.Thread(target=_counting, args=(db, level, increment, each, failures))
        for increment in increments
    ]
    worker = threading.Thread(target=_syncing, args=(db, stop, failures))
    for thread in (worker, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    stop.set()
    worker.join(20)
    assert failures == []
    fleet.execute("CALL pymig.sync_pending()")
    query: LiteralString = f'SELECT "/int" FROM {X} WHERE created_time = %s'
    assert _value(fleet, query, FIRST) == each * len(increments)
    assert difference(fleet, CASES["default"].narrow) == []


def _counting(
    db: Database,
    level: str,
    increment: Callable[[psycopg.Connection[Any]], None],
    times: int,
    failures: list[BaseException],
) -> None:
    try:
        with psycopg.connect(db.url, autocommit=True) as conn:
            conn.execute(f"SET default_transaction_isolation = '{level}'".encode())
            while times:
                try:
                    increment(conn)
                    times -= 1
                except psycopg.errors.SerializationFailure:
                    time.sleep(0.005)
    except BaseException as error:
        failures.append(error)


def _syncing(db: Database, stop: threading.Event, failures: list[BaseException]) -> None:
    try:
        with psycopg.connect(db.url, autocommit=True) as conn:
            while not stop.wait(0.005):
                conn.execute("CALL pymig.sync_pending()")
    except BaseException as error:
        failures.append(error)


def test_two_inserts_of_one_time(db: Database) -> None:
    """Where the narrow table has no unique key either, the second waits and is refused."""
    conn = _cut_over(db, CASES["doubled"], "native")
    insert: LiteralString = "INSERT INTO log_x_rw (ms, a) VALUES (%s, %s)"
    outcome: list[str | None] = []

    def second() -> None:
        with psycopg.connect(db.url, autocommit=True, application_name="second") as other:
            try:
                other.execute(insert, [99_000_000, 2])
                outcome.append(None)
            except psycopg.Error as error:
                outcome.append(error.sqlstate)

    thread = threading.Thread(target=second)
    with conn.transaction():
        conn.execute(insert, [99_000_000, 1])
        thread.start()
        thread.join(0.5)
        assert outcome == []
    thread.join(20)
    assert outcome == ["23505"]
    assert _value(conn, "SELECT count(*) FROM log WHERE ms = 99000000") == 1
