"""Columns that get a wider type while everything goes on: interleavings, kills, mutations."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.test_type_drift import HOURS, STEP, migrate, promote, put
from tests.races.interleave import SOURCE, TABLE, WIDE, Stage

LATE = "2024-03-02 09:00:00"
SYNC = "CALL pymig.sync_pending()"
UPDATE = (
    f"UPDATE {TABLE} SET long_v = 77 WHERE data_channel_id = 'c' AND created_time = %s::timestamp"
)


def drift(s: Stage, **late: object) -> None:
    """Eight buckets of an int8 column, and in a ninth a value that does not fit."""
    for at in HOURS:
        put(s, "c", at, "long_v", 1)
        put(s, "d", at, "long_v", 1)
    migrate(s)
    for column, value in (late or {"double_v": 0.5}).items():
        put(s, "c", LATE, column, value)
    recompute(s, LATE)


def recompute(s: Stage, at: str) -> None:
    """The worker's part for one bucket, and no promotion."""
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    s.main.run(
        "SELECT pymig._recompute_todo(s, 'x', ARRAY[%s::int8]) FROM pymig.source AS s", s.bucket(at)
    )


def steps(s: Stage, count: int) -> None:
    """So many transactions of a promotion: the first begins it, each more fills a bucket."""
    assert [s.main.value(STEP, "x") for _ in range(count)] == [True] * count


def column_type(s: Stage) -> str:
    """Of channel c."""
    return str(s.main.value("SELECT column_type FROM pymig.channel_map WHERE channel = 'c'"))


def finish(s: Stage, expected: str) -> list[str]:
    """Let the worker end it, and compare."""
    promote(s)
    damage = s.damage("x")
    if column_type(s) != expected:
        damage.append(f"the column is {column_type(s)}")
    with suppress(psycopg.Error):
        s.main.run("CALL pymig.verify('x')")
    state = s.main.value("SELECT state FROM pymig.entity WHERE entity = 'x'")
    return damage if state == "verified" else [*damage, f"ends as {state}"]


def changes_behind_and_before_the_cursor(s: Stage) -> list[str]:
    """Rows change in buckets that are filled, and in some that are not yet."""
    drift(s)
    steps(s, 5)
    for at in (HOURS[0], HOURS[3], HOURS[6]):
        s.main.run(UPDATE, at)
        recompute(s, at)
    s.delete("x", "c", HOURS[1])
    s.main.run(f"DELETE FROM {TABLE} WHERE created_time = %s", HOURS[2])
    put(s, "c", "2024-03-02 00:30:00", "double_v", 2.5)
    return finish(s, "float8")


def a_value_too_large_behind_the_cursor(s: Stage) -> list[str]:
    """An integer no float8 holds comes, and is seen, after its bucket was filled."""
    drift(s)
    steps(s, 4)
    put(s, "c", "2024-03-02 00:30:00", "long_v", 2**53 + 1)
    recompute(s, HOURS[0])
    seen = s.main.value(f"SELECT c FROM {WIDE}x WHERE created_time = '2024-03-02 00:30:00'")
    assert seen == 2**53 + 1
    damage = finish(s, "text")
    seen = s.main.value(f"SELECT c::text FROM {WIDE}x WHERE created_time = '2024-03-02 00:30:00'")
    return damage if seen == str(2**53 + 1) else [*damage, f"a reader sees {seen} now"]


def a_third_kind_comes_meanwhile(s: Stage) -> list[str]:
    """What does not fit the new type either stays in quarantine until it gets its own promotion."""
    drift(s)
    steps(s, 4)
    put(s, "c", HOURS[0].replace(":00:00", ":30:00"), "str_v", "x")
    recompute(s, HOURS[0])
    s.main.run("UPDATE pymig.source SET type_drift = 'promote'")
    while column_type(s) == "int8":
        s.main.run(STEP, "x")
    s.drain(1)
    return finish(s, "text")


def somebodys_index(s: Stage) -> list[str]:
    """It isn't dropped with the column behind its owner's back."""
    drift(s)
    s.main.run(f"CREATE INDEX their_index ON {WIDE}x (c)")
    promote(s, 4)
    kept = s.main.value("SELECT to_regclass('tenant.their_index') IS NOT NULL")
    return s.damage("x") + ([] if kept else ["the index is gone"])


def a_reader_in_the_way(s: Stage) -> list[str]:
    """A transaction that has read the wide table: the worker gives way, others read, then it goes on."""
    drift(s)
    s.main.run("SET statement_timeout = '2s'")
    reader, other = s.session("reader"), s.session("other")
    damage = []
    for end in ("COMMIT", "ROLLBACK"):  # while it begins, and while it ends
        reader.begin()
        reader.run(f"SELECT c FROM {WIDE}x")
        try:
            s.main.run(SYNC)
            s.main.run("UPDATE pymig.entity SET promote_at = NULL")
            s.main.run(SYNC)
        except psycopg.Error as error:
            damage.append(f"the worker waits: {error.sqlstate}")
        other.run(f"SELECT c FROM {WIDE}x")
        if len(reader.run(f"SELECT c FROM {WIDE}x")) != 9:
            damage.append("the reader misses rows")
        reader.run(end)
        if not s.main.run("SELECT 1 FROM pymig.promotion"):
            s.main.run("UPDATE pymig.entity SET promote_at = NULL")
            for _ in range(10):
                s.main.run(STEP, "x")
    s.main.run("UPDATE pymig.entity SET promote_at = NULL")
    return damage + finish(s, "float8")


def a_reader_with_an_old_snapshot(s: Stage) -> list[str]:
    """It reads the table for the first time when everything is filled: what it sees has no gaps."""
    drift(s)
    reader = s.session("reader")
    reader.begin("REPEATABLE READ")
    reader.run("SELECT 1")
    promote(s, 20)
    seen = reader.run(f"SELECT c FROM {WIDE}x ORDER BY created_time")
    reader.run("COMMIT")
    damage = [] if seen == [(1,)] * 8 + [(None,)] else [f"the reader sees {seen}"]
    return damage + finish(s, "float8")


def a_recompute_in_flight_when_a_part_is_added(s: Stage) -> list[str]:
    """A recompute writes a new time into the only part while a second part is made."""
    drift(s)
    s.patch("_deal_types", ("v_columns + 2 > 1600", "p_is_appended AND v_part = 1"))
    s.patch("_promote_step", ("'300ms'", "'15s'"), ("'1s'", "'15s'"))
    s.point(f"{WIDE}x", "BEFORE INSERT", "writing")
    worker, promoter = s.session("worker"), s.session("promoter")
    with s.held("worker", "writing"):
        s.insert("x", "d", "2024-03-02 01:30:00", 5)
        worker.start(SYNC)
        s.stopped(worker)
        promoter.start(STEP.replace("%s", "'x'"))
        s.stopped(promoter)
    worker.finish()
    promoter.finish()
    return finish(s, "float8")


SCENARIOS = [
    changes_behind_and_before_the_cursor,
    a_value_too_large_behind_the_cursor,
    a_third_kind_comes_meanwhile,
    somebodys_index,
    a_reader_in_the_way,
    a_reader_with_an_old_snapshot,
    a_recompute_in_flight_when_a_part_is_added,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_promotion(db: Database, scenario: Callable[[Stage], list[str]]) -> None:
    """Nothing is lost, and nobody waits for long."""
    assert scenario(Stage(db)) == []


def test_no_step_takes_a_value_away(db: Database) -> None:
    """After each transaction readers see what they saw, verify passes, and finds what is wrong."""
    s = Stage(db)
    drift(s)
    before = s.main.run(f"SELECT created_time, c::text, d FROM {WIDE}x ORDER BY 1")
    assert before[-1][1] is None
    fitted = [*before[:-1], (before[-1][0], "0.5", None)]
    for _ in range(20):
        goes_on = s.main.value(STEP, "x")
        now = s.main.run(f"SELECT created_time, c::text, d FROM {WIDE}x ORDER BY 1")
        assert now == (fitted if column_type(s) == "float8" else before)
        s.main.run("CALL pymig.verify('x')")
        if not goes_on or column_type(s) == "float8":
            break
    assert column_type(s) == "float8"
    s.main.run(f"UPDATE {WIDE}x SET c = 2 WHERE created_time = %s", HOURS[3])
    with pytest.raises(psycopg.Error, match="1 differences in 1 buckets"):
        s.main.run("CALL pymig.verify('x')")


def test_verify_is_not_excused_by_a_promotion(db: Database) -> None:
    """A wrong cell is found while its column is being promoted, and repaired in both columns."""
    s = Stage(db)
    drift(s)
    steps(s, 5)
    s.main.run("UPDATE pymig.entity SET promote_at = 'infinity'")  # and there it stays
    s.main.run(f"UPDATE {WIDE}x SET c = 2, d = 3 WHERE created_time = %s", HOURS[0])
    with pytest.raises(psycopg.Error, match="2 differences in 1 buckets"):
        s.main.run("CALL pymig.verify('x')")
    s.main.run("CALL pymig.verify('x', p_repair => true)")
    s.main.run("UPDATE pymig.entity SET promote_at = NULL")
    assert finish(s, "float8") == []


def reads_while(s: Stage, point: str) -> bool:
    """The promotion goes on until it stops at a point; can others read the wide table then?"""
    worker, reader = s.session("worker"), s.session("reader")
    reader.run("SET statement_timeout = '500ms'")
    with s.held("worker", point):
        for _ in range(20):
            worker.start(STEP.replace("%s", "'x'"))
            if s.stopped_or_done(worker):
                break
            worker.finish()
        try:
            return len(reader.run(f"SELECT c FROM {WIDE}x")) == 9
        except psycopg.errors.QueryCanceled:
            return False
        finally:
            s.keys.run("SELECT pg_advisory_unlock_all()")
            worker.finish()


def many_leave_quarantine(s: Stage) -> bool:
    """Millions of rows may go with a swap: before the tables get locked."""
    drift(s)
    s.point("pymig.quarantine", "BEFORE DELETE", "deleting")
    return reads_while(s, "deleting")


def another_begins_after_a_swap(s: Stage) -> bool:
    """It may have to fill a new part: after the swap's locks are gone."""
    drift(s)
    steps(s, 11)
    put(s, "d", LATE, "double_v", 0.5)
    recompute(s, LATE)
    s.point("pymig.promotion", "BEFORE INSERT", "beginning")
    return reads_while(s, "beginning")


LONG = [
    (
        "_swap_promoted",
        ("    EXECUTE format(\n        'WITH fit", "    PERFORM pymig._exchange_columns(p_source, p_entity, v_channels);\n    EXECUTE format(\n        'WITH fit"),
        ("DROP VIEW %s', v_view);\n    END IF;\n    PERFORM pymig._exchange_columns(p_source, p_entity, v_channels);", "DROP VIEW %s', v_view);\n    END IF;"),
        many_leave_quarantine,
    ),
    (
        "_promote_step",
        ("_swap_promoted(p_source, p_entity) > 0", "_swap_promoted(p_source, p_entity) + pymig._begin_promotions(p_source, p_entity) > 0"),
        ("RETURN pymig._begin_promotions(p_source, p_entity) > 0", "RETURN false"),
        another_begins_after_a_swap,
    ),
]  # fmt: skip


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(("routine", "one", "other", "scenario"), LONG)
def test_readers_wait_for_nothing_long(
    db: Database,
    routine: str,
    one: tuple[str, str],
    other: tuple[str, str],
    scenario: Callable[[Stage], bool],
    broken: bool,
) -> None:
    """The wide table is locked at the end of a step; broken: before what may take long."""
    s = Stage(db)
    if broken:
        s.patch(routine, one, other)
    assert scenario(s) is not broken
    assert finish(s, "float8") == []


@pytest.mark.parametrize("broken", [False, True])
def test_looking_for_drift_reads_a_row_a_channel(db: Database, broken: bool) -> None:
    """A worker looks in every pass, and a million rows may wait with their column's promotion."""
    s = Stage(db)
    drift(s)
    if broken:
        s.patch("_has_drift", ("ORDER BY q.channel LIMIT 1)\n        UNION", ")\n        UNION"))
    s.main.run(
        "INSERT INTO pymig.quarantine (source, entity, channel, time, bucket, reason, detail, narrow_row)"
        " SELECT q.source, q.entity, q.channel, q.time, q.bucket, q.reason, q.detail, q.narrow_row"
        " FROM pymig.quarantine AS q, generate_series(1, 20000)"
    )
    s.main.run("VACUUM ANALYZE pymig.quarantine")
    look = "SELECT pymig._has_drift('tbl_data_timeseries', 'x')"
    assert s.main.run(look) == [(True,)]
    steps(s, 1)
    reads = "SELECT pg_stat_get_xact_tuples_fetched(i) + pg_stat_get_xact_tuples_returned(t) + pg_stat_get_xact_tuples_returned(i) FROM (SELECT 'pymig.quarantine'::regclass::oid AS t, 'pymig.quarantine_drift'::regclass::oid AS i) AS r"
    s.main.run("BEGIN")
    before = s.main.value(reads)
    assert s.main.run(look) == [(False,)]
    assert (s.main.value(reads) - before < 10) is not broken
    s.main.run("ROLLBACK")


@pytest.mark.parametrize(
    ("table", "event", "after"),
    [
        ("pymig.promotion", "AFTER INSERT", 0),
        (f"{WIDE}x", "BEFORE UPDATE", 3),
        ("pymig.promotion", "BEFORE UPDATE", 4),
        ("pymig.channel", "BEFORE UPDATE", 11),
    ],
    ids=["begin", "fill", "remember", "swap"],
)
def test_killed(db: Database, table: str, event: str, after: int) -> None:
    """The backend dies in each kind of step; the next worker goes on."""
    s = Stage(db)
    drift(s)
    steps(s, after)
    s.point(table, event, "here")
    victim = s.session("victim")
    with s.held("victim", "here"):
        victim.start(STEP.replace("%s", "'x'"))
        s.stopped(victim)
        s.kill(victim)
        with suppress(psycopg.Error):
            victim.finish()
    assert finish(s, "float8") == []


def recompute_fills_only_the_old(s: Stage) -> None:
    """The worker does not know of new columns."""
    s.patch("_recompute", ("PERFORM pymig._fill_promoted(", "PERFORM concat("))


def loss_unnoticed(s: Stage) -> None:
    """Nobody looks whether the new type holds what the old one held."""
    s.patch("_fill_promoted", ("IF v_is_lossy THEN", "IF false THEN"))


def quarantine_not_looked_at_again(s: Stage) -> None:
    """A promoted channel's rows leave quarantine and that is that."""
    s.patch("_swap_promoted", ("FROM fitting AS f'", "FROM fitting AS f WHERE false'"))


def dependents_ignored(s: Stage) -> None:
    """What depends on a column goes with it."""
    s.patch("_swap_promoted", ("IF r_column.dependents IS NULL THEN", "IF true THEN"))


def waits_for_readers(s: Stage) -> None:
    """No lock_timeout."""
    s.patch("_promote_step", ("'300ms'", "'0'"), ("'1s'", "'0'"))


def snapshots_ignored(s: Stage) -> None:
    """The new column takes its place as soon as it is filled."""
    s.patch("_has_older_snapshots", ("age(a.backend_xmin) >= age(p_xid::xid)", "p_xid IS NULL"))


def entity_shared(s: Stage) -> None:
    """Parts are added while recomputes run."""
    s.patch("_promote_step", ("p_exclusive => true", "p_exclusive => false"))


MUTATIONS = [
    (recompute_fills_only_the_old, changes_behind_and_before_the_cursor),
    (loss_unnoticed, a_value_too_large_behind_the_cursor),
    (quarantine_not_looked_at_again, a_third_kind_comes_meanwhile),
    (dependents_ignored, somebodys_index),
    (waits_for_readers, a_reader_in_the_way),
    (snapshots_ignored, a_reader_with_an_old_snapshot),
    (entity_shared, a_recompute_in_flight_when_a_part_is_added),
]


@pytest.mark.parametrize(
    ("mutate", "scenario"), MUTATIONS, ids=lambda f: getattr(f, "__name__", str(f))
)
def test_mutation_is_seen(
    db: Database, mutate: Callable[[Stage], None], scenario: Callable[[Stage], list[str]]
) -> None:
    """Each protection taken away is missed by its scenario."""
    s = Stage(db)
    mutate(s)
    damage: list[str] = []
    try:
        damage = scenario(s)
    except (psycopg.Error, AssertionError) as error:
        damage = [repr(error)]
    print(damage)
    assert damage, SOURCE
