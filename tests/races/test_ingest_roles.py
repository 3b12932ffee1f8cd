"""Who ingests: a role that may insert and nothing else, in sessions as odd as sessions get.

The same statements in a database without pymig are the control; only what they meet beyond it counts.
"""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Database
from tests.races.interleave import NARROW_TABLE, SOURCE, TABLE, UNIQUE, Session, Stage, times

ROLE = "pymig_ingest_only"
A, B, C = times(3)

# Everything a session can bring along that has the name of something pymig's triggers might mean.
HOSTILE = f"""
CREATE SCHEMA evil AUTHORIZATION {ROLE};
SET ROLE {ROLE};
CREATE FUNCTION evil.caught() RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_catalog.nextval('evil.hits'); RAISE EXCEPTION 'hijacked as %', current_user; END $$;
CREATE SEQUENCE evil.hits;
GRANT ALL ON SCHEMA evil TO PUBLIC;
GRANT ALL ON SEQUENCE evil.hits TO PUBLIC;
DO $do$
DECLARE
    r_function record;
    r_operator record;
BEGIN
    -- Of everything an expression is likely to name: the same, for the same types.
    FOR r_function IN
        SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.prorettype::regtype AS result FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0 AND NOT p.proretset
          AND p.proname IN ('pg_sequence_last_value', 'random', 'pg_relation_size', 'nextval', 'setval', 'mod', 'now', 'abs',
              'clock_timestamp', 'current_setting', 'pg_trigger_depth', 'format', 'date_part', 'extract', 'quote_ident')
    LOOP
        EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught(); END $$',
            r_function.proname, r_function.arguments, r_function.result);
    END LOOP;
    FOR r_operator IN
        SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result, row_number() OVER () AS n
        FROM pg_operator AS o
        WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b' AND o.oprresult <> 0
          AND o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '%', '||', '~~')
          AND o.oprleft::regtype::text !~ '^any' AND o.oprright::regtype::text !~ '^any'
    LOOP
        EXECUTE format('CREATE FUNCTION evil.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught(); END $$',
            r_operator.n, r_operator.l, r_operator.r, r_operator.result);
        EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.operator_%s)',
            r_operator.oprname, r_operator.l, r_operator.r, r_operator.n);
    END LOOP;
END
$do$;
CREATE DOMAIN evil.text AS pg_catalog.int4;
CREATE DOMAIN evil.regclass AS pg_catalog.int4;
CREATE TABLE evil.{SOURCE}_pending_1 (entity int CHECK (evil.caught()), time int);
CREATE TABLE evil.new_rows (ship_id text, created_time timestamp);
CREATE TABLE evil.old_rows (ship_id text, created_time timestamp);
CREATE VIEW evil.pg_class AS SELECT evil.caught();
RESET ROLE;
"""
HOSTILE_SESSION = [
    "SET search_path = evil, pg_temp, pg_catalog",
    "CREATE TEMP TABLE new_rows (ship_id pg_catalog.text)",
    "CREATE TEMP TABLE old_rows (ship_id pg_catalog.text)",
    f"CREATE TEMP TABLE {SOURCE}_pending_1 (entity pg_catalog.int4)",
    f"CREATE TEMP TABLE {SOURCE}_todo (entity pg_catalog.int4)",
    "CREATE TEMP TABLE entity (entity pg_catalog.int4)",
    "CREATE FUNCTION pg_temp.ne(pg_catalog.text, pg_catalog.text) RETURNS bool LANGUAGE sql AS 'SELECT evil.caught()'",
]
SETTINGS = [
    "SET row_security = off",
    "SET default_transaction_isolation = 'serializable'",
    "SET default_transaction_deferrable = on",
    "SET lock_timeout = 1",
    "SET statement_timeout = '2s'",
    "SET DateStyle = 'German'",
    "SET IntervalStyle = 'sql_standard'",
    "SET TimeZone = 'Pacific/Chatham'",
    "SET extra_float_digits = -15",
    "SET standard_conforming_strings = off",
    "SET backslash_quote = off",
    "SET escape_string_warning = off",
    "SET client_encoding = 'LATIN1'",
    "SET bytea_output = 'escape'",
    "SET xmloption = 'document'",
    "SET transform_null_equals = on",
    "SET quote_all_identifiers = on",
    "SET array_nulls = off",
    "SET plan_cache_mode = 'force_generic_plan'",
    "SET enable_hashagg = off",
    "SET enable_sort = off",
    "SET enable_seqscan = off",
    "SET work_mem = '64kB'",
    "SET jit_above_cost = 0",
    "SET jit_optimize_above_cost = 0",
    "SET max_parallel_workers_per_gather = 8",
    "SET cursor_tuple_fraction = 0.0001",
    "SET constraint_exclusion = on",
    "SET check_function_bodies = off",
    "SET default_table_access_method = 'heap'",
    "SET temp_buffers = '800kB'",
    "SET plpgsql.variable_conflict = 'error'",
    "SET plpgsql.extra_errors = 'all'",
    "SET plpgsql.check_asserts = off",
    "SET session_replication_role = replica",
    "SET synchronous_commit = off",
    "SET track_functions = 'all'",
    "SET ROLE NONE",
]


def _role(s: Session) -> None:
    with suppress(psycopg.errors.DuplicateObject):
        s.run(f"CREATE ROLE {ROLE} LOGIN")
    s.run(f"GRANT USAGE ON SCHEMA tenant TO {ROLE}")
    s.run(f"GRANT INSERT ON {TABLE} TO {ROLE}")
    s.run(f"GRANT USAGE ON SEQUENCE {TABLE}_id_seq TO {ROLE}")
    s.run(f"GRANT SET ON PARAMETER session_replication_role, track_functions TO {ROLE}")
    s.run(f"GRANT TEMPORARY ON DATABASE {s.conn.info.dbname} TO {ROLE}")


PUT = f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format) "


def _ingest(s: Session, minute: int) -> list[str]:
    """Everything somebody with INSERT alone can do; the errors met."""
    at = f"2024-03-02 {minute // 60:02d}:{minute % 60:02d}:"
    row = "('x', '{}', '{}{:02d}', 1, 'Integer')"
    errors: list[str] = []

    def run(*statements: str) -> None:
        try:
            for statement in statements:
                s.run(statement)
        except psycopg.Error as error:
            errors.append(f"{error.sqlstate} {error} in {statements}")
            s.run("ROLLBACK")

    run(PUT + "VALUES " + row.format("a", at, 0))
    run(PUT + "VALUES " + ", ".join(row.format(c, at, 1) for c in ("a", "é", "new")))
    run(PUT + "VALUES " + row.format("a", at, 0) + " ON CONFLICT DO NOTHING")
    run(PUT + "VALUES " + row.format("a", at, 0))  # 23505
    run(PUT + "VALUES " + row.format("a", at, 2) + " RETURNING long_v")  # 42501
    run(f"DELETE FROM {TABLE}")  # 42501
    run(f"TRUNCATE {TABLE}")  # 42501
    run(
        "BEGIN",
        PUT + "VALUES " + row.format("a", at, 3),
        "SAVEPOINT s",
        PUT + "VALUES " + row.format("a", at, 4),
        "ROLLBACK TO SAVEPOINT s",
        PUT + "VALUES " + row.format("b", at, 4),
        "COMMIT",
    )
    run("BEGIN", PUT + "VALUES " + row.format("a", at, 5), "ROLLBACK")
    run(
        "BEGIN",
        PUT + "VALUES " + row.format("a", at, 6),
        f"PREPARE TRANSACTION 'ingest {s.conn.info.dbname}'",
        f"COMMIT PREPARED 'ingest {s.conn.info.dbname}'",
    )
    run(f"WITH i AS ({PUT} VALUES {row.format('a', at, 7)}) SELECT 1")
    run(PUT + "SELECT 'x', 'many', pg_catalog.make_timestamp(2024, 3, 3, 0, 0, i OPERATOR(pg_catalog.%) 60)"
        " OPERATOR(pg_catalog.+) pg_catalog.make_interval(mins => %s)".replace("%s", str(minute)) +
        ", i, 'Integer' FROM pg_catalog.generate_series(0, 59) AS i")  # fmt: skip
    try:
        with (
            s.conn.cursor() as cursor,
            cursor.copy(
                f"COPY {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format) FROM STDIN"
            ) as copy,
        ):
            for second in range(8, 59):
                copy.write_row(("x", "c", f"{at}{second:02d}", second, "Integer"))
    except psycopg.Error as error:
        errors.append(f"{error.sqlstate} {error} in COPY")
    return errors


def _session(s: Session) -> None:
    """The setting that every session has: plain ISO input, whatever is printed."""
    s.run(f"SET ROLE {ROLE}")


def _states(errors: list[str]) -> list[str]:
    return [error[:5] for error in errors]


EXPECTED = ["23505", "42501", "42501", "42501"]  # what _ingest meets in any database


def _hostile_writer(s: Stage) -> Session:
    writer = s.session("writer")
    _session(writer)
    for statement in HOSTILE_SESSION:
        writer.run(statement)
    return writer


def hostile(s: Stage, sync: str = "pending") -> list[str]:
    """A session whose search_path is full of traps; errors beyond the control's, and damage."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    if sync == "direct":  # makes the trigger functions anew
        s.main.run("CALL pymig.set_sync('x', %s, p_budget => interval '10 s')", sync)
    _role(s.main)
    s.main.conn.execute(HOSTILE)
    writer = _hostile_writer(s)
    damage = []
    for minute, role in enumerate(
        ("origin", "replica")
    ):  # for the latter the row trigger fires too
        writer.run(f"SET session_replication_role = {role}")
        errors = _ingest(writer, minute)
        if _states(errors) != EXPECTED:
            damage += errors
    s.main.run(f"GRANT SELECT, UPDATE, DELETE, TRUNCATE ON {TABLE} TO {ROLE}")
    some = (
        "WHERE data_channel_id OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array('{}', ','))"
    )
    for role, statement in (
        ("replica", f"UPDATE {TABLE} SET long_v = 7 {some.format('b')}"),
        ("origin", f"UPDATE {TABLE} SET long_v = 8 {some.format('b')}"),
        ("origin", f"UPDATE {TABLE} SET long_v = 8 {some.format('many,new')}"),
        ("replica", f"DELETE FROM {TABLE} {some.format('b')}"),
        ("origin", f"DELETE FROM {TABLE} {some.format('many')}"),
        ("origin", f"TRUNCATE {TABLE}"),
    ):
        writer.run(f"SET session_replication_role = {role}")
        before = s.damage("x") if statement.startswith("TRUNCATE") else []
        try:
            writer.run(statement)
        except psycopg.Error as error:
            damage.append(f"{error} in {statement}")
        damage += before
    if hits := s.main.value("SELECT pg_sequence_last_value('evil.hits')"):
        damage.append(f"{hits} names were hijacked")  # what an EXCEPTION block hides, too
    return damage + s.damage("x")


@pytest.mark.parametrize("sync", ["pending", "direct"])
def test_hostile_session(db: Database, sync: str) -> None:
    """Nothing of a session's own is taken for pymig's."""
    s = Stage(db)
    assert hostile(s, sync) == []
    if sync == "direct":
        assert not s.main.value(f"SELECT pg_sequence_last_value('pymig.{SOURCE}_paused')")
        s.insert("x", "a", B, 4, _hostile_writer(s))
        assert s.pending() == 0  # written by the trigger
        assert s.damage("x") == []


def unqualified(function: str, name: str) -> Callable[[Stage], None]:
    """A trigger function leaves a name to the session's search_path."""

    def mutate(s: Stage) -> None:
        bare = name.removeprefix("OPERATOR(").removesuffix(")").removeprefix("pg_catalog.")
        s.patch(f"{SOURCE}_record_{function}", (name, bare))

    mutate.__name__ = f"{function}_{name}"
    return mutate


def direct_unqualified(s: Stage) -> None:
    """What looks for direct entities leaves an operator to the session's search_path."""
    s.patch("_create_trigger_functions", ("OPERATOR(pg_catalog.=) ANY", "= ANY"))


def hidden_by_the_handler(s: Stage) -> None:
    """The same, but where an EXCEPTION block turns it into keys for the worker."""
    s.patch(
        "_create_trigger_functions",
        (
            "                    IF {keeps_keys}",
            "                    IF abs(1) IS NOT NULL AND {keeps_keys}",
        ),
    )


def invoker(s: Stage) -> None:
    """The trigger functions run as who ingests."""
    s.main.run(f"ALTER FUNCTION pymig.{SOURCE}_record_insert SECURITY INVOKER")


DIRECT = [direct_unqualified, hidden_by_the_handler]
MUTATIONS = [
    invoker,
    *DIRECT,
    unqualified("insert", "pg_catalog.pg_sequence_last_value"),
    unqualified("insert", "pg_catalog.random"),
    unqualified("insert", "pg_catalog.pg_relation_size"),
    unqualified("insert", "pg_catalog.regclass"),
    *(unqualified("insert", f"OPERATOR(pg_catalog.{name})") for name in ("+", "<", "%", "=", ">=")),
    unqualified("update", "OPERATOR(pg_catalog.=)"),
    unqualified("delete", "OPERATOR(pg_catalog.%)"),
    unqualified("row", "OPERATOR(pg_catalog.<>)"),
    unqualified("truncate", "OPERATOR(pg_catalog.>=)"),
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_hostile_session_mutated(db: Database, mutate: Callable[[Stage], None]) -> None:
    """It goes red where a name is left to the session, and without SECURITY DEFINER."""
    stage = Stage(db)
    mutate(stage)
    assert hostile(stage, "direct" if mutate in DIRECT else "pending") != []


def test_settings_of_a_session(db: Database, empty_db: Database) -> None:
    """Every setting alone, and all at once: what the writer meets is what it meets without pymig."""
    stage = Stage(db)
    stage.insert("x", "a", A, 1)
    stage.migrate("x")
    control = Session(empty_db, "control")
    control.conn.execute(NARROW_TABLE + UNIQUE)
    for main in (stage.main, control):
        _role(main)
    met: list[list[list[str]]] = []
    for database in (db, empty_db):
        errors = []
        for minute, setting in enumerate([*SETTINGS, "all"]):
            writer = Session(database, "writer")
            _session(writer)
            for statement in SETTINGS if setting == "all" else [setting]:
                writer.run(statement)
            _session(writer)
            errors.append(_states(_ingest(writer, minute)))
            writer.conn.close()
        met.append(errors)
    assert met[0] == met[1] == [EXPECTED] * (len(SETTINGS) + 1)
    same = f"SELECT ship_id, data_channel_id, created_time, long_v FROM {TABLE} WHERE created_time <> '{A}' OR data_channel_id <> 'a' ORDER BY 1, 2, 3"
    assert stage.main.run(same) == control.run(same)
    assert len(stage.main.run(same)) > 4500
    assert stage.damage("x") == []


def test_privileges_of_pymig_are_not_needed(db: Database) -> None:
    """The writer may execute, read and write nothing of pymig's, and may not fire its triggers' functions."""
    stage = Stage(db)
    stage.insert("x", "a", A, 1)
    stage.migrate("x")
    _role(stage.main)
    may = stage.main.run(
        "SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'pymig'::regnamespace"
        " AND p.prorettype = 'trigger'::regtype AND has_function_privilege(%s, p.oid, 'EXECUTE')",
        ROLE,
    )
    assert may == []
    assert not stage.main.value("SELECT has_schema_privilege(%s, 'pymig', 'USAGE')", ROLE)
    writer = stage.session("writer")
    _session(writer)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.conn.execute(
            sql.SQL("CREATE TEMP TABLE t (ship_id text, created_time timestamp);"
                    " CREATE TRIGGER t AFTER INSERT ON t REFERENCING NEW TABLE AS new_rows"
                    " EXECUTE FUNCTION pymig.{}()").format(sql.Identifier(f"{SOURCE}_record_insert"))
        )  # fmt: skip
