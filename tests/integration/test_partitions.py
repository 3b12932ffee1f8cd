"""Partitioned narrow tables of every layout: migrated, followed, judged by the oracle, or refused."""

# ruff: noqa: E501  (texts of SQL)

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import Narrow, difference

COLUMNS: LiteralString = "ship text NOT NULL, ch text NOT NULL, ts timestamp NOT NULL, v float8"
ARGUMENTS: LiteralString = "'plant', 't', 'ship', 'ch', 'ts', '{v}'"
ROWS: LiteralString = """
INSERT INTO t (ship, ch, ts, v)
SELECT s, c, '2024-03-01'::timestamp + n * interval '95 minutes', n
FROM unnest('{a,b}'::text[]) AS s, unnest('{p,q}'::text[]) AS c, generate_series(0, 40) AS n;
"""
CHANGES: LiteralString = """
UPDATE t SET v = -v WHERE v > 30; DELETE FROM t WHERE v BETWEEN 3 AND 5;
UPDATE t SET ts = ts + interval '1 day' WHERE v = 7; INSERT INTO t VALUES ('a', 'new', '2024-03-02', 1);
"""


def _days(*days: int, of: str = "t", name: str = "t_") -> str:
    return "".join(
        f"CREATE TABLE {name}{day} PARTITION OF {of}"
        f" FOR VALUES FROM ('2024-03-{day:02d}') TO ('2024-03-{day + 1:02d}');"
        for day in days
    )


@dataclass(frozen=True)
class Layout:
    """A partitioned table, changes of its partitions, and how the oracle reads it."""

    name: str
    create: str
    direct: str
    come: str
    go: str
    arguments: str = ARGUMENTS
    rows: str = ROWS
    changes: str = CHANGES
    tie_break: tuple[str, ...] = ()
    time_unit: str | None = None
    grain: timedelta | None = None


RANGE: Final = f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (ship, ch, ts)) PARTITION BY RANGE (ts);"
LAYOUTS: Final = (
    Layout(
        "range",
        RANGE + _days(1, 2, 3, 4),
        "INSERT INTO t_2 VALUES ('a', 'p', '2024-03-02 23:59:59', 9); TRUNCATE t_1",
        _days(5)
        + "INSERT INTO t_5 VALUES ('a', 'q', '2024-03-05', 1), ('new', 'q', '2024-03-05', 1)",
        "DROP TABLE t_2; ALTER TABLE t DETACH PARTITION t_3",
    ),
    Layout(
        "range_default_other_column_order",
        RANGE
        + _days(1, 2)
        + "CREATE TABLE x (gone int, v float8, ts timestamp NOT NULL, ch text NOT NULL, ship text NOT NULL);"
        "ALTER TABLE x DROP COLUMN gone; CREATE TABLE t_rest PARTITION OF t DEFAULT;",
        "UPDATE t_rest SET v = 99 WHERE ship = 'a'; INSERT INTO t_rest VALUES ('b', 'p', 'infinity', 4)",
        "INSERT INTO x VALUES (7, '2024-03-07 10:00', 'p', 'a'), (8, '2024-03-07 11:00', 'later', 'b');"
        "ALTER TABLE t ATTACH PARTITION x FOR VALUES FROM ('2024-03-07') TO ('2024-03-08');"
        "INSERT INTO x VALUES (9, '2024-03-07 12:00', 'p', 'a')",
        "ALTER TABLE t DETACH PARTITION t_rest",
    ),
    Layout(
        "list_above_range",
        f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (ship, ch, ts)) PARTITION BY LIST (ship);"
        "CREATE TABLE t_a PARTITION OF t FOR VALUES IN ('a') PARTITION BY RANGE (ts);"
        "CREATE TABLE t_b PARTITION OF t FOR VALUES IN ('b', 'c') PARTITION BY RANGE (ts);"
        + _days(1, 2, 3, 4, of="t_a", name="t_a_")
        + _days(1, 2, 3, 4, of="t_b", name="t_b_"),
        "INSERT INTO t_a VALUES ('a', 'p', '2024-03-03 12:34', 5); DELETE FROM t_b WHERE v = 9;"
        "UPDATE t_a SET ts = ts + interval '1 day' WHERE v = 8; INSERT INTO t_b_2 VALUES ('b', 'p', '2024-03-02 01:01', 5)",
        _days(5, of="t_a", name="t_a_")
        + "INSERT INTO t_a_5 VALUES ('a', 'q', '2024-03-05', 1); INSERT INTO t_b VALUES ('c', 'q', '2024-03-04', 1)",
        "DROP TABLE t_a_2; ALTER TABLE t DETACH PARTITION t_b",
    ),
    Layout(
        "range_above_hash",
        RANGE
        + "".join(
            f"CREATE TABLE t_{day} PARTITION OF t FOR VALUES FROM ('2024-03-0{day}') TO ('2024-03-0{day + 1}')"
            " PARTITION BY HASH (ship);"
            + "".join(
                f"CREATE TABLE t_{day}_{n} PARTITION OF t_{day} FOR VALUES WITH (MODULUS 2, REMAINDER {n});"
                for n in (0, 1)
            )
            for day in (1, 2, 3, 4)
        ),
        "INSERT INTO t_2 VALUES ('a', 'p', '2024-03-02 01:01', 5), ('b', 'p', '2024-03-02 01:01', 5);"
        "UPDATE t_3_0 SET v = 77; UPDATE t_3_1 SET v = 78; TRUNCATE t_1_0, t_1_1",
        "INSERT INTO t_4 VALUES ('c', 'q', '2024-03-04 02:00', 1)",
        "DROP TABLE t_2; ALTER TABLE t DETACH PARTITION t_3",
    ),
    Layout(
        "epoch_grain_no_unique_key",
        "CREATE TABLE t (id serial, ship text, ch text, ts bigint, v float8) PARTITION BY RANGE (ts);"
        "CREATE INDEX ON t (ts);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (MINVALUE) TO (-86400000);"
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (-86400000) TO (0);"
        "CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (0) TO (MAXVALUE);",
        "INSERT INTO t_2 (ship, ch, ts, v) VALUES ('a', 'p', -5, 1), ('a', 'p', -4, 2);"
        "INSERT INTO t_3 (ship, ch, ts, v) VALUES ('a', 'p', 5, 1), ('a', NULL, 6, 2)",
        "CREATE TABLE x (LIKE t INCLUDING DEFAULTS);"
        "INSERT INTO x (ship, ch, ts, v) VALUES ('a', 'r', -86400007, 1), ('b', NULL, -86400007, 3);"
        "ALTER TABLE t DETACH PARTITION t_1;"
        "ALTER TABLE t ATTACH PARTITION x FOR VALUES FROM (MINVALUE) TO (-86400000)",
        "DROP TABLE t_2",
        ARGUMENTS + ", p_tie_break => '{id}', p_time_unit => 'ms', p_time_grain => '1 second'",
        "INSERT INTO t (ship, ch, ts, v) SELECT s, c, n * 9500000::bigint, n"
        " FROM unnest('{a,b}'::text[]) AS s, unnest('{p,q}'::text[]) AS c, generate_series(-30, 30) AS n",
        "UPDATE t SET v = -v WHERE v > 20; DELETE FROM t WHERE v BETWEEN 3 AND 5; UPDATE t SET ts = -ts WHERE v = 7",
        ("id",),
        "ms",
        timedelta(seconds=1),
    ),
    Layout(
        "timestamptz_dates_between_buckets",
        "CREATE TABLE t (ship text NOT NULL, ch text NOT NULL, ts timestamptz NOT NULL, v float8,"
        " PRIMARY KEY (ship, ch, ts)) PARTITION BY RANGE (ts);"
        "SET TimeZone = 'Asia/Kolkata';" + _days(1, 2, 3, 4),
        "INSERT INTO t_2 VALUES ('a', 'p', '2024-03-02 00:01', 9); TRUNCATE t_1",
        _days(5) + "INSERT INTO t_5 VALUES ('a', 'q', '2024-03-05', 1)",
        "DROP TABLE t_2; ALTER TABLE t DETACH PARTITION t_3",
        rows=ROWS.replace("'2024-03-01'::timestamp", "'2024-03-01'::timestamptz"),
    ),
)


def _judge(conn: psycopg.Connection[Any], narrow: Narrow) -> list[str]:
    for _ in range(4):
        conn.execute("CALL pymig.sync_pending()")
    damage = difference(conn, narrow)
    for (entity,) in conn.execute(
        "SELECT entity FROM pymig.entity WHERE wide_table IS NOT NULL ORDER BY 1"
    ).fetchall():
        try:
            conn.execute("CALL pymig.verify(%s)", [entity])
        except psycopg.Error as error:
            damage.append(str(error))
    return damage


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_is_followed(db: Database, layout: Layout) -> None:
    """Through the table and straight into partitions; partitions that come with rows, and go."""
    conn = db.connect(options="-c statement_timeout=30s")
    narrow = Narrow(
        "plant", "t", "ship", "ch", "ts", ("v",),
        tie_break=layout.tie_break, time_unit=layout.time_unit, time_grain=layout.grain,
    )  # fmt: skip
    conn.execute(layout.create.encode())
    conn.execute(layout.rows.encode())
    conn.execute(f"CALL pymig.register_source({layout.arguments})".encode())
    conn.execute("CALL pymig.set_new_entities('auto')")
    for ship in "ab":
        conn.execute("CALL pymig.migrate(%s)", [ship])
    assert _judge(conn, narrow) == []
    for change in (layout.changes, layout.direct, layout.come, layout.go):
        conn.execute(change.encode())
        assert _judge(conn, narrow) == [], change
    assert conn.execute("SELECT DISTINCT triggers FROM pymig.status").fetchall() == [("armed",)]
    for ship in "ab":
        conn.execute("CALL pymig.roll_back(%s)", [ship])
    conn.execute("CALL pymig.unregister_source('plant')")
    assert _count(conn, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pymig%'") == 0
    assert _count(conn, "SELECT count(*) FROM pymig.partition") == 0


def _count(conn: psycopg.Connection[Any], query: LiteralString) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _simple(db: Database, *days: int, migrate: bool = True) -> psycopg.Connection[Any]:
    """The layout `range`, migrated."""
    conn = db.connect(options="-c statement_timeout=30s")
    conn.execute((RANGE + _days(*(days or (1, 2, 3, 4))) + ROWS).encode())
    conn.execute(f"CALL pymig.register_source({ARGUMENTS})".encode())
    if migrate:
        conn.execute("CALL pymig.migrate('a')")
    return conn


def _error(conn: psycopg.Connection[Any], statement: LiteralString) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(statement)
    return caught.value


# --- events, state and plans --------------------------------------------------------------------


def test_what_comes_and_goes_is_an_event(db: Database) -> None:
    """One event a partition, whatever the number of passes; none for those there were at first."""
    conn = _simple(db)
    conn.execute(_days(5).encode())
    conn.execute("DROP TABLE t_1")
    for _ in range(3):
        conn.execute("CALL pymig.sync_pending()")
    found = conn.execute(
        "SELECT level, what, detail FROM pymig.event WHERE what LIKE 'partition%' ORDER BY event"
    ).fetchall()
    assert found == [
        ("INFO", "partition gone",
         "public.t_1 is no partition of public.t any more: the wide rows of its range follow."),
        ("INFO", "partition added", "public.t_5 is a partition of public.t now."),
    ]  # fmt: skip


def test_triggers_of_a_partition_are_watched(db: Database) -> None:
    """Disabled on one partition: drifted, until start_sync arms it again."""
    conn = _simple(db)
    state: LiteralString = "SELECT DISTINCT triggers FROM pymig.status"
    conn.execute(_days(5).encode())
    assert conn.execute(state).fetchall() == [("armed",)]  # a new one is the worker's
    conn.execute("ALTER TABLE t_3 DISABLE TRIGGER pymig_record_update")
    assert conn.execute(state).fetchall() == [("drifted",)]
    conn.execute("CALL pymig.start_sync('a')")
    assert conn.execute(state).fetchall() == [("armed",)]
    assert _count(conn, "SELECT count(*) FROM pymig.event WHERE what = 'triggers drifted'") == 1


def test_a_bucket_is_read_from_its_partition_alone(db: Database) -> None:
    """50 partitions, one bucket: the gather and the loose scan of channels touch one of them."""
    conn = db.connect()
    conn.execute(RANGE.encode())
    conn.execute(
        "DO $$ BEGIN FOR i IN 0 .. 49 LOOP EXECUTE format('CREATE TABLE t_%s PARTITION OF t"
        " FOR VALUES FROM (%L) TO (%L)', i, timestamp '2024-03-01' + i * interval '1 day',"
        " timestamp '2024-03-02' + i * interval '1 day'); END LOOP; END $$"
    )
    conn.execute(
        "INSERT INTO t SELECT 'a', 'ch' || c, timestamp '2024-03-01' + n * interval '1 hour', n"
        " FROM generate_series(1, 20) AS c, generate_series(0, 1199) AS n"
    )
    conn.execute("ANALYZE t")
    conn.execute(f"CALL pymig.register_source({ARGUMENTS})".encode())
    conn.execute("CALL pymig.start_sync('a')")
    conn.execute("SET enable_seqscan = off")
    bucket = _count(
        conn,
        "SELECT pymig.bucket_of(pymig.tick_of(timestamp '2024-03-21 10:00'), bucket_ticks) FROM pymig.source",
    )
    row = conn.execute(
        "SELECT pymig._recompute_by_arrays_sql(s, 'a', pymig._time_condition(s, 'n.raw_time', %(b)s, %(b)s), true,"
        " pymig._leaves_sql(s, 'n.raw_time', %(b)s, %(b)s)),"
        " pymig._leaves_sql(s, 'n.raw_time', %(b)s, %(b)s) FROM pymig.source AS s",
        {"b": bucket},
    ).fetchone()
    assert row is not None
    gather, leaves = row
    assert leaves == (
        "n.raw_time BETWEEN '2024-03-21 00:00:00'::timestamp without time zone"
        " AND '2024-03-21 23:59:59.999999'::timestamp without time zone"
    )
    scan = conn.execute(
        "SELECT pymig._loose_scan_sql(s, 'channel', 'n.entity = ''a'' AND ' || %s) FROM pymig.source AS s",
        [leaves],
    ).fetchone()
    assert scan is not None
    loose = f"WITH RECURSIVE loose(value) AS ({scan[0]}) SELECT count(*) FROM loose"
    for statement in (gather, loose):
        plan = "\n".join(line for (line,) in conn.execute(f"EXPLAIN {statement}".encode()))
        assert set(re.findall(r"\bt_\d+\b", plan.replace("_pkey", ""))) == {"t_20"}, plan
        assert "Seq Scan on t_20" not in plan
    assert conn.execute(loose.encode()).fetchone() == (21,)


@pytest.mark.parametrize("way", ["_next_narrow_bucket", "_next_bucket"])
def test_gaps_are_jumped_from_partition_to_partition(db: Database, way: str) -> None:
    """The next bucket with rows, also beyond partitions, in none that is known, and at the ends."""
    conn = _simple(db, 1, 2, 3, 4, 20, 28)
    conn.execute("CREATE TABLE t_rest PARTITION OF t DEFAULT")  # not yet noticed
    conn.execute(
        "INSERT INTO t VALUES ('a', 'p', '2024-03-28 20:00', 1), ('a', 'q', '2024-03-12', 1),"
        " ('a', 'q', 'infinity', 1), ('a', 'q', '-infinity', 1)"
    )
    found = []
    bucket: int | None = -(2**63)
    while bucket is not None:
        row = conn.execute(
            "SELECT b.b, pymig._bucket_start(s, b.b) FROM pymig.source AS s,"
            f" pymig.{way}(s, 'a', %s) AS b (b)".encode(),
            [bucket],
        ).fetchone()
        assert row is not None
        bucket = None if row[0] is None or row[0] == 2**63 - 1 else row[0] + 1
        found.append(row[1])
    wanted = conn.execute(
        "SELECT u.u::text FROM (SELECT DISTINCT date_trunc('hour', ts) FROM t WHERE ship = 'a') AS u (u) ORDER BY u.u"
    ).fetchall()
    assert found == [text for (text,) in wanted]


# --- the table goes -----------------------------------------------------------------------------


def test_a_dropped_source_is_an_event_and_no_crash(db: Database) -> None:
    """DROP TABLE … CASCADE: passes go on, said once; what is left can be rolled back."""
    conn = _simple(db)
    conn.execute("CREATE TABLE other (LIKE t INCLUDING ALL)")
    conn.execute("CALL pymig.register_source('other', 'other', 'ship', 'ch', 'ts', '{v}')")
    conn.execute("INSERT INTO other VALUES ('o', 'p', '2024-03-01', 1)")
    conn.execute("CALL pymig.migrate('o', 'other')")
    conn.execute("UPDATE t SET v = 0; UPDATE other SET v = 2")
    conn.execute("DROP TABLE t CASCADE")
    for _ in range(3):
        conn.execute("CALL pymig.sync_pending()")
    assert _count(conn, "SELECT count(*) FROM pymig.event WHERE what = 'source gone'") == 1
    assert _count(conn, "SELECT p::int FROM other_o") == 2
    assert _count(conn, "SELECT count(*) FROM pymig.status WHERE source = 'plant'") == 2
    conn.execute("CALL pymig.unregister_source('plant')")
    assert _count(conn, "SELECT count(*) FROM pymig.source") == 1


def test_uninstalled_the_database_is_what_it_was(empty_db: Database) -> None:
    """pg_dump before install and after uninstall, a partition having been detached meanwhile."""
    from pymig.install import install, uninstall

    conn = empty_db.connect()
    conn.execute((RANGE + _days(1, 2, 3, 4) + ROWS).encode())
    conn.execute("ALTER TABLE t DETACH PARTITION t_2")
    before = _dump(empty_db)
    conn.execute(
        "ALTER TABLE t ATTACH PARTITION t_2 FOR VALUES FROM ('2024-03-02') TO ('2024-03-03')"
    )
    install(empty_db.url)
    conn.execute(f"CALL pymig.register_source({ARGUMENTS})".encode())
    conn.execute("CALL pymig.migrate('a')")
    conn.execute("ALTER TABLE t DETACH PARTITION t_2")  # nobody looks any more
    uninstall(empty_db.url)
    assert _dump(empty_db) == before


def _dump(db: Database) -> str:
    program = db.cluster.binaries.bindir / "pg_dump"
    if not program.is_file():
        pytest.skip(f"{program} is missing")
    done = subprocess.run(
        [program, "--dbname", db.url],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


# --- policy and refusals ------------------------------------------------------------------------


def test_keep_is_refused_where_it_can_not_be_had(db: Database) -> None:
    """No partitions, a time grain, partitions cut by more than time; and no such policy."""
    conn = db.connect()
    conn.execute(f"CREATE TABLE plain ({COLUMNS}, PRIMARY KEY (ship, ch, ts))".encode())
    conn.execute("CALL pymig.register_source('plain', 'plain', 'ship', 'ch', 'ts', '{v}')")
    for layout in LAYOUTS[2:5]:
        conn.execute("DROP TABLE IF EXISTS t, x CASCADE")
        conn.execute(layout.create.encode())
        conn.execute(f"CALL pymig.register_source({layout.arguments})".encode())
        assert _error(conn, "CALL pymig.set_retention('keep', 'plant')").sqlstate == "PM022"
        conn.execute("CALL pymig.unregister_source('plant')")
    assert _error(conn, "CALL pymig.set_retention('keep', 'plain')").sqlstate == "PM022"
    assert _error(conn, "CALL pymig.set_retention('maybe', 'plain')").sqlstate == "PM007"


def test_rolling_back_kept_rows_is_refused(db: Database) -> None:
    """The wide table has the only copy of them: PM024, also from unregister_source."""
    conn = _simple(db)
    conn.execute("CALL pymig.set_retention('keep')")
    conn.execute("DROP TABLE t_2")
    conn.execute("CALL pymig.sync_pending()")
    for statement in ("CALL pymig.roll_back('a')", "CALL pymig.unregister_source('plant')"):
        error = _error(conn, statement)
        assert (error.sqlstate, "t_2" in str(error.diag.message_detail)) == ("PM024", True)
    assert _count(conn, "SELECT count(*) FROM t_a WHERE ts::date = '2024-03-02'") > 10
    conn.execute("CALL pymig.set_retention('drop')")
    conn.execute("CALL pymig.sync_pending()")
    assert _count(conn, "SELECT count(*) FROM t_a WHERE ts::date = '2024-03-02'") == 0
    conn.execute("CALL pymig.roll_back('a')")


def test_a_default_partition_that_goes_keeps_nothing(db: Database) -> None:
    """Its range is what the others leave: a WARNING, and its wide rows follow."""
    conn = _simple(db)
    conn.execute("DROP TABLE t_2")
    conn.execute("CREATE TABLE t_rest PARTITION OF t DEFAULT")
    conn.execute("INSERT INTO t VALUES ('a', 'p', '2024-03-09', 1)")
    conn.execute("CALL pymig.sync_pending()")
    conn.execute("CALL pymig.set_retention('keep')")
    conn.execute("ALTER TABLE t DETACH PARTITION t_rest")
    conn.execute("CALL pymig.sync_pending()")
    assert (
        _count(
            conn,
            "SELECT count(*) FROM pymig.event WHERE what = 'partition gone' AND level = 'WARNING'",
        )
        == 1
    )
    assert _count(conn, "SELECT count(*) FROM t_a WHERE ts = '2024-03-09'") == 0


REFUSED: Final[dict[str, tuple[str, str]]] = {
    "a partition": (RANGE + _days(1), "'plant', 't_1', 'ship', 'ch', 'ts', '{v}'"),
    "foreign partition": (
        f"CREATE TABLE t (id int, {COLUMNS}) PARTITION BY RANGE (ts); CREATE INDEX ON t (ship, ts);"
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;"
        "CREATE FOREIGN TABLE t_1 PARTITION OF t DEFAULT SERVER nowhere",
        ARGUMENTS + ", p_tie_break => '{id}'",
    ),
    # A stand-in for the extension's catalog: the names and columns pymig asks for, nothing else.
    "hypertable": (
        f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (ship, ch, ts)); CREATE TABLE chunk () INHERITS (t);"
        "CREATE SCHEMA _timescaledb_catalog;"
        "CREATE TABLE _timescaledb_catalog.hypertable (id int, schema_name name, table_name name);"
        "INSERT INTO _timescaledb_catalog.hypertable VALUES (1, 'public', 't')",
        ARGUMENTS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_not_be_followed_is_refused(db: Database, what: str) -> None:
    """PM022 and one sentence."""
    conn = db.connect()
    create, arguments = REFUSED[what]
    conn.execute(create.encode())
    error = _error(conn, f"CALL pymig.register_source({arguments})")
    assert error.sqlstate == "PM022"
    sentence = str(error.diag.message_primary)
    assert ". " not in sentence and error.diag.message_hint
    assert what != "hypertable" or "hypertable of TimescaleDB" in sentence


def test_partitions_of_others_are_a_blocker(db: Database) -> None:
    """plan says so before arming would fail on it; and how many partitions there are."""
    conn = _simple(db, migrate=False)
    role = f"other_{db.name}"
    conn.execute(f"CREATE ROLE me_{db.name} NOSUPERUSER; CREATE ROLE {role}".encode())
    try:
        conn.execute(
            f"ALTER TABLE t OWNER TO me_{db.name}; ALTER TABLE t_2 OWNER TO {role}".encode()
        )
        conn.execute(
            f"GRANT ALL ON SCHEMA pymig, public TO me_{db.name}; GRANT ALL ON ALL TABLES IN SCHEMA pymig TO me_{db.name}".encode()
        )
        conn.execute(f"SET ROLE me_{db.name}".encode())
        items = conn.execute("SELECT item, value FROM pymig.plan('a')").fetchall()
        conn.execute("RESET ROLE")
        assert ("blocker", f"Role me_{db.name} does not own all partitions of public.t.") in [
            (item, value) for item, value in items
        ]
        assert "partitions" in {item for item, _ in items}
    finally:
        conn.execute("RESET ROLE")
        conn.execute(f"DROP OWNED BY me_{db.name}, {role} CASCADE".encode())
        conn.execute(f"DROP ROLE me_{db.name}, {role}".encode())
