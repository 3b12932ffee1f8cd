"""T10: plan, status, resolve_entities and verify look and change nothing; what plan says.

The proof is twofold: a hash of the catalog and of every row's text and xmin is the same before and
after, and the reading ones run in a READ ONLY transaction, where PostgreSQL refuses any change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Database

CREATE: LiteralString = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.n (ship text, ch text, ts timestamp, d float8, i int8, s text, fmt text,
    PRIMARY KEY (ship, ch, ts));
CREATE INDEX n_time ON tenant.n (ts);
INSERT INTO tenant.n
SELECT s, 'c/' || c, '2024-01-01'::timestamp + t * interval '10 min',
    CASE WHEN c < 5 THEN t / 7.0 END, CASE WHEN c BETWEEN 5 AND 7 THEN t END,
    CASE WHEN c > 7 THEN 'v' || t END, CASE WHEN c < 5 THEN 'd' WHEN c < 8 THEN 'i' ELSE 's' END
FROM unnest('{X,Y,"a,b"}'::text[]) AS s, generate_series(1, 9) AS c, generate_series(0, 30) AS t
WHERE s = 'X' OR c < 3;
INSERT INTO tenant.n VALUES ('X', repeat('long', 20), '2024-01-01', 1, NULL, NULL, 'd'),
    ('X', 'xmin', '2024-01-01', 1, NULL, NULL, 'd'), ('X', 'ts', '2024-01-01', 1, NULL, NULL, 'd'),
    ('X', 'faulty', '2024-01-01', 1, NULL, NULL, 'unknown');
ANALYZE tenant.n;
"""
REGISTER: LiteralString = """
CALL pymig.register_source('n', 'tenant.n', 'ship', 'ch', 'ts', '{d,i,s}', 'fmt',
    '{"d":"d","i":"i","s":"s"}')
"""
CATALOG: LiteralString = """
SELECT 'class', c.xmin::text, c.oid::text, c.relname::text, c.relacl::text FROM pg_class AS c
UNION ALL SELECT 'attribute', a.xmin::text, a.attrelid::text, a.attname, '' FROM pg_attribute AS a
UNION ALL SELECT 'proc', p.xmin::text, p.oid::text, p.proname, p.prosrc FROM pg_proc AS p
UNION ALL SELECT 'trigger', t.xmin::text, t.oid::text, t.tgname, t.tgenabled::text
    FROM pg_trigger AS t
UNION ALL SELECT 'type', t.xmin::text, t.oid::text, t.typname, '' FROM pg_type AS t
UNION ALL SELECT 'namespace', n.xmin::text, n.oid::text, n.nspname, '' FROM pg_namespace AS n
UNION ALL SELECT 'setting', s.xmin::text, s.setdatabase::text, s.setconfig::text, ''
    FROM pg_db_role_setting AS s
-- Autovacuum's own ANALYZE is counted apart.
UNION ALL SELECT 'analyze', '', sum(s.analyze_count)::text, '', '' FROM pg_stat_all_tables AS s
ORDER BY 1, 3, 4
"""
TABLES: LiteralString = """
SELECT c.oid::regclass::text, c.relkind::text FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1
"""
VERIFY_WRITES: Final = {
    "pymig.verification",
    "pymig.event",
    "pymig.event_event_seq",
    "pymig.entity",
    "pymig.worker",  # the heartbeat of the drain that comes first
    "pymig.throttle",  # as measured last
}


def _snapshot(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Relation -> hash of all its rows with their xmin; 'catalog' -> hash of the catalog."""
    hashes = {"catalog": _hash(conn.execute(CATALOG).fetchall())}
    for name, kind in conn.execute(TABLES).fetchall():
        what = "t.ctid, t.xmin::text, t::text" if kind == "r" else "t.last_value, t.is_called"
        rows = conn.execute(f"SELECT {what} FROM {name} AS t ORDER BY 1, 2".encode())
        hashes[name] = _hash(rows.fetchall())
    return hashes


def _hash(rows: list[Any]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@contextmanager
def _unchanged(conn: psycopg.Connection[Any], but: set[str] | None = None) -> Iterator[None]:
    before = _snapshot(conn)
    yield
    after = _snapshot(conn)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed - (but or set()) == set()


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """A registered source, nothing migrated."""
    conn = db.connect()
    conn.execute(CREATE)
    conn.execute(REGISTER)
    return conn


def _plan(conn: psycopg.Connection[Any], ship: str = "X", **arguments: str) -> dict[str, list[str]]:
    names = "".join(f", {name} => %({name})s" for name in arguments)
    rows = conn.execute(
        f"SELECT item, value, is_blocker FROM pymig.plan(%(ship)s{names})".encode(),
        {"ship": ship, **arguments},
    )
    items: dict[str, list[str]] = {}
    for item, value, is_blocker in rows:
        assert is_blocker == (item == "blocker")
        items.setdefault(item, []).append(value)
    return items


READS: Final[tuple[LiteralString, ...]] = (
    "SELECT * FROM pymig.plan('X')",
    "SELECT * FROM pymig.plan('X', p_column_types => 'native')",
    "SELECT * FROM pymig.status",
    "SELECT * FROM pymig.channel_map",
    "SELECT * FROM pymig.pending",
    "SELECT * FROM pymig.resolve_entities('all')",
    "SELECT * FROM pymig.resolve_entities('X,Y')",
    "SELECT * FROM pymig.discover_entities()",
)


@pytest.mark.parametrize("migrated", [False, True], ids=["before", "after"])
def test_looking_changes_nothing(conn: psycopg.Connection[Any], migrated: bool) -> None:
    """Before and after the migration, with keys pending; also where nothing can be written."""
    if migrated:
        conn.execute("CALL pymig.migrate('X')")
        conn.execute("UPDATE tenant.n SET d = d + 1")
    for query in READS:
        with _unchanged(conn):
            plain = conn.execute(query).fetchall()
        with conn.transaction():
            conn.execute("SET TRANSACTION READ ONLY")
            assert len(conn.execute(query).fetchall()) == len(plain)


def test_the_snapshot_sees_changes(conn: psycopg.Connection[Any]) -> None:
    """A hash that never changes would prove nothing."""
    changes: tuple[LiteralString, ...] = (
        "UPDATE tenant.n SET d = d WHERE ship = 'Y' AND ts = '2024-01-01' AND ch = 'c/1'",
        "CREATE VIEW v AS SELECT 1 AS one",
        "COMMENT ON VIEW v IS NULL; ALTER VIEW v SET (security_barrier)",
        "CREATE TRIGGER t AFTER INSERT ON tenant.n EXECUTE FUNCTION pymig.n_record_insert()",
        "INSERT INTO pymig.event (level, what, detail) VALUES ('INFO', 'a', 'b')",
    )
    for change in changes:
        with pytest.raises(AssertionError), _unchanged(conn):
            conn.execute(change)


def test_verify_changes_only_its_results(conn: psycopg.Connection[Any]) -> None:
    """Without repair: no wide row, no chunk, no quarantine; also where it finds faults."""
    conn.execute("CALL pymig.migrate('X')")
    with _unchanged(conn, VERIFY_WRITES):
        conn.execute("CALL pymig.verify('X')")
    conn.execute("""UPDATE tenant."n_x" SET "c/1" = 'wrong' WHERE ts = '2024-01-01'""")
    conn.execute("DELETE FROM tenant.n_x WHERE ts = '2024-01-01 01:00'")
    with _unchanged(conn, VERIFY_WRITES), pytest.raises(psycopg.Error) as caught:
        conn.execute("CALL pymig.verify('X')")
    assert caught.value.sqlstate == "PM013"


def test_plan_says_what_migrate_does(conn: psycopg.Connection[Any]) -> None:
    """Channels, types, parts, bounds, size, strategy, names: compared with the migrated ship."""
    for types, kinds in (("text", "13 text"), ("native", "7 float8, 3 text, 3 int8")):
        plan = _plan(conn, p_column_types=types)
        conn.execute("CALL pymig.migrate('X', p_column_types => %s)", [types])
        assert plan["wide table"] == ["tenant.n_x"]
        assert plan["channels"] == ["13"]
        assert ", ".join(sorted(plan["column types"][0].split(", "), reverse=True)) == ", ".join(
            sorted(kinds.split(", "), reverse=True)
        )
        assert plan["parts"] == ["13 channels"]
        assert plan["first bucket"] == ["2024-01-01 00:00:00"]
        assert plan["last bucket ends"] == ["2024-01-01 05:59:59.999999"]
        estimate = int(plan["narrow rows (estimate)"][0])
        assert 200 < estimate < 400
        assert plan["expected size"] and plan["disk needed"] and plan["strategy"]
        assert plan["roll back (estimate)"][0].startswith("1 s, and the wait for readers")
        assert "blocker" not in plan
        mapped = conn.execute(
            "SELECT format('%s -> %I', channel, wide_column) FROM pymig.channel_map"
            " WHERE wide_column <> channel"
        ).fetchall()
        assert sorted(plan["column name"]) == sorted(name for (name,) in mapped)
        assert len(mapped) == 3  # too long, xmin, and the time column's name
        kept = _plan(conn)
        assert kept["state"] == ["verified"]
        assert kept["wide table"] == plan["wide table"]
        conn.execute("CALL pymig.roll_back('X')")


def test_plan_deals_parts(db: Database) -> None:
    """Several parts are announced before, and are what is made."""
    conn = db.connect()
    conn.execute(
        "CREATE TABLE w (ship text, ch int, ts date, v text, PRIMARY KEY (ship, ch, ts));"
        "INSERT INTO w SELECT 'X', c, '2024-01-01', 'v' FROM generate_series(1, 700) AS c"
    )
    conn.execute("CALL pymig.register_source('w', 'w', 'ship', 'ch', 'ts', '{v}')")
    parts = _plan(conn)["parts"][0]
    conn.execute("CALL pymig.migrate('X')")
    made = conn.execute(
        "SELECT count(*) FROM pymig.channel_map GROUP BY wide_table ORDER BY wide_table"
    ).fetchall()
    assert parts == " + ".join(f"{n} channels" for (n,) in made)
    assert len(made) > 1


BLOCKERS: Final[dict[str, tuple[LiteralString, str]]] = {
    "time index": ("DROP INDEX tenant.n_time", "The index that leads with ts is gone"),
    "key": ("ALTER TABLE tenant.n DROP CONSTRAINT n_pkey", "The index on (ship, ch, ts) is gone"),
    "unique": (
        "ALTER TABLE tenant.n DROP CONSTRAINT n_pkey; CREATE INDEX ON tenant.n (ship, ch, ts)",
        "The unique key is gone",
    ),
}


@pytest.mark.parametrize("what", BLOCKERS)
def test_plan_names_blockers(conn: psycopg.Connection[Any], what: str) -> None:
    """What changed since the source was registered and would hurt now."""
    change, sentence = BLOCKERS[what]
    assert "blocker" not in _plan(conn)
    conn.execute(change)
    blockers = _plan(conn)["blocker"]
    assert any(blocker.startswith(sentence) for blocker in blockers), blockers
    with _unchanged(conn):
        _plan(conn)


@pytest.mark.parametrize(
    "granted,missing",
    [
        ("SELECT", "create triggers on it"),
        ("SELECT, TRIGGER", "own"),
        ("SELECT, TRIGGER", "may not create tables in schema tenant"),
    ],
)
def test_plan_names_lacking_privileges(
    db: Database, conn: psycopg.Connection[Any], granted: LiteralString, missing: str
) -> None:
    """For the role that asks, not for the one that registered."""
    role = sql.Identifier(f"reader_{db.name}")
    for grant in (
        sql.SQL("CREATE ROLE {}"),
        sql.SQL("GRANT USAGE ON SCHEMA pymig, tenant TO {}"),
        sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA pymig TO {}"),
        sql.SQL("GRANT " + granted + " ON tenant.n TO {}"),
    ):
        conn.execute(grant.format(role))
    try:
        conn.execute(sql.SQL("SET ROLE {}").format(role))
        blockers = _plan(conn)["blocker"]
        assert any(missing in blocker for blocker in blockers), blockers
    finally:
        conn.execute("RESET ROLE")
        conn.execute(sql.SQL("DROP OWNED BY {}").format(role))
        conn.execute(sql.SQL("DROP ROLE {}").format(role))


def test_resolve_entities(conn: psycopg.Connection[Any]) -> None:
    """One name, a list, all; smallest first; a name with a comma; a wrong one is PM002."""

    def resolve(names: str) -> list[str]:
        rows = conn.execute("SELECT entity FROM pymig.resolve_entities(%s)", [names])
        return [name for (name,) in rows]

    assert resolve("X") == ["X"]
    assert resolve("X,Y") == resolve("Y,X") == ["Y", "X"]
    assert resolve("a,b") == ["a,b"]
    assert resolve("all")[-1] == "X" and sorted(resolve("all")) == ["X", "Y", "a,b"]
    assert resolve("X,X") == ["X"]
    for wrong in ("x", "", "X,Z", "X;Y", "X, Y"):
        with pytest.raises(psycopg.Error) as caught:
            resolve(wrong)
        assert caught.value.sqlstate == "PM002", wrong
        assert caught.value.diag.message_hint


def test_status_tells_the_truth(conn: psycopg.Connection[Any]) -> None:
    """A row per entity through the states; rows, percent, pending, quarantine."""

    def status(ship: str = "X") -> dict[str, Any]:
        cursor = conn.execute("SELECT * FROM pymig.status WHERE entity = %s", [ship])
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        row = cursor.fetchone()
        return dict(zip(names, row, strict=True)) if row else {}

    rows = conn.execute("SELECT count(*) FROM tenant.n WHERE ship = 'X'").fetchall()[0][0]
    assert status() == {}
    conn.execute("CALL pymig.start_sync('X')")
    started = status()
    assert (started["state"], started["rows_done"], started["triggers"]) == ("syncing", 0, "armed")
    assert status("Y")["state"] == "known" and status("Y")["wide_table"] is None
    conn.execute("CALL pymig.backfill('X')")
    done = status()
    assert (done["state"], done["rows_done"], done["percent"]) == ("backfilled", rows, 100)
    assert done["wide_table"] == "tenant.n_x"
    assert (done["pending"], done["quarantined"], done["failed_chunks"]) == (0, 1, 0)
    conn.execute("UPDATE tenant.n SET d = 0 WHERE ch = 'c/1'")
    changed = status()
    assert changed["pending"] == 31 and changed["sync_lag"].total_seconds() >= 0
    conn.execute("CALL pymig.verify('X')")
    assert (status()["state"], status()["pending"]) == ("verified", 0)
    conn.execute("ALTER TABLE tenant.n DISABLE TRIGGER pymig_record_insert")
    assert status()["triggers"] == "drifted"
    conn.execute("CALL pymig.roll_back('X')")
    gone = status()
    assert (gone["state"], gone["wide_table"], gone["triggers"]) == ("rolled_back", None, "none")
