"""Partitions that come and go while everything else goes on, step by step; and what protects it.

Each scenario returns the damage it left, as those of scenarios.py do; each protection is taken away
once, and a scenario must show it.
"""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest

from tests.conftest import Database
from tests.races.interleave import (
    DEADLINE,
    INSERT,
    SOURCE,
    TABLE,
    WIDE,
    Session,
    Stage,
    damage_without,
)
from tests.races.scenarios import BACKFILL, CHUNK, COLLECT, SYNC

FOLLOW = f"CALL pymig._follow_partitions('{SOURCE}')"
KEEP = "CALL pymig.set_retention('keep')"


def at(day: int, hour: int = 10, minute: int = 0) -> str:
    """A time in March 2024."""
    return f"2024-03-{day:02d} {hour:02d}:{minute:02d}:00"


def into(table: str, ship: str, channel: str, when: str, value: int, s: Session) -> None:
    """Insert straight into a partition."""
    s.run(INSERT.replace(TABLE, table), ship, channel, when, value)


def fill(s: Stage, *ships: str) -> None:
    """Two times a day in all partitions."""
    for ship in ships:
        for day in (1, 2, 3, 4):
            for hour in (8, 9):
                s.insert(ship, "a", at(day, hour), day)


def loose_table(s: Stage, name: str, *rows: tuple[str, str, str, int]) -> str:
    """A table ready to be attached, with rows in it."""
    s.main.run(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    for row in rows:
        into(name, *row, s.main)
    return name


def waits_at(s: Stage, session: Session, *points: str) -> str:
    """Wait until a session stops at one of some points; returns which."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        for point in points:
            if s.main.value(
                "SELECT EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = %s AND NOT l.granted AND l.locktype = 'advisory'"
                " AND ((l.classid::bigint << 32) | l.objid::bigint) = race.key(%s, %s))",
                session.pid,
                session.actor,
                point,
            ):
                return point
        assert not session.is_done(), f"{session.actor} ended instead of waiting"
    raise AssertionError(f"{session.actor} comes to none of {points}")


def events(s: Stage) -> set[str]:
    """What kinds of events there are."""
    return {row[0] for row in s.main.run("SELECT DISTINCT what FROM pymig.event")}


def after(s: Stage, *ships: str) -> list[str]:
    """Damage by the oracle, then by pymig's own verification."""
    s.main.run("UPDATE pymig.partition SET retry_at = NULL")  # what waits is due now
    damage = s.damage(*ships)
    for ship in ships:
        try:
            s.main.run("CALL pymig.verify(%s)", ship)
        except psycopg.Error as error:
            damage.append(f"{ship}: {error}")
    return damage


# --- scenarios ----------------------------------------------------------------------------------


def direct_writes(s: Stage) -> list[str]:
    """Everything is written straight into partitions."""
    fill(s, "x")
    s.migrate("x")
    into("tenant.p2", "x", "b", at(2, 8), 5, s.main)
    into("tenant.p3", "x", "a", at(3, 20), 5, s.main)
    s.main.run("UPDATE tenant.p1 SET long_v = 77")
    s.main.run(f"DELETE FROM tenant.p4 WHERE created_time = '{at(4, 8)}'")
    s.main.run("TRUNCATE tenant.p2")
    s.main.run(f"UPDATE {TABLE} SET created_time = '{at(5)}' WHERE created_time = '{at(3, 8)}'")
    return after(s, "x")


def vetoed_on_the_way(s: Stage) -> list[str]:
    """An UPDATE moves two rows, and a trigger of the new partition swallows one of them."""
    fill(s, "x")
    s.migrate("x")
    s.main.run(
        "CREATE FUNCTION tenant.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    s.main.run(
        "CREATE TRIGGER swallow BEFORE INSERT ON tenant.p3 FOR EACH ROW EXECUTE FUNCTION tenant.swallow()"
    )
    s.main.run(
        f"UPDATE {TABLE} SET created_time = greatest(created_time, '{at(3, 8)}') WHERE created_time IN ('{at(2, 8)}', '{at(4, 8)}')"
    )
    assert s.main.value(f"SELECT count(*) FROM {TABLE}") == 7
    return after(s, "x")


def replica_writes(s: Stage) -> list[str]:
    """What logical replication applies fires row triggers only."""
    fill(s, "x")
    s.migrate("x")
    apply = s.session("apply")
    apply.run("SET session_replication_role = replica")
    for event in ("insert", "update", "delete"):  # as apply workers do: no statement trigger
        s.main.run(f"ALTER TABLE tenant.p2 ENABLE TRIGGER pymig_record_{event}")
        s.main.run(f"ALTER TABLE ONLY {TABLE} ENABLE TRIGGER pymig_record_{event}")
    s.insert("x", "a", at(2, 20), 1, apply)
    s.update("x", "a", at(2, 8), 9, apply)
    s.delete("x", "a", at(2, 9), apply)
    return s.damage("x")


def fresh_partition(s: Stage) -> list[str]:
    """Rows go straight into a new partition: before it is noticed, while it is armed, after."""
    fill(s, "x")
    s.migrate("x")
    s.partition(10)
    into("tenant.p10", "x", "a", at(10, 1), 1, s.main)
    writer, worker = s.session("writer"), s.session("worker")
    writer.begin()
    into("tenant.p10", "x", "new", at(10, 2), 2, writer)
    s.point("pymig.partition", "AFTER INSERT", "noticed")
    with s.held("worker", "noticed"):
        worker.start(SYNC)
        s.stopped(worker)
        into("tenant.p10", "x", "a", at(10, 3), 3, s.main)
    if s.stopped_or_done(worker):  # arming waits for the writer, or gives way to it
        pass
    writer.run("COMMIT")
    worker.finish()
    into("tenant.p10", "x", "a", at(10, 4), 4, s.main)
    s.main.run("UPDATE pymig.partition SET retry_at = NULL")
    return after(s, "x")


def armed_between(s: Stage) -> list[str]:
    """A writer commits between the look at what a new partition has and its triggers."""
    fill(s, "x")
    s.migrate("x")
    s.partition(10)
    into("tenant.p10", "x", "a", at(10, 1), 1, s.main)
    s.patch("_queue_partition", ("BEGIN\n", "BEGIN\n    PERFORM race.pause('queueing');\n"))
    s.patch("_arm", ("BEGIN\n", "BEGIN\n    PERFORM race.pause('arming');\n"))
    worker = s.session("worker")
    order = ["arming", "queueing"]
    with s.held("worker", order[0]), s.held("worker", order[1]):
        worker.start(SYNC)
        first = waits_at(s, worker, *order)
        into("tenant.p10", "x", "a", at(10, 2), 2, s.main)
        order.remove(first)
        s.keys.run("SELECT pg_advisory_unlock(race.key('worker', %s))", first)
        waits_at(s, worker, *order)
        into("tenant.p10", "x", "a", at(10, 3), 3, s.main)
        s.keys.run("SELECT pg_advisory_lock(race.key('worker', %s))", first)
    worker.finish()
    return after(s, "x")


def deleted_before_armed(s: Stage) -> list[str]:
    """Rows of a new partition are recomputed, and deleted before there is a trigger to tell."""
    fill(s, "x")
    s.insert("x", "b", at(1), 1)
    s.migrate("x")
    table = loose_table(s, "tenant.loose", *(("x", "a", at(11, hour), 1) for hour in (1, 2)))
    s.main.run(f"ALTER TABLE {TABLE} ATTACH PARTITION {table} {s.bounds(11)}")
    for hour in (1, 2):
        s.insert("x", "b", at(11, hour), 1)  # through the table, which is armed
    s.main.run(COLLECT)
    s.main.run("SELECT pymig._note_partitions(s) FROM pymig.source AS s")
    recompute = "SELECT pymig._recompute_todo(s, 'x', ARRAY[%s]::bigint[]) FROM pymig.source AS s"
    s.main.run(recompute, s.bucket(at(11, 1)))
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    s.patch("_expand_partition", ("'300ms'", "'10s'"))
    worker, other = s.session("worker"), s.session("other")
    with s.held("worker", "reading"):
        worker.start(recompute, s.bucket(at(11, 2)))
        s.stopped(worker)
        s.main.run("DELETE FROM tenant.loose")
        other.start(FOLLOW)
        held = []
        if s.stopped_or_done(
            other
        ):  # behind the recompute, and with nothing that ingest could meet
            held = s.main.run(
                "SELECT DISTINCT l.relation::regclass::text FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
                " WHERE l.pid = %s AND c.relkind IN ('r', 'p') AND (l.relation::regclass::text IN (%s, %s))",
                other.pid,
                TABLE,
                table,
            )
    worker.finish()
    other.finish()
    return [f"{name} is locked while a recompute is waited for" for (name,) in held] + after(s, "x")


def came_and_went(s: Stage) -> list[str]:
    """A partition comes, its rows are recomputed, it goes; and the worker looks only then."""
    fill(s, "x")
    s.migrate("x")
    s.partition(10)
    s.insert("x", "a", at(10), 1)  # through the table
    s.main.run(COLLECT)
    with suppress(psycopg.errors.Error):
        s.main.run(
            "SELECT pymig._recompute_todo(s, 'x', ARRAY[%s]::bigint[]) FROM pymig.source AS s",
            s.bucket(at(10)),
        )
    s.main.run("DROP TABLE tenant.p10")
    return after(s, "x")


def backfilled_without_a_worker(s: Stage) -> list[str]:
    """A partition comes between two chunks, and nobody but the backfill could look at it."""
    fill(s, "x")
    s.start_sync("x")
    s.deal("x")
    into(s.partition(10), "x", "a", at(10), 1, s.main)
    s.main.run(BACKFILL)
    return after(s, "x")


def attached_with_rows(s: Stage) -> list[str]:
    """ATTACH of a table with rows: known and new ships and channels, during and after a backfill."""
    s.main.run("CALL pymig.set_new_entities('auto')")
    fill(s, "x", "y")
    s.migrate("y")
    s.start_sync("x")
    s.deal("x")
    rows = [("x", "a", at(11), 1), ("y", "fresh", at(11, 5), 2), ("z", "a", at(11), 3)]
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    chunk = s.session("chunk")
    with s.held("chunk", "reading"):
        chunk.start(CHUNK)
        s.stopped(chunk)
        table = loose_table(s, "tenant.loose", *rows)
        s.main.run(f"ALTER TABLE {TABLE} ATTACH PARTITION {table} {s.bounds(11)}")
        s.main.run(SYNC)
    chunk.finish()
    s.main.run(BACKFILL)
    damage = after(s, "x", "y", "z")
    if "partition added" not in events(s):
        damage.append("no event tells of the partition")
    return damage


def gone_under_a_chunk(s: Stage) -> list[str]:
    """DROP waits for a chunk that reads the partition; the worker looks before and after."""
    fill(s, "x", "y")
    s.migrate("y")
    s.start_sync("x")
    s.deal("x")
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    chunk, dba, worker = s.session("chunk"), s.session("dba"), s.session("worker")
    with s.held("chunk", "reading"):
        chunk.start(CHUNK)
        s.stopped(chunk)
        dba.start("DROP TABLE tenant.p2")
        s.stopped(dba)
        worker.start(SYNC)
        s.stopped_or_done(worker)
    chunk.finish()
    dba.finish()
    worker.finish()
    s.main.run("ALTER TABLE " + TABLE + " DETACH PARTITION tenant.p3")
    s.main.run(BACKFILL)
    return after(s, "x", "y")


def detached_concurrently(s: Stage) -> list[str]:
    """DETACH CONCURRENTLY waits for an old reader, half done; and is finished at last."""
    fill(s, "x")
    s.migrate("x")
    reader, dba = s.session("reader"), s.session("dba")
    reader.begin()
    reader.run(f"SELECT count(*) FROM {TABLE}")
    dba.start(f"ALTER TABLE {TABLE} DETACH PARTITION tenant.p2 CONCURRENTLY")
    s.stopped(dba)
    damage = after(s, "x")  # for new statements it is gone
    reader.run("COMMIT")
    dba.finish()
    into("tenant.p2", "x", "a", at(2, 22), 1, s.main)  # no longer ours
    damage += after(s, "x")
    return damage + left_triggers(s, "tenant.p2")


def left_triggers(s: Stage, table: str) -> list[str]:
    """Triggers of ours on a table."""
    rows = s.main.run(
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname LIKE 'pymig%%'",
        table,
    )
    return [f"{table} still has {name}" for (name,) in rows]


def attached_anew(s: Stage) -> list[str]:
    """Detached, changed and attached again between two looks; and with a look in between."""
    fill(s, "x")
    s.migrate("x")
    for looks in (False, True):
        s.main.run(f"ALTER TABLE {TABLE} DETACH PARTITION tenant.p2")
        s.main.run(COLLECT)
        s.main.run("ALTER TABLE tenant.p2 DISABLE TRIGGER USER")
        s.main.run(f"DELETE FROM tenant.p2 WHERE created_time = '{at(2, 8 + looks)}'")
        into("tenant.p2", "x", "a", at(2, 20 + looks), 5, s.main)
        for event in ("insert", "update", "delete", "truncate"):
            s.main.run(f"ALTER TABLE tenant.p2 ENABLE ALWAYS TRIGGER pymig_record_{event}")
        s.main.run("ALTER TABLE tenant.p2 ENABLE REPLICA TRIGGER pymig_record_row")
        if looks:
            s.main.run(SYNC)
        s.main.run(f"ALTER TABLE {TABLE} ATTACH PARTITION tenant.p2 {s.bounds(2)}")
        if damage := after(s, "x"):
            return damage
    return []


def _pause_before_a_bucket(s: Stage) -> None:
    """Verify has drained, and holds no lock of the narrow table."""
    s.patch("_require_same_entity", ("BEGIN\n", "BEGIN\n    PERFORM race.pause('before');\n"))


def gone_under_verify(s: Stage) -> list[str]:
    """Partitions come and go between verify's first drain and its look at a bucket."""
    fill(s, "x")
    s.migrate("x")
    _pause_before_a_bucket(s)
    alarms = []
    changes = (
        "DROP TABLE tenant.p4",
        f"ALTER TABLE {TABLE} ATTACH PARTITION "
        + loose_table(s, "tenant.loose", ("x", "a", at(4), 1))
        + f" {s.bounds(4)}",
    )
    for change in changes:
        verifier = s.session("verifier")
        verifier.run("SET statement_timeout = '10s'")
        with s.held("verifier", "before"):
            verifier.start("CALL pymig.verify('x')")
            s.stopped(verifier)
            s.main.run(change)
        try:
            verifier.finish()
        except psycopg.Error as error:
            alarms.append(f"false alarm after {change}: {error}")
        if rows := s.main.run("SELECT * FROM pymig.verification WHERE differences > 0"):
            alarms.append(f"recorded: {rows}")
    return alarms + after(s, "x")


def looked_under_verify(s: Stage) -> list[str]:
    """As above, but a worker has looked and drained before verify asks the catalog."""
    fill(s, "x")
    s.migrate("x")
    s.patch(
        "verify_bucket",
        (
            "    -- A partition came or went",
            "    PERFORM race.pause('compared');\n    -- A partition came or went",
        ),
    )
    _pause_before_a_bucket(s)
    verifier = s.session("verifier")
    with s.held("verifier", "compared"):
        with s.held("verifier", "before"):
            verifier.start("CALL pymig.verify('x')")
            waits_at(s, verifier, "before")
            s.main.run("ALTER TABLE " + TABLE + " DETACH PARTITION tenant.p1")
        waits_at(s, verifier, "compared")
        s.drain()
    try:
        verifier.finish()
    except psycopg.Error as error:
        return [f"false alarm: {error}"]
    return after(s, "x")


def wide_times(s: Stage, day: int) -> list[str]:
    """The wide rows of one day, each as its time and first cell."""
    rows = s.main.run(
        f"SELECT created_time::text, a FROM {WIDE}x WHERE created_time::date = '2024-03-{day:02d}' ORDER BY 1"
    )
    return [f"{time} {cell}" for time, cell in rows]


def kept(s: Stage) -> list[str]:
    """Retention keep: late rows after DETACH and DROP, whole buckets, TRUNCATE; then back to drop."""
    s.main.run(f"CREATE TABLE tenant.rest PARTITION OF {TABLE} DEFAULT")
    fill(s, "x", "y")
    s.migrate("x", "y")
    s.main.run(KEEP)
    before = {day: wide_times(s, day) for day in (2, 3)}
    s.main.run(f"ALTER TABLE {TABLE} DETACH PARTITION tenant.p2")
    s.main.run(SYNC)
    s.main.run("DROP TABLE tenant.p3")
    damage = _kept_checks(s, before)
    s.insert("x", "a", at(2, 8), 99)  # a time that is kept
    s.insert("x", "late", at(2, 21), 99)  # and one that never was
    s.drain()
    damage += _kept_checks(s, before)
    rows = s.main.run("SELECT reason, time FROM pymig.quarantine ORDER BY 2")
    if rows != [("closed_range", at(2, 8)), ("closed_range", at(2, 21))]:
        damage.append(f"quarantine has {rows}")
    s.main.run(f"INSERT INTO pymig.{SOURCE}_todo SELECT 'x', %s, NULL, now()", s.bucket(at(2, 8)))
    s.drain()
    damage += _kept_checks(s, before)
    s.main.run(f"DELETE FROM {TABLE} WHERE created_time = '{at(2, 21)}'")
    s.main.run("TRUNCATE tenant.p1")
    s.drain()
    damage += _kept_checks(s, before)
    if wide_times(s, 1):
        damage.append("TRUNCATE of a partition is no retention, and its rows are still there")
    for ship in "xy":
        with suppress(psycopg.errors.Error):
            s.main.run("CALL pymig.roll_back(%s)", ship)
            damage.append("rolled back, and the kept rows are gone")
    s.main.run("CALL pymig.set_retention('drop')")
    return damage + after(s, "x", "y")


def _kept_checks(s: Stage, before: dict[int, list[str]]) -> list[str]:
    damage = []
    try:
        s.main.run("CALL pymig.verify('x')")
    except psycopg.Error as error:
        damage.append(f"verify: {error}")
    for day, rows in before.items():
        if (now := wide_times(s, day)) != rows:
            damage.append(f"day {day} was {rows}, is {now}")
    return damage


def kept_under_a_recompute(s: Stage) -> list[str]:
    """Keep: a partition goes when a recompute has deleted and not yet read; and the look overtakes it."""
    fill(s, "x")
    s.migrate("x")
    s.main.run(KEEP)
    before = {2: wide_times(s, 2)}
    s.update("x", "a", at(2, 8), 2)  # pending, with the value it has
    s.patch(
        "_recompute",
        (
            "    -- One statement reads narrow once",
            "    PERFORM race.pause('deleted');\n    -- One statement reads narrow once",
        ),
    )
    worker, other = s.session("worker"), s.session("other")
    with s.held("worker", "deleted"):
        worker.start(SYNC)
        waits_at(s, worker, "deleted")
        s.main.run("DROP TABLE tenant.p2")
        other.run(FOLLOW)
    worker.finish()
    s.drain()
    return _kept_checks(s, before)


def kept_before_the_look(s: Stage) -> list[str]:
    """Keep: a partition goes, and a key of it is recomputed before anybody looked."""
    fill(s, "x")
    s.migrate("x")
    s.main.run(KEEP)
    before = {2: wide_times(s, 2)}
    s.update("x", "a", at(2, 8), 2)
    s.main.run(COLLECT)
    s.main.run("DROP TABLE tenant.p2")
    with suppress(psycopg.errors.Error):
        s.main.run(
            "SELECT pymig._recompute_todo(s, 'x', ARRAY[%s]::bigint[]) FROM pymig.source AS s",
            s.bucket(at(2, 8)),
        )
    s.drain()
    damage = _kept_checks(s, before)
    if "kept rows may lack changes" not in events(s):
        damage.append("nobody says that a pending key was lost")
    return damage


def arming_gives_way(s: Stage) -> list[str]:
    """A writer holds one partition: ingest into the others, and through the table, never waits long."""
    fill(s, "x")
    holder, starter, writer = s.session("holder"), s.session("starter"), s.session("writer")
    holder.begin()
    into("tenant.p2", "x", "a", at(2, 12), 1, holder)
    starter.start("CALL pymig.start_sync('x', p_strategy => 'json')")
    damage = []
    if s.stopped_or_done(starter):
        held = s.main.run(
            "SELECT l.relation::regclass::text FROM pg_locks AS l"
            " WHERE l.pid = %s AND l.mode = 'ShareRowExclusiveLock' AND l.granted AND l.relation::regclass::text ~ '^tenant'",
            starter.pid,
        )
        damage += [f"{table} is locked while another is waited for" for (table,) in held]
    writer.run("SET statement_timeout = '1s'")  # five attempts' worth
    try:
        for hour in range(12, 16):
            s.insert("x", "a", at(3, hour), 1, writer)
            s.insert("x", "a", at(2, hour + 4), 1, writer)
    except psycopg.Error as error:
        damage.append(f"ingest waited: {error}")
    holder.run("COMMIT")
    starter.finish()
    s.main.run(BACKFILL)
    return damage + after(s, "x")


SCENARIOS: list[Callable[[Stage], list[str]]] = [
    direct_writes, vetoed_on_the_way, replica_writes, fresh_partition, armed_between, deleted_before_armed, came_and_went, backfilled_without_a_worker, attached_with_rows, gone_under_a_chunk,
    detached_concurrently, attached_anew, gone_under_verify, looked_under_verify, kept,
    kept_under_a_recompute, kept_before_the_look, arming_gives_way,
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_no_damage(db: Database, scenario: Callable[[Stage], list[str]]) -> None:
    """Nothing is lost, nothing is deleted that was to stay, and nobody cries wolf."""
    assert scenario(Stage(db, partitioned=True)) == []


# --- mutations ----------------------------------------------------------------------------------


def no_partition_triggers(s: Stage) -> None:
    """Only the partitioned table itself is armed."""
    s.patch(
        "_arm",
        (
            "BEGIN\n",
            "BEGIN\n    IF p_relation <> p_source.narrow THEN UPDATE pymig.partition AS p SET state = 'served' WHERE p.relation = p_relation; RETURN; END IF;\n",
        ),
    )
    s.patch(
        "_next_unarmed", ("AND NOT pymig._has_triggers(p_source.source, p.relation)", "AND false")
    )


def old_rows_uncounted(s: Stage) -> None:
    """One new row is taken for one row. One writer in a hundred asks for the queue's size first, and would record all keys: here none."""
    s.patch(
        f"{SOURCE}_record_update",
        (" AND NOT EXISTS (SELECT FROM old_rows OFFSET 1);", ";"),
        ("pg_catalog.random()", "1.0"),
    )


def no_row_twin(s: Stage) -> None:
    """Partitions have no trigger that replication fires."""
    s.patch("_arm", ("IF NOT pymig._is_partitioned(p_relation)", "IF false"))
    s.patch("_has_triggers", ("ELSE 5 END", "ELSE 4 END"))


def read_before_arming(s: Stage) -> None:
    """What a new partition has is queued first, then it is armed."""
    s.patch(
        "_serve_partition",
        ("PERFORM pymig._arm(p_source, v_partition.relation, p_lock_timeout);",
         "PERFORM pymig._queue_partition(p_source, v_partition.relation); UPDATE pymig.partition AS p SET state = 'expanded' WHERE p.relation = v_partition.relation;"),
        ("                PERFORM pymig._queue_partition(p_source, v_partition.relation);\n            ELSE",
         "                PERFORM pymig._arm(p_source, v_partition.relation, p_lock_timeout); UPDATE pymig.partition AS p SET state = 'served' WHERE p.relation = v_partition.relation;\n            ELSE"),
    )  # fmt: skip


def no_queue(s: Stage) -> None:
    """A new partition is armed and that is all."""
    s.patch("_queue_partition", ("GROUP BY n.%2$I, %5$s'", "WHERE false GROUP BY n.%2$I, %5$s'"))


def only_what_is_left_is_queued(s: Stage) -> None:
    """What wide has in the range of a new partition is not looked at."""
    s.patch("_expand_partition", ("PERFORM pymig._expand_range(", "PERFORM format('%s %s %s %s', "))


def recomputes_are_not_waited_for(s: Stage) -> None:
    """It is looked at while a recompute is in flight."""
    s.patch("_expand_partition", ("p_exclusive => true", "p_exclusive => false"))


def partition_locked_while_waiting(s: Stage) -> None:
    """The worker reads the new partition, then waits for a recompute: TRUNCATE closes the circle."""
    s.patch(
        "_expand_partition",
        (
            "    FOREACH v_entity IN",
            "    EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', p_partition.relation);\n    FOREACH v_entity IN",
        ),
    )


def backfill_does_not_look(s: Stage) -> None:
    """Only the worker looks."""
    s.patch("backfill", ("CALL pymig._follow_partitions(v_source);", ""))
    s.main.run("SET statement_timeout = '1500ms'")


def no_look(s: Stage) -> None:
    """The worker never compares the catalog."""
    s.patch(
        "_partitions_known",
        (
            "SELECT coalesce",
            "SELECT pymig._partitions_now((SELECT s.narrow FROM pymig.source AS s WHERE s.source = p_source)) || left(coalesce",
        ),
        (", '')\n", ", ''), 0)\n"),
    )


def only_names_compared(s: Stage) -> None:
    """A partition that is attached again counts as the one it was."""
    for routine in ("_partitions_now", "_partitions_known"):
        letter = "t" if routine == "_partitions_now" else "p"
        s.patch(routine, (f", {letter}.attachment)", ", 1)"))
    s.patch(
        "_note_partitions",
        (
            "(p.relation, p.attachment) NOT IN (SELECT t.relation, t.attachment",
            "p.relation NOT IN (SELECT t.relation",
        ),
        ("p.attachment <> excluded.attachment OR ", ""),
    )


def verify_does_not_ask(s: Stage) -> None:
    """Verify takes every difference for one."""
    s.patch(
        "verify_bucket",
        ("IF NOT v_found.is_equal AND pymig._partitions_now", "IF false AND pymig._partitions_now"),
    )


def verify_asks_once(s: Stage) -> None:
    """Verify asks only afterwards whether all is settled, not whether it was before."""
    s.patch(
        "verify_bucket",
        ("IS DISTINCT FROM v_partitions", "IS DISTINCT FROM pymig._partitions_settled(v_source)"),
    )


def detaching_is_there(s: Stage) -> None:
    """A partition that is being detached counts as there until it is gone."""
    for routine in ("_partitions_now", "_partition_tree"):
        s.patch(routine, (" AND NOT i.inhdetachpending", ""))
    s.main.run("SET statement_timeout = '1500ms'")


def recompute_does_not_ask(s: Stage) -> None:
    """A recompute does not ask whether what it did not find was there before."""
    s.patch(
        "_require_same_partitions",
        ("IF pymig._partitions_now", "IF false AND pymig._partitions_now"),
    )


def recompute_asks_once(s: Stage) -> None:
    """It compares the catalog with what is known by then."""
    s.patch(
        "_recompute",
        (
            "_require_same_partitions(p_source, v_partitions)",
            "_require_same_partitions(p_source, pymig._partitions_known(p_source.source))",
        ),
    )


def closed_is_recomputed(s: Stage) -> None:
    """Closed ranges are recomputed like others."""
    s.patch(
        "_time_condition",
        ("v_open text := coalesce(", "v_open text := left(coalesce("),
        (", '');", ", ''), 0);"),
    )


def closed_is_dropped(s: Stage) -> None:
    """Rows that come late into a closed range are passed over."""
    s.patch("_quarantine_closed", ("IS NULL THEN", "IS NOT NULL THEN"))


def triggers_stay(s: Stage) -> None:
    """A partition that was detached keeps the triggers."""
    s.patch("_serve_partition", ("PERFORM pymig._drop_triggers(", "PERFORM format('%s %s %s', "))


def arming_does_not_give_way(s: Stage) -> None:
    """Arming waits for writers as long as it takes."""
    s.patch(
        "_arm_source",
        (
            "c_lock_timeout constant interval := '200 ms'",
            "c_lock_timeout constant interval := '5 s'",
        ),
    )


def arming_in_one_transaction(s: Stage) -> None:
    """The table itself stays locked while its partitions are armed."""
    s.patch(
        "_arm",
        (
            "    EXECUTE format('LOCK TABLE ONLY %s IN",
            "    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', p_source.narrow);\n    EXECUTE format('LOCK TABLE ONLY %s IN",
        ),
    )


def truncate_has_no_range(s: Stage) -> None:
    """TRUNCATE of a partition is taken for one of another."""
    s.patch("_expand_truncates", ("coalesce(x.first_tick, ", "coalesce(x.last_tick, "))


MUTATIONS: list[tuple[Callable[[Stage], None], Callable[[Stage], list[str]]]] = [
    (no_partition_triggers, direct_writes),
    (old_rows_uncounted, vetoed_on_the_way),
    (no_row_twin, replica_writes),
    (read_before_arming, armed_between),
    (no_queue, fresh_partition),
    (no_queue, attached_with_rows),
    (only_what_is_left_is_queued, deleted_before_armed),
    (recomputes_are_not_waited_for, deleted_before_armed),
    (partition_locked_while_waiting, deleted_before_armed),
    (recompute_does_not_ask, came_and_went),
    (backfill_does_not_look, backfilled_without_a_worker),
    (no_look, gone_under_a_chunk),
    (only_names_compared, attached_anew),
    (verify_does_not_ask, gone_under_verify),
    (verify_asks_once, looked_under_verify),
    (detaching_is_there, detached_concurrently),
    (recompute_does_not_ask, kept_before_the_look),
    (recompute_asks_once, kept_under_a_recompute),
    (closed_is_recomputed, kept),
    (closed_is_dropped, kept),
    (triggers_stay, detached_concurrently),
    (arming_does_not_give_way, arming_gives_way),
    (arming_in_one_transaction, arming_gives_way),
    (truncate_has_no_range, direct_writes),
]


@pytest.mark.parametrize(
    ("mutate", "scenario"), MUTATIONS, ids=[f"{m.__name__}-{s.__name__}" for m, s in MUTATIONS]
)
def test_mutation_is_seen(
    db: Database, mutate: Callable[[Stage], None], scenario: Callable[[Stage], list[str]]
) -> None:
    """The scenario of this protection goes red without it."""
    assert damage_without(Stage(db, partitioned=True), mutate, scenario)
