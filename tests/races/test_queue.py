"""Rotation, the limit of the queue and lost keys: acted out step by step, and each protection taken away."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from pymig.server import Cluster
from tests.conftest import Database
from tests.oracle import difference
from tests.races.interleave import SOURCE, TABLE, WIDE, Stage, damage_without, times
from tests.races.scenarios import COLLECT, FAR, SYNC

A, B, C, D = times(4)
ROTATE = "SELECT pymig._rotate_pending(s) FROM pymig.source AS s"
TURN = f"SELECT coalesce(pg_sequence_last_value('pymig.{SOURCE}_turn') % 2, 0)"
LOST = f"SELECT coalesce(pg_sequence_last_value('pymig.{SOURCE}_lost'), 0)"
FOUND_FULL = f"SELECT coalesce(pg_sequence_last_value('pymig.{SOURCE}_turn'), 0) >= 1099511627776"
RUNS_OF_16 = ("pymig._chunk_buckets(%2$L, e.entity) / 4", "16")
PAUSED_WRITER = ("        BEGIN\n", "        BEGIN\n            PERFORM race.pause('turn');\n")


def small(s: Stage) -> Stage:
    """Ship x in sync; a pending table is worn after its first page."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.main.run("CALL pymig.set_queue(p_rotate_above => 1)")
    s.drain()
    return s


def size(s: Stage, table: int) -> int:
    """Bytes of one pending table."""
    return int(s.main.value(f"SELECT pg_relation_size('pymig.{SOURCE}_pending_{table}')"))


# --- rotation ---------------------------------------------------------------------------------


def late_writer(s: Stage) -> list[str]:
    """A writer knows whose turn it is, and sleeps while the turn goes on and its table is emptied."""
    small(s)
    s.main.run(f"UPDATE {TABLE} SET long_v = 2")
    s.patch(f"{SOURCE}_record_insert", PAUSED_WRITER)
    writer = s.session("writer")
    turn = s.main.value(TURN)
    with s.held("writer", "turn"):
        writer.start(
            f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
            f" VALUES ('x', 'a', '{B}', 7, 'Integer')"
        )
        s.stopped(writer)
        for _ in range(2):
            s.main.run(SYNC)
        assert s.main.value(TURN) != turn
    writer.finish()
    filled = s.main.value(f"SELECT count(*) FROM pymig.{SOURCE}_pending_{turn + 1}")
    assert filled == 1, "the key was to be in the table whose turn it no longer is"
    return s.damage("x")


def key_before_truncate(s: Stage, options: str = "") -> list[str]:
    """A key commits after the pass has collected and before the rotator has its lock."""
    small(s)
    s.insert("x", "a", B, 1)
    s.patch(f"{SOURCE}_record_insert", PAUSED_WRITER)
    s.patch(
        "_rotate_pending",
        (
            "        EXECUTE format('LOCK TABLE",
            "        PERFORM race.pause('lock');\n        EXECUTE format('LOCK TABLE",
        ),
    )
    writer, rotator = s.session("writer"), s.session("rotator")
    if options:
        rotator.run(options)
    with s.held("writer", "turn"):
        writer.start(
            f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
            f" VALUES ('x', 'a', '{C}', 7, 'Integer')"
        )
        s.stopped(writer)
        s.main.run(COLLECT)
        s.main.run("SELECT nextval('pymig.tbl_data_timeseries_turn')")
        with s.held("rotator", "lock"):
            rotator.start("CALL pymig.sync_pending()" if options else ROTATE)
            s.stopped(rotator)
            s.keys.run("SELECT pg_advisory_unlock(race.key('writer', 'turn'))")
            writer.finish()
            s.keys.run("SELECT pg_advisory_lock(race.key('writer', 'turn'))")
        rotator.finish()
    return s.damage("x")


def key_before_truncate_at_rr(s: Stage) -> list[str]:
    """The same in a database whose default is REPEATABLE READ."""
    return key_before_truncate(s, "SET default_transaction_isolation = 'repeatable read'")


def prepared_writer(s: Stage) -> list[str]:
    """A prepared transaction holds the drained table: nobody waits, keys go on through the other."""
    small(s)
    writer = s.session("writer")
    writer.begin()
    s.insert("x", "a", B, 1, writer)
    writer.run("PREPARE TRANSACTION 'p'")
    try:
        s.main.run(f"SELECT nextval('pymig.{SOURCE}_turn')")
        rotator = s.session("rotator")
        rotator.start(ROTATE)
        waits = s.stopped_or_done(rotator)
        for value in range(4):
            s.update("x", "a", A, value)
            s.main.run(SYNC)
        damage = difference(s.main.conn, s.narrow, {"x"}) + ["it waits"] * waits
    finally:
        writer.run("COMMIT PREPARED 'p'")
    rotator.finish()
    return damage + s.damage("x")


def old_snapshot(s: Stage) -> list[str]:
    """A snapshot is open for the whole run: neither pending nor todo grows."""
    small(s)
    s.patch("_compact_todo", ("1024 * 1024", "16384"))
    reader = s.session("reader")
    reader.begin("REPEATABLE READ")
    reader.run("SELECT count(*) FROM pymig.event")
    most = [0, 0, 0]
    for value in range(25):
        s.main.run(
            f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
            " SELECT 'x', 'a', timestamp '2024-03-03' + g * interval '1 hour' + %s * interval '1 second', 1, 'Integer'"
            " FROM generate_series(1, 100) AS g",
            value,
        )
        s.main.run(SYNC)
        sizes = (
            size(s, 1),
            size(s, 2),
            int(s.main.value(f"SELECT pg_relation_size('pymig.{SOURCE}_todo')")),
        )
        most = [max(pair) for pair in zip(most, sizes, strict=True)]
    reader.run("COMMIT")
    # 2,500 keys of 60 bytes and 2,500 rows of todo: 150 kB and more each, were none of it reclaimed.
    grown = [f"{n} bytes" for n in most if n > 65536]
    return grown + s.damage("x")


def poison_in_a_run(s: Stage) -> list[str]:
    """Of 20 neighbouring buckets that are recomputed together one can't be: 19 are, in one pass."""
    s.patch("_due_todo", RUNS_OF_16)
    s.insert("x", "a", A, 0)
    s.migrate("x")
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
        " SELECT 'x', 'a', timestamp '2024-03-03' + g * interval '30 seconds', g, 'Integer' FROM generate_series(0, 2399) AS g"
    )
    s.main.run(f"ALTER TABLE {WIDE}x ADD CONSTRAINT bad CHECK (a <> '1201')")
    s.main.run(SYNC)
    left = s.main.run("SELECT DISTINCT kind, attempts FROM pymig.pending")
    rows = s.main.value(f"SELECT count(*) FROM {WIDE}x")
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT bad")
    wrong = [] if (left, rows) == ([("key", 1)], 2281) else [f"{left}, {rows} rows"]
    return wrong + s.damage("x")


def run_meets_recomputer(s: Stage) -> list[str]:
    """Another recomputer is in the middle of a run of buckets: the run is left for later."""
    s.patch("_due_todo", RUNS_OF_16)
    s.insert("x", "a", A, 0)
    s.migrate("x")
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
        " SELECT 'x', 'a', timestamp '2024-03-03' + g * interval '30 seconds', g, 'Integer' FROM generate_series(0, 1199) AS g"
    )
    with s.bucket_held("x", "2024-03-03 05:00:00"):
        s.main.run(SYNC)
        met = s.main.value(
            f"SELECT count(*) FROM {WIDE}x WHERE created_time BETWEEN '2024-03-03 05:00' AND '2024-03-03 05:59'"
        )
    return [f"{met} rows of a bucket another one holds"] * (met > 0) + s.damage("x")


# --- the limit, and keys that are lost ----------------------------------------------------------


def fill(s: Stage) -> None:
    """Both pending tables are at their limit, and the triggers know it."""
    s.main.run("CALL pymig.set_queue(p_rotate_above => 1, p_limit => 2)")
    s.drain()
    for table in (1, 2):
        s.main.run(f"INSERT INTO pymig.{SOURCE}_pending_{table} (kind) VALUES ('key')")
    s.main.run(f"SELECT setval('pymig.{SOURCE}_turn', 1099511627776)")


def overflow(s: Stage) -> list[str]:
    """No worker: the queue stops at its limit and ingest goes on; afterwards all is equal again."""
    for at in (A, B, FAR):
        s.insert("x", "a", at, 1)
    s.migrate("x")
    s.main.run("CALL pymig.verify('x')")
    s.main.run("CALL pymig.set_queue(p_rotate_above => 8192, p_limit => 16384)")
    for value in range(20):  # 60 keys fill a page and more
        s.main.run(
            f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
            " SELECT 'x', 'b', timestamp '2024-03-04' + %s * interval '1 hour' + g * interval '1 minute', 1, 'Integer'"
            " FROM generate_series(1, 60) AS g",
            value,
        )
    s.delete("x", "a", FAR)
    s.update("x", "a", A, 5)
    s.insert("new", "a", A, 1)
    wrong = [f"{n} bytes" for n in (size(s, 1), size(s, 2)) if n > 32768]
    if s.main.value(LOST) < 3:
        wrong.append("nothing was lost")
    s.main.run(SYNC)
    if s.main.value("SELECT state FROM pymig.entity WHERE entity = 'x'") != "backfilled":
        wrong.append("still verified")
    if (
        s.main.value(
            "SELECT count(*) FROM pymig.event WHERE what = 'keys lost' AND level = 'CRITICAL'"
        )
        != 1
    ):
        wrong.append("no event")
    settle(s)
    if s.main.value("SELECT count(*) FROM pymig.entity WHERE entity = 'new'") != 1:
        wrong.append("the newcomer was not seen")
    damage = s.damage("x")
    s.main.run("CALL pymig.verify('x')")
    return wrong + damage


def overflow_row_by_row(s: Stage) -> list[str]:
    """No worker, and each statement has one row, which seldom asks for the size: the limit holds all the same, and goes again."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.main.run("CALL pymig.set_queue(p_rotate_above => 8192, p_limit => 16384)")
    s.main.run(
        "DO $$ BEGIN FOR g IN 1 .. 6000 LOOP"  # 3 pages of keys are 400
        f" INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
        " VALUES ('x', 'b', timestamp '2024-03-04' + g * interval '1 minute', g, 'Integer'); END LOOP; END $$"
    )
    wrong = [f"{n} bytes" for n in (size(s, 1), size(s, 2)) if n > 16 * 16384]
    settle(s)
    damage = s.damage("x")
    if s.main.value(FOUND_FULL):
        wrong.append("the triggers still ask for the size")
    return wrong + damage


def settle(s: Stage, passes: int = 6) -> None:
    """Passes of the worker, until what was lost is queued and done."""
    for _ in range(passes):
        s.main.run(SYNC)


def lost_before_commit(s: Stage) -> list[str]:
    """A writer loses a key and commits after the worker has seen that a key was lost."""
    for at in (A, B, FAR):
        s.insert("x", "a", at, 1)
    s.migrate("x")
    s.main.run("CALL pymig.verify('x')")
    fill(s)
    writer = s.session("writer")
    writer.begin()
    s.update("x", "a", A, 9, writer)
    s.delete("x", "a", FAR, writer)
    s.insert("x", "new", B, 3, writer)
    settle(s)
    early = [f"{e}" for e in s.main.run("SELECT what FROM pymig.event WHERE what = 'repair begun'")]
    wrong = []
    try:
        s.main.run("CALL pymig.verify('x')")
        wrong.append("verified before it was repaired")
    except psycopg.Error as error:
        if error.sqlstate != "PM013":
            raise
    writer.run("COMMIT")
    settle(s)
    return early + wrong + s.damage("x")


def repaired_while_planned(s: Stage) -> list[str]:
    """Keys of an entity are lost after its bounds were read; its rows are beyond them."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.insert("y", "a", A, 1)
    fill(s)
    s.main.run("SELECT pymig._plan_entity(s, 'y', NULL, 'json', false) FROM pymig.source AS s")
    s.point("pymig.entity", "BEFORE UPDATE OF first_bucket", "bounded")
    writer, starter, worker = (s.session(name) for name in ("writer", "starter", "worker"))
    writer.begin()
    s.insert("y", "a", FAR, 2, writer)
    s.main.run(SYNC)
    with s.held("starter", "bounded"):
        starter.start("CALL pymig.start_sync('y', p_strategy => 'json')")
        s.stopped(starter)
        writer.run("COMMIT")
        worker.start(SYNC)
        if s.stopped_or_done(worker):
            raise AssertionError("the worker waits for who starts an entity")
    starter.finish()
    worker.finish()
    settle(s)
    s.main.run("CALL pymig.backfill('y')")
    return s.damage("x", "y")


def full_disk(s: Stage, folder: Path) -> list[str]:
    """The queue's own tablespace runs full: ingest goes on, and all is repaired when there is room."""
    s.main.run(f"CREATE TABLESPACE small LOCATION '{folder}'")
    wrong = []
    try:
        s.insert("x", "a", A, 1)
        s.migrate("x")
        s.main.run("CALL pymig.set_queue(p_tablespace => 'small')")
        for _ in range(4):
            s.main.run(SYNC)
        moved = "SELECT count(*) FROM pg_class WHERE relname LIKE %s AND reltablespace = (SELECT oid FROM pg_tablespace WHERE spcname = 'small')"
        if s.main.value(moved, f"{SOURCE}\\_pending\\__") != 2:
            wrong.append("the tables were not moved")
        s.main.run(
            f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
            " SELECT 'x', 'a', timestamp '2024-03-03' + g * interval '1 second', 1, 'Integer' FROM generate_series(1, 40000) AS g"
        )
        s.update("x", "a", A, 2)
        if s.main.value(LOST) == 0:
            wrong.append("nothing was lost")
        settle(s)
        damage = s.damage("x")
        lost = s.main.value(LOST)
        s.update("x", "a", A, 3)
        if s.pending() != 1 or s.main.value(LOST) != lost:
            wrong.append("the queue did not recover")
        s.main.run("CALL pymig.set_queue(p_tablespace => '')")
        for _ in range(4):
            s.main.run(SYNC)
        left = s.main.value(moved, "%")
        wrong += [f"{left} relations stayed behind"] * (left > 0)
        s.main.run("DROP TABLESPACE small")
    except psycopg.Error:
        s.main.run("CALL pymig.roll_back('x')")
        s.main.run(f"CALL pymig.unregister_source('{SOURCE}')")
        s.main.run("DROP TABLESPACE small")
        raise
    return wrong + damage


@pytest.fixture
def small_disk(server_folder: Path, cluster: Cluster) -> Iterator[Path]:
    """A file system of 1 MB that the server may write to."""
    folder = server_folder / "small_disk"
    folder.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("a full disk needs root, to mount a tmpfs of 1 MB")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"a full disk needs a tmpfs: {made.stderr.decode().strip()}")
    inside = folder / "queue"
    inside.mkdir()
    if cluster.account:
        os.chown(inside, cluster.account.uid, cluster.account.gid)
    inside.chmod(0o700)
    yield inside
    subprocess.run(["umount", "-l", str(folder)], check=True)


SCENARIOS = [
    late_writer,
    key_before_truncate,
    key_before_truncate_at_rr,
    prepared_writer,
    old_snapshot,
    poison_in_a_run,
    run_meets_recomputer,
    overflow,
    overflow_row_by_row,
    lost_before_commit,
    repaired_while_planned,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_queue(db: Database, scenario: Callable[[Stage], list[str]]) -> None:
    """What the docstring of the scenario says, and nothing is wrong afterwards."""
    assert scenario(Stage(db)) == []


def test_full_disk(db: Database, small_disk: Path) -> None:
    """ENOSPC in the queue's tablespace never reaches ingest."""
    assert full_disk(Stage(db), small_disk) == []


def test_full_disk_is_felt_without_the_handler(db: Database, small_disk: Path) -> None:
    """Mutation: without the EXCEPTION block of such a source ingest fails."""
    s = Stage(db)
    s.patch(
        "_create_trigger_functions",
        ("WHEN insufficient_resources OR system_error THEN", "WHEN division_by_zero THEN"),
    )
    with pytest.raises(psycopg.errors.DiskFull):
        full_disk(s, small_disk)


def test_full_disk_stays_full_without_a_way_round(db: Database, small_disk: Path) -> None:
    """Mutation: TRUNCATE alone needs room for the new files before it frees the old ones."""
    s = Stage(db)
    s.patch("_empty_pending", ("WHEN disk_full THEN", "WHEN division_by_zero THEN"))
    with suppress(psycopg.Error):
        assert full_disk(s, small_disk) != []


# --- mutations ----------------------------------------------------------------------------------


def no_recount(s: Stage) -> None:
    """The table is truncated because it was empty when the pass collected."""
    s.patch("_rotate_pending", ("IF NOT v_has_keys THEN", "IF true THEN"))


def count_before_lock(s: Stage) -> None:
    """The count is taken, then the lock."""
    s.patch(
        "_rotate_pending",
        (
            "        EXECUTE format('SELECT EXISTS (SELECT FROM pymig.%I AS p)', v_drained) INTO v_has_keys;\n",
            "",
        ),
        (
            "    IF pymig._is_worn(p_source, v_drained, v_has_lost) THEN\n",
            "    IF pymig._is_worn(p_source, v_drained, v_has_lost) THEN\n        EXECUTE format('SELECT EXISTS (SELECT FROM pymig.%I AS p)', v_drained) INTO v_has_keys;\n",
        ),
    )


def recount_at_rr(s: Stage) -> None:
    """The procedure leaves the isolation level as it finds it."""
    for routine in ("_keep_queue", "sync_pending"):
        s.patch(routine, ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED;", ""))
    s.patch(
        "_require_read_committed",
        ("IF current_setting('transaction_isolation') <> 'read committed' THEN", "IF false THEN"),
    )


def one_table_read(s: Stage) -> None:
    """The collector reads the table whose turn it is."""
    s.patch(
        "_collect_pending",
        ("p_source.source || '_pending_2',", f"p_source.source || '_pending_' || ({TURN}) + 1,"),
        ("f.* FROM from_1 AS f UNION ALL SELECT f.* FROM from_2 AS f", "f.* FROM from_2 AS f"),
        ("DELETE FROM pymig.%7$I AS p", "DELETE FROM pymig.%7$I AS p WHERE false"),
        ("WHERE false RETURNING", "WHERE false RETURNING"),
    )


def lock_waited_for(s: Stage) -> None:
    """The rotator waits for its lock."""
    s.patch("_rotate_pending", (" MODE NOWAIT'", " MODE'"))


def never_rotated(s: Stage) -> None:
    """Vacuum alone is to keep the queue small."""
    s.patch(
        "_rotate_pending",
        ("IF pymig._is_worn(p_source, v_drained, v_has_lost) THEN", "IF false THEN"),
        ("ELSIF pymig._is_worn(p_source, v_filled, v_has_lost) THEN", "ELSIF false THEN"),
    )


def never_compacted(s: Stage) -> None:
    """Todo is left to vacuum."""
    s.patch(
        "_compact_todo",
        ("v_todo::regclass) <= c_above", "v_todo::regclass) <= c_above * 0 + 9000000000"),
    )


def run_not_halved(s: Stage) -> None:
    """A run that fails fails as a whole."""
    s.patch("_drain_run", ("ELSIF v_half = 0 OR", "ELSIF true OR"))


def first_bucket_locked(s: Stage) -> None:
    """Of a run only the first bucket is locked."""
    s.patch("_recompute_todo", ("IN 0 .. v_last - v_first LOOP", "IN 0 .. 0 LOOP"))


def lost_unnoticed(s: Stage) -> None:
    """Nobody looks at the sequence."""
    s.patch("_notice_lost", ("IF NOT v_is_fresh", "IF true OR NOT v_is_fresh"))


def lost_acted_upon_at_once(s: Stage) -> None:
    """The repair does not wait for the writers that run."""
    s.patch("_notice_lost", ("pg_snapshot_xmin(pg_current_snapshot()) > v_source.lost_xid", "true"))


def lost_by_snapshot_xmax(s: Stage) -> None:
    """It waits for those a snapshot knows; a writer may have a higher number than its end."""
    s.patch("_notice_lost", ("lost_xid = pg_current_xact_id()", "lost_xid = '3'"))


def verified_in_between(s: Stage) -> None:
    """Verification does not ask for lost keys."""
    s.patch("_finish_verify", ("v_is_lost := ", "v_is_lost := false AND "))


def no_limit(s: Stage) -> None:
    """The queue grows as long as there is a disk."""
    s.patch(
        "_create_trigger_functions",
        ("OPERATOR(pg_catalog.>=) %s'", "OPERATOR(pg_catalog.>=) 1000 * %s'"),
    )


def size_forgotten(s: Stage) -> None:
    """Who finds the queue full tells nobody."""
    s.patch("_create_trigger_functions", ("PERFORM pg_catalog.setval(%5$L", "PERFORM (%5$L"))


def found_full_for_ever(s: Stage) -> None:
    """Nobody takes it back when there is room again."""
    s.patch("_rotate_pending", ("v_turn >= 1099511627776 AND", "false AND"))


def start_overlooked(s: Stage) -> None:
    """Entities that are just being started are not waited for."""
    s.patch("_notice_lost", (" FOR UPDATE SKIP LOCKED", ""))


MUTATIONS = [
    (no_recount, key_before_truncate),
    (count_before_lock, key_before_truncate),
    (recount_at_rr, key_before_truncate_at_rr),
    (one_table_read, late_writer),
    (lock_waited_for, prepared_writer),
    (never_rotated, old_snapshot),
    (never_compacted, old_snapshot),
    (run_not_halved, poison_in_a_run),
    (first_bucket_locked, run_meets_recomputer),
    (lost_unnoticed, overflow),
    (lost_acted_upon_at_once, lost_before_commit),
    (lost_by_snapshot_xmax, lost_before_commit),
    (verified_in_between, lost_before_commit),
    (no_limit, overflow),
    (size_forgotten, overflow_row_by_row),
    (found_full_for_ever, overflow_row_by_row),
    (start_overlooked, repaired_while_planned),
]


@pytest.mark.parametrize(("mutate", "scenario"), MUTATIONS, ids=lambda f: f.__name__)
def test_mutation_is_seen(
    db: Database, mutate: Callable[[Stage], None], scenario: Callable[[Stage], list[str]]
) -> None:
    """The scenario goes red without the protection."""
    assert damage_without(Stage(db), mutate, scenario)
