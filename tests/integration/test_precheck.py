"""precheck: what is wrong is seen, what can't be seen is said to be unknown; nothing is changed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql

from pymig.disk import free_bytes
from tests.conftest import Database
from tests.waiting import until

CREATE: LiteralString = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT 'X', 'c' || c, '2024-01-01'::timestamp + t * interval '1 min', t
FROM generate_series(1, 5) AS c, generate_series(1, 100) AS t;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}');
"""
#: What takes a right away, what gives it back, and a word of the advice.
LACKING: Final[tuple[tuple[LiteralString, LiteralString, str], ...]] = (
    (
        "REVOKE INSERT ON pymig.entity FROM {}",
        "GRANT INSERT ON pymig.entity TO {}",
        "as the role that installed",
    ),
    (
        "ALTER TABLE n ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ALTER TABLE n DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        "BYPASSRLS",
    ),
)


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """A narrow table of 500 rows, registered."""
    conn = db.connect()
    conn.execute(CREATE)
    return conn


def _check(
    conn: psycopg.Connection[Any], free: int | None = None
) -> dict[str, tuple[str, str, str]]:
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        rows = conn.execute("SELECT * FROM pymig.precheck(p_free_bytes => %s)", [free]).fetchall()
    assert all(level in ("green", "yellow", "red") for _, level, _, _ in rows)
    assert all((level == "green") == (advice is None) for _, level, _, advice in rows), rows
    return {item: (level, value, advice) for item, level, value, advice in rows}


def test_a_table_in_order(conn: psycopg.Connection[Any]) -> None:
    """Green is what is in order; what the server can't know is said to be unknown."""
    conn.execute("ANALYZE n")
    seen = _check(conn, 10**12)
    assert seen["narrow table"][:2] == ("green", "can be served")
    assert seen["statistics"][:2] == ("green", "about 500 rows")
    assert seen["disk"][0] == "green"
    assert seen["restore point"][0] == "green"
    assert seen["archiving"][:2] == ("yellow", "off")
    assert seen["base backup"][:2] == ("yellow", "none that the server knows of")
    assert seen["long transactions"][1] == seen["prepared transactions"][1] == "none"
    assert seen["replication slots"][:2] == ("green", "none that is unused")
    assert seen["replication"][:2] == ("green", "nobody follows")
    assert seen["partitions"][:2] == ("green", "not partitioned")
    assert seen["indexes"][0] == seen["privileges"][0] == seen["extensions"][0] == "green"
    assert seen["indexes"][1].startswith("read channel by channel, duplicates are ruled out")
    assert "tablefunc can be created" in seen["extensions"][1]
    assert "checkpoint_segments" not in seen  # gone since PostgreSQL 9.5


@pytest.mark.parametrize(
    ("free", "level"), [(None, "yellow"), (8_999, "red"), (9_000, "yellow"), (13_500, "green")]
)
def test_disk(conn: psycopg.Connection[Any], free: int | None, level: str) -> None:
    """500 rows need 9,000 bytes with their WAL; half as much again is comfortable."""
    conn.execute("ANALYZE n")
    assert _check(conn, free)["disk"][0] == level


def test_migrated_ships_need_no_more(conn: psycopg.Connection[Any]) -> None:
    """Only what is left to move counts."""
    conn.execute("ANALYZE n")
    conn.execute("CALL pymig.migrate('X')")
    assert _check(conn, 1)["disk"][0] == "green"


def test_no_statistics(conn: psycopg.Connection[Any]) -> None:
    """A table that was never analyzed is said to be one."""
    level, value, advice = _check(conn)["statistics"]
    assert (level, value) == ("yellow", "none for 1 of 1 tables")
    assert advice.startswith("ANALYZE public.n")


def test_partitions_are_summed(db: Database) -> None:
    """Rows and statistics are those of the partitions."""
    conn = db.connect()
    conn.execute(
        CREATE.replace(
            "(ship, ch, ts));",
            """(ship, ch, ts)) PARTITION BY RANGE (ts);
        CREATE TABLE n1 PARTITION OF n FOR VALUES FROM ('2024-01-01') TO ('2024-01-01 01:00');
        CREATE TABLE n2 PARTITION OF n DEFAULT;""",
            1,
        )
    )
    conn.execute("ANALYZE n1")
    assert _check(conn)["statistics"][:2] == ("yellow", "none for 1 of 2 tables")
    conn.execute("ANALYZE n2")
    assert _check(conn)["statistics"][:2] == ("green", "about 500 rows")
    assert _check(conn)["partitions"][:2] == ("green", "2")
    conn.execute("DROP TABLE n2; CREATE TABLE n3 PARTITION OF n DEFAULT PARTITION BY LIST (ch)")
    conn.execute("CREATE TABLE n4 PARTITION OF n3 FOR VALUES IN ('c1')")
    level, value, _ = _check(conn)["partitions"]
    assert (level, value) == ("yellow", "2, 1 of them not by ranges of time alone")


def test_unused_slot(conn: psycopg.Connection[Any], db: Database) -> None:
    """A slot that nobody reads is red where nothing bounds what it keeps."""
    conn.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [db.name])
    try:
        level, value, _ = _check(conn)["replication slots"]
        assert level == "red"
        assert db.name in value
    finally:
        conn.execute("SELECT pg_drop_replication_slot(%s)", [db.name])


def _is_active(conn: psycopg.Connection[Any], slot: str) -> bool:
    row = conn.execute(
        "SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot]
    ).fetchone()
    return bool(row and row[0])


def test_who_follows(conn: psycopg.Connection[Any], db: Database, tmp_path: Path) -> None:
    """A client that streams WAL through a slot is counted, and what the slot keeps."""
    conn.execute("SELECT pg_create_physical_replication_slot(%s, true)", [db.name])
    receiver = subprocess.Popen(
        [db.cluster.binaries.bindir / "pg_receivewal", "--dbname", db.url, "--slot", db.name,
         "--directory", tmp_path, "--no-loop"]
    )  # fmt: skip
    try:
        # It is connected a moment before it has the slot.
        until(lambda: "WAL kept by slots" in _check(conn), "nobody reads the slot")
        seen = _check(conn)
        assert seen["replication"][1].startswith("1 standbys or subscribers, ")
        assert seen["WAL kept by slots"][0] == "green"
    finally:
        receiver.terminate()
        receiver.wait()
        until(lambda: not _is_active(conn, db.name), "the slot stays active")
        conn.execute("SELECT pg_drop_replication_slot(%s)", [db.name])


#: Item, a setting with what makes it yellow and what makes it green, and a word of the advice.
SETTINGS: Final = (
    ("work_mem", "work_mem", "1MB", "4MB", "memory"),
    ("maintenance_work_mem", "maintenance_work_mem", "64MB", "256MB", "sorted in memory"),
    ("random_page_cost", "random_page_cost", "4", "1.1", "SSDs"),
    ("temp_file_limit", "temp_file_limit", "1GB", "-1", "ingest"),
    ("timeouts", "statement_timeout", "1h", "0", "ALTER ROLE"),
    ("timeouts", "idle_in_transaction_session_timeout", "1h", "0", "ALTER ROLE"),
    ("replication", "synchronous_commit", "on", "local", "standby"),
)


def test_settings(conn: psycopg.Connection[Any]) -> None:
    """Each is yellow and green where it should be, and says what another value gains."""
    conn.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    conn.execute("SET synchronous_commit = local")
    conn.execute("SELECT pg_reload_conf()")
    try:
        until(lambda: conn.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",),
              "the setting does not come")  # fmt: skip
        for item, name, bad, good, word in SETTINGS:
            for value, level in ((bad, "yellow"), (good, "green")):
                conn.execute("SELECT set_config(%s, %s, false)", [name, value])
                seen = _check(conn)[item]
                assert seen[0] == level, (name, value, seen)
                assert level == "green" or word in seen[2]
    finally:
        conn.execute("ALTER SYSTEM RESET synchronous_standby_names")
        conn.execute("SELECT pg_reload_conf()")
    # Where this server was built with it.
    is_there = conn.execute("SELECT pg_jit_available()").fetchone() == (True,)
    seen = _check(conn)["jit"]
    assert seen[:2] == (("yellow", "on, from a cost of 100000") if is_there else ("green", "off"))
    assert not is_there or "SET jit = off" in seen[2]
    for setting in ("jit_above_cost = -1", "jit = off"):
        conn.execute(f"SET {setting}")
        assert _check(conn)["jit"][:2] == ("green", "off")
        conn.execute(f"RESET {setting.split()[0]}")
    assert _check(conn)["shared_buffers"][:2] == ("yellow", "128 MB")
    assert _check(conn)["max_wal_size"][:2] == ("yellow", "512 MB")


def test_indexes(conn: psycopg.Connection[Any]) -> None:
    """One that is invalid, and a table that is read by time alone."""
    conn.execute("CREATE INDEX spare ON n (d)")
    conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'spare'::regclass")
    level, value, advice = _check(conn)["indexes"]
    assert (level, "invalid: public.spare" in value, "REINDEX" in advice) == ("yellow", True, True)
    conn.execute("DROP INDEX spare; ALTER TABLE n DROP CONSTRAINT n_pkey; CREATE INDEX ON n (ts)")
    level, value, advice = _check(conn)["indexes"]
    assert (level, value.startswith("read by time, duplicates can be")) == ("yellow", True)
    assert "(ship, ch, ts)" in advice


def test_blocker_is_red(conn: psycopg.Connection[Any], db: Database) -> None:
    """What refuses a migration is what plan calls a blocker."""
    conn.execute("ALTER TABLE n DROP CONSTRAINT n_pkey")
    level, value, _ = _check(conn)["narrow table"]
    assert level == "red"
    assert "key is gone" in value


def test_role_without_rights(conn: psycopg.Connection[Any], db: Database) -> None:
    """A role that is no superuser is told how to get restore points; its migration goes on."""
    role = sql.Identifier(f"owner_{db.name}")
    conn.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        conn.execute(sql.SQL("ALTER TABLE n OWNER TO {}").format(role))
        conn.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(role))
        conn.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA pymig TO {}").format(role))
        conn.execute(sql.SQL("GRANT USAGE ON SCHEMA pymig TO {}").format(role))
        conn.execute(sql.SQL("SET ROLE {}").format(role))
        level, _, advice = _check(conn)["restore point"]
        assert level == "yellow"
        assert "GRANT EXECUTE" in advice
        level, value, advice = _check(conn)["long transactions"]
        assert (level, value) == ("yellow", "those of other roles are not visible")
        assert "pg_read_all_stats" in advice
        assert _check(conn)["privileges"][0] == "green"
        conn.execute("RESET ROLE")
        for change, back, word in LACKING:
            conn.execute(sql.SQL(change).format(role))
            conn.execute(sql.SQL("SET ROLE {}").format(role))
            level, _, advice = _check(conn)["privileges"]
            assert (level, word in advice) == ("red", True), (change, advice)
            conn.execute("RESET ROLE")
            conn.execute(sql.SQL(back).format(role))
        conn.execute(
            sql.SQL("GRANT EXECUTE ON FUNCTION pg_create_restore_point TO {}").format(role)
        )
        conn.execute(sql.SQL("SET ROLE {}").format(role))
        assert _check(conn)["restore point"][0] == "green"
    finally:
        conn.execute("RESET ROLE")
        conn.execute(
            sql.SQL("REVOKE EXECUTE ON FUNCTION pg_create_restore_point FROM {}").format(role)
        )
        conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
        conn.execute(sql.SQL("DROP ROLE {}").format(role))


def test_one_restore_point_a_migration(conn: psycopg.Connection[Any]) -> None:
    """Run again, start_sync names none; after a rollback the next migration does."""
    count = "SELECT count(*) FROM pymig.event WHERE what = 'restore point'"
    for _ in range(2):
        conn.execute("CALL pymig.start_sync('X')")
        assert conn.execute(count).fetchone() == (1,)
    conn.execute("CALL pymig.roll_back('X')")
    conn.execute("CALL pymig.start_sync('X')")
    assert conn.execute(count).fetchone() == (2,)


def test_a_name_of_any_ship(conn: psycopg.Connection[Any]) -> None:
    """63 bytes of plain characters, whatever the ship is called."""
    ship = "ä'\n" + "x" * 90
    conn.execute("INSERT INTO n VALUES (%s, 'c1', '2024-01-01', 1)", [ship])
    conn.execute("CALL pymig.start_sync(%s)", [ship])
    row = conn.execute("SELECT detail FROM pymig.event WHERE what = 'restore point'").fetchone()
    assert row
    assert f"'pymig__{'x' * 39}_2" in row[0]


def test_free_bytes_only_of_this_machine(conn: psycopg.Connection[Any], db: Database) -> None:
    """The disk is the server's own only while postmaster.pid says so."""
    with psycopg.connect(db.url, row_factory=psycopg.rows.dict_row) as own:
        free = free_bytes(own)
        pid = db.cluster.data / "postmaster.pid"
        lines = pid.read_text().split("\n")
        lines[2] = str(int(time.time()) - 10**6)
        text = pid.read_text()
        pid.write_text("\n".join(lines))
        try:
            assert free_bytes(own) is None
        finally:
            pid.write_text(text)
    assert free
    assert free > 10**6
