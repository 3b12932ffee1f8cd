"""Who may do what: an operator without superuser all of it, a watcher sees it and changes nothing.

The web console runs with the rights of its roles; its own tests show that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pymig.install import install, uninstall
from pymig.migrate import migrate_ships, verify_ships
from tests import command
from tests.conftest import Database
from tests.oracle import Narrow, difference

Connection = psycopg.Connection[Any]
NARROW: Final = Narrow("n", "plant.n", "ship", "ch", "ts", ("d",))
CREATE: LiteralString = """
CREATE SCHEMA plant;
CREATE TABLE plant.n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
CREATE INDEX ON plant.n (ts);
INSERT INTO plant.n SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', t
FROM unnest('{X,Y}'::text[]) AS s, generate_series(1, 3) AS c, generate_series(1, 60) AS t;
ANALYZE plant.n
"""
#: Every procedure of pymig's, so that a new one is missed here.
CALLS: Final[dict[str, str]] = {
    "backfill": "'Y'", "cancel": "'X'", "certify": "'X'", "create_compat_view": "",
    "cut_over": "'X'", "drop_compat_view": "", "finalize": "'X', '1 day'", "hold_cut_over": "'X'",
    "migrate": "'Y'", "migrate_adopted": "", "pause": "'X'",
    "register_source": "'m', 'plant.n', 'ship', 'ch', 'ts', '{d}'",
    "release_cut_over": "'X'", "restore_narrow": "'X'", "resume": "'Y'", "retire": "",
    "reverify": "", "roll_back": "'X'", "run_worker": "0", "set_alert": "'sync lag', 1",
    "set_chunk_target": "'2 s'",
    "set_new_entities": "'auto'", "set_priority": "'X', 1", "set_queue": "p_limit => NULL",
    "set_retention": "'keep'", "set_routing": "'X', 'narrow'", "set_sync": "'X', 'direct'",
    "set_throttle": "'lock waits', 1", "set_type_drift": "'X', 'promote'", "set_verification": "",
    "set_wide_partitions": "'month'", "set_workers": "3", "start_sync": "'Y'", "sync_pending": "",
    "tell": "'log', 'INFO', '{1}'", "tune_wide": "'X'", "unregister_source": "'n'",
    "verify": "'X', p_repair => true",
}  # fmt: skip
WRITES: LiteralString = """
SELECT pymig.backfill_chunk('Y');
SELECT pymig.verify_bucket('X', 0);
SELECT pymig.look_at_throttle();
SELECT pymig.fleet_settings();
SELECT pymig.keep_trial('X', 'n', 'json', '1 s', 1, 1, 1);
SELECT pymig.look_at_alerts('0');
SELECT pymig.report_throttle('disk used', 1);
SELECT pymig.events_to_tell('log', 'INFO')
"""
#: What finds nothing to do may end without an error; it has changed nothing either way.
IDLE: Final = frozenset({"migrate_adopted", "retire", "reverify", "resume", "drop_compat_view"})
READS: LiteralString = """
SELECT * FROM pymig.precheck();
SELECT * FROM pymig.plan('Y');
SELECT * FROM pymig.progress('X');
SELECT * FROM pymig.look_at_trial('X');
SELECT * FROM pymig.known_trials('X');
SELECT * FROM pymig.resolve_entities('all');
SELECT * FROM pymig.list_alerts();
SELECT * FROM pymig.event_counts();
SELECT pymig.workers_alive();
SELECT pymig.certificate_fault('X');
SELECT * FROM pymig.index_statements('X');
SELECT * FROM pymig.read('X')
"""
TABLES: LiteralString = """
SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS s ON s.oid = c.relnamespace
WHERE s.nspname IN ('pymig', 'plant') AND c.relkind IN ('r', 'p') ORDER BY 1
"""
COMMANDS: Final = (
    "status", "status --json", "source list", "throttle", "alert list",
    "certificate", "routing",
)  # fmt: skip


@contextmanager
def _role(conn: Connection, name: str) -> Iterator[str]:
    role = sql.Identifier(name)
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER PASSWORD 'pw'").format(role))
    try:
        yield name
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(role))


def _content(conn: Connection) -> dict[str, Any]:
    """Every table of pymig's and the plant's, and of what objects there are."""
    content: dict[str, Any] = {}
    for (table,) in conn.execute(TABLES).fetchall():
        rows = conn.execute(f"SELECT t::text FROM {table} AS t".encode()).fetchall()
        content[table] = sorted(rows)
    content["objects"] = conn.execute(
        "SELECT c.oid, c.relname, c.relacl FROM pg_class AS c WHERE c.oid >= 16384 ORDER BY 1"
    ).fetchall()
    return content


def test_operator_without_superuser(empty_db: Database) -> None:
    """From install to uninstall, as the owner of the table; by CALL and by the driver."""
    admin = empty_db.connect()
    with _role(admin, f"{empty_db.name}_operator") as role:
        for statement in CREATE.split(";\n"):
            admin.execute(statement.encode())
        for statement in (
            "ALTER SCHEMA plant OWNER TO {0}",
            "ALTER TABLE plant.n OWNER TO {0}",
            "GRANT CREATE ON DATABASE {1} TO {0}",
        ):
            names = map(sql.Identifier, (role, empty_db.name))
            admin.execute(sql.SQL(statement).format(*names))
        url = make_conninfo(empty_db.url, user=role, password="pw")
        install(url)
        with psycopg.connect(url, autocommit=True) as operator:
            assert operator.execute("SHOW is_superuser").fetchone() == ("off",)
            operator.execute(
                "CALL pymig.register_source('n', 'plant.n', 'ship', 'ch', 'ts', '{d}')"
            )
            operator.execute(
                "UPDATE pymig.throttle SET max_value = NULL WHERE condition = 'lock waits'"
            )
            assert not migrate_ships(url, "X,Y").failed
            assert difference(operator, NARROW, {"X", "Y"}) == []
            measured = operator.execute(
                "SELECT condition FROM pymig.throttle WHERE error IS NOT NULL"
            )
            assert {c for (c,) in measured} <= {"archiver backlog", "checkpoint pressure"}
            for call in (
                "pause('X')", "resume('X')", "cancel('X')", "resume('X')", "set_workers(2)",
                "set_throttle('lock waits', 5)", "set_alert('sync lag', 5)", "certify('X')",
                "cut_over('X')", "tune_wide('X')", "finalize('X', '1 day')", "restore_narrow('X')",
                "run_worker(0)",
            ):  # fmt: skip
                operator.execute(f"CALL pymig.{call}".encode())
            assert not verify_ships(url, ["X", "Y"], source=None).failed
            for ship in "XY":
                operator.execute("CALL pymig.roll_back(%s)", [ship])
            assert operator.execute("SELECT count(*) FROM plant.n").fetchone() == (360,)
        uninstall(url)


@pytest.fixture
def watched(db: Database) -> Iterator[tuple[Connection, str]]:
    """X is migrated, Y has begun; and the URL of a role that may only look."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    conn.execute("CALL pymig.register_source('n', 'plant.n', 'ship', 'ch', 'ts', '{d}')")
    conn.execute("UPDATE pymig.throttle SET max_value = NULL WHERE condition <> 'replica lag'")
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.start_sync('Y')")
    with _role(conn, f"{db.name}_watcher") as role:
        for statement in (
            "GRANT USAGE ON SCHEMA pymig, plant TO {}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA pymig, plant TO {}",
        ):
            conn.execute(sql.SQL(statement).format(sql.Identifier(role)))
        yield conn, make_conninfo(db.url, user=role, password="pw")


def test_watcher_sees_everything(watched: tuple[Connection, str]) -> None:
    """Every relation, what only reads, and the commands that show something."""
    _, url = watched
    with psycopg.connect(url, autocommit=True) as watcher:
        relations = watcher.execute(
            "SELECT c.oid::regclass::text FROM pg_class AS c "
            "WHERE c.relnamespace = 'pymig'::regnamespace AND c.relkind IN ('r', 'v')"
        ).fetchall()
        for (relation,) in relations:
            watcher.execute(f"SELECT * FROM {relation}".encode())
        for statement in READS.split(";\n"):
            watcher.execute(statement.encode())
        lost = "SELECT keys_lost FROM pymig.status WHERE entity = 'X'"
        assert watcher.execute(lost).fetchone() == (None,), "it may not know"
    for words in COMMANDS:
        done = command.run(tuple(words.split()), {"DATABASE_URL": url})
        assert (done.code, done.err) == (0, ""), (words, done)


def test_watcher_changes_nothing(watched: tuple[Connection, str]) -> None:
    """No procedure, no function that writes, no table: refused, and all is as it was."""
    conn, url = watched
    procedures = conn.execute(
        "SELECT DISTINCT p.proname FROM pg_proc AS p "
        "WHERE p.pronamespace = 'pymig'::regnamespace AND p.prokind = 'p' AND p.proname !~ '^_'"
    ).fetchall()
    assert {name for (name,) in procedures} == set(CALLS)
    # What was measured a moment ago is not measured again, by nobody.
    conn.execute("UPDATE pymig.throttle SET checked_at = NULL")
    before = _content(conn)
    with psycopg.connect(url, autocommit=True) as watcher:
        for name, arguments in CALLS.items():
            try:
                watcher.execute(f"CALL pymig.{name}({arguments})".encode())
                assert name in IDLE, name
            except psycopg.Error as error:
                assert re.fullmatch("42501|PM0..", error.sqlstate or ""), (name, error)
            assert _content(conn) == before, name
        for statement in WRITES.split(";\n"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                watcher.execute(statement.encode())
        for table in before:
            if table != "objects":
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    watcher.execute(f"DELETE FROM {table}".encode())
    assert _content(conn) == before
