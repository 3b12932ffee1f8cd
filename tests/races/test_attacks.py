"""Races and settings that once did damage, each as small as it could be made."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from tests.conftest import Database
from tests.races.interleave import SOURCE, WIDE, Stage
from tests.races.scenarios import BACKFILL, COLLECT, SYNC, A, B, C

TZ_TABLE = """
CREATE TABLE tenant.tz (ship text NOT NULL, ch text NOT NULL, t timestamptz NOT NULL, i int8,
    d float8, PRIMARY KEY (ship, ch, t));
CREATE INDEX ON tenant.tz (t);
INSERT INTO tenant.tz VALUES ('x', 'a', '2024-03-02 10:00+00', 1), ('x', 'b', '2024-03-02 10:00+00', 1);
CALL pymig.register_source('tz', 'tenant.tz', 'ship', 'ch', 't', '{i,d}');
CALL pymig.migrate('x', 'tz');
"""


def migrated(db: Database, policy: str = "ask") -> Stage:
    """Ship x with two channels at one time, in sync."""
    stage = Stage(db, policy=policy)
    for channel in "ab":
        stage.insert("x", channel, A, 1)
    stage.migrate("x")
    return stage


def test_adoption_while_the_last_ship_is_rolled_back(db: Database) -> None:
    """roll_back has found nobody who needs the triggers; a worker adopts; they are dropped."""
    s = migrated(db, "auto")
    s.patch(
        "_disarm",
        (
            "    -- Wherever they are",
            "    PERFORM race.pause('checked');\n    -- Wherever they are",
        ),
    )
    s.insert("new", "a", A, 1)
    director, worker = s.session("director"), s.session("worker")
    with s.held("director", "checked"):
        director.start("CALL pymig.roll_back('x')")
        s.stopped(director)
        worker.start(SYNC)
        s.stopped_or_done(worker)
    director.finish()
    worker.finish()
    s.drain()
    s.insert("new", "a", B, 2)  # recorded by nobody
    assert s.damage() == []


def test_adoption_while_the_triggers_are_being_dropped(db: Database) -> None:
    """The worker sees triggers whose drop has not committed, and waits behind it to read."""
    s = migrated(db, "auto")
    s.patch(
        "_disarm",
        ("    RETURN true;", "    PERFORM race.pause('dropped');\n    RETURN true;"),
    )
    s.insert("new", "a", A, 1)
    director, worker = s.session("director"), s.session("worker")
    with s.held("director", "dropped"):
        director.start("CALL pymig.roll_back('x')")
        s.stopped(director)
        worker.start(SYNC)
        s.stopped_or_done(worker)
    director.finish()
    worker.finish()
    s.drain()
    s.insert("new", "a", B, 2)
    assert s.damage() == []


def test_start_between_two_others(db: Database) -> None:
    """A start creates while a roll-back is about to drop the triggers and another start to arm."""
    s = Stage(db)
    s.insert("x", "a", A, 1)
    s.patch(
        "_disarm",
        (
            "    -- Wherever they are",
            "    PERFORM race.pause('checked');\n    -- Wherever they are",
        ),
    )
    s.patch(
        "start_sync",
        (
            "    PERFORM pymig._create_entity",
            "    PERFORM race.pause('create');\n    PERFORM pymig._create_entity",
        ),
    )
    s.patch(
        "_arm",
        ("    PERFORM set_config(", "    PERFORM race.pause('arm');\n    PERFORM set_config("),
    )
    first, back, second = s.session("first"), s.session("back"), s.session("second")
    with s.held("second", "arm"):
        with s.held("back", "checked"):
            with s.held("first", "create"):
                first.start("CALL pymig.start_sync('x')")
                s.stopped(first)
                back.start("CALL pymig.roll_back('x')")
                s.stopped(back)
                second.start("CALL pymig.start_sync('x')")
                s.stopped(second)
            s.stopped_or_done(first)
        s.stopped_or_done(back)  # for its next table it may have to wait for the second start
        with suppress(psycopg.Error):
            first.finish()
        s.stopped_or_done(second)
        with suppress(psycopg.Error):
            s.main.run(BACKFILL)
        s.insert("x", "a", B, 2)
    second.finish()
    back.finish()
    s.main.run(BACKFILL)
    s.insert("x", "a", C, 3)  # seen only where the triggers that the second start made are there
    assert s.damage("x") == []


def test_adoption_given_up_by_one_worker_and_done_by_another(db: Database) -> None:
    """One worker found no rows and goes to forget the entity; another has migrated it meanwhile."""
    s = migrated(db, "auto")
    s.patch(
        "_forget_newcomer",
        ("    IF NOT pg_try", "    PERFORM race.pause('forget');\n    IF NOT pg_try"),
    )
    s.insert("new", "a", A, 1)
    s.main.run(COLLECT)
    s.delete("new", "a", A)
    worker = s.session("worker")
    with s.held("worker", "forget"):
        worker.start(SYNC)
        s.stopped(worker)
        s.insert("new", "a", A, 2)
        s.main.run(SYNC)
        s.delete("new", "a", A)
        s.main.run(COLLECT)
    worker.finish()
    assert s.damage("x", "new") == []


def test_entity_that_was_empty_when_it_was_adopted(db: Database) -> None:
    """It leaves no keys behind, and is adopted when it sends again."""
    s = migrated(db, "auto")
    s.insert("new", "a", A, 1)
    s.delete("new", "a", A)
    s.drain()
    assert s.pending() == 0
    s.insert("new", "a", A, 2)
    s.drain()
    assert s.main.value("SELECT state FROM pymig.entity WHERE entity = 'new'") == "backfilled"
    assert s.damage("x", "new") == []


def test_roll_back_while_keys_are_collected(db: Database) -> None:
    """Keys that a collector commits after the roll-back must not stay pending for ever."""
    s = migrated(db)
    s.insert("y", "a", A, 1)
    s.migrate("y")
    s.update("x", "a", A, 5)
    worker = s.session("worker")
    worker.begin()
    worker.run(COLLECT)
    s.main.run("CALL pymig.roll_back('x')")
    worker.run("COMMIT")
    s.drain()
    assert s.pending() == 0


@pytest.mark.parametrize("style", ["German", "SQL, DMY", "SQL, MDY", "Postgres, DMY"])
def test_worker_with_another_datestyle(db: Database, style: str) -> None:
    """Keys do not go through the session's text form of a time."""
    s = migrated(db)
    s.update("x", "a", A, 5)
    worker = s.session("worker")
    worker.run(f"SET DateStyle = '{style}'")
    worker.run(SYNC)
    assert s.pending() == 0
    assert s.damage("x") == []


def test_quarantine_by_key_in_another_time_zone(db: Database) -> None:
    """What was quarantined of a timestamptz key is found again, whatever the zone."""
    s = Stage(db)
    for statement in TZ_TABLE.strip().split(";\n"):
        s.main.run(statement)
    worker = s.session("worker")
    worker.run("SET TimeZone = 'Europe/Berlin'")
    for value in ("2", "3"):
        s.main.run(f"UPDATE tenant.tz SET d = {value} WHERE ch = 'a'")  # now two values are set
        worker.run(SYNC)
        assert s.main.value("SELECT count(*) FROM pymig.quarantine") == 1
    s.main.run("UPDATE tenant.tz SET d = NULL")
    worker.run(SYNC)
    assert s.main.value("SELECT count(*) FROM pymig.quarantine") == 0


@pytest.mark.parametrize("strategy", ["transpose", "json"])
def test_rows_without_channel(db: Database, strategy: str) -> None:
    """They are in quarantine, and verify agrees."""
    s = Stage(db)
    s.main.run("CREATE TABLE tenant.n (ship text, ch text, t timestamp, i int8, id bigserial)")
    s.main.run("CREATE INDEX ON tenant.n (t)")
    s.main.run(
        "CALL pymig.register_source('n', 'tenant.n', 'ship', 'ch', 't', '{i}', p_tie_break => '{id}')"
    )
    s.main.run(f"INSERT INTO tenant.n VALUES ('x', 'a', '{A}', 1), ('x', NULL, '{A}', 1)")
    s.main.run("CALL pymig.start_sync('x', 'n', p_strategy => %s)", strategy)
    s.main.run("CALL pymig.backfill('x', 'n')")
    assert s.main.run("SELECT reason FROM pymig.quarantine") == [("no_channel",)]
    s.main.run("CALL pymig.verify('x', 'n')")


def test_last_moment_of_the_type(db: Database) -> None:
    """A bucket after the last one does not begin in the last one again."""
    s = Stage(db)
    for at in (A, "294276-12-31 23:59:59.999999", "infinity"):
        s.insert("x", "a", at, 1)
    s.start_sync("x")
    for _ in range(30):
        if s.main.value("SELECT outcome FROM pymig.backfill_chunk('x')") == "done":
            break
    else:
        pytest.fail("the backfill never ends")
    s.main.run("SET statement_timeout = '5s'")
    s.main.run("CALL pymig.verify('x')")
    assert s.damage("x") == []


def test_new_channel_while_a_reader_holds_the_wide_table(db: Database) -> None:
    """The backfill waits for the reader instead of dying of its own lock timeout."""
    s = Stage(db)
    s.insert("x", "a", A, 1)
    s.start_sync("x")
    s.deal("x")
    s.insert("x", "new", A, 3)
    reader = s.session("reader")
    reader.begin()
    reader.run(f"SELECT * FROM {WIDE}x")
    assert s.main.value("SELECT outcome FROM pymig.backfill_chunk('x')") == "retry"
    reader.run("COMMIT")
    s.main.run(BACKFILL)
    assert s.damage("x") == []


@pytest.mark.parametrize("again", [False, True])
def test_roll_back_while_it_is_verified(db: Database, again: bool) -> None:
    """verify says that the entity is gone: no syntax error, no false alarm on the next one."""
    s = migrated(db)
    s.patch("verify", ("    LOOP\n", "    LOOP PERFORM race.pause('loop');\n"))
    verifier = s.session("verifier")
    with s.held("verifier", "loop"):
        verifier.start("CALL pymig.verify('x')")
        s.stopped(verifier)
        s.main.run("CALL pymig.roll_back('x')")
        if again:
            s.start_sync("x")
    with pytest.raises(psycopg.Error) as error:
        verifier.finish()
    assert error.value.sqlstate == "PM004"


def test_two_repairs_and_a_new_channel(db: Database) -> None:
    """Two sessions repair one entity that also needs a column: neither is a deadlock victim."""
    s = migrated(db)
    s.main.run(f"UPDATE {WIDE}x SET a = 'bad'")
    s.insert("x", "new", A, 1)
    s.main.run(f"DELETE FROM pymig.{SOURCE}_pending_1")
    s.patch("_compare_buckets", ("BEGIN\n", "BEGIN\n    PERFORM race.pause('compare');\n"))
    one, two = s.session("v"), s.session("v")
    with s.held("v", "compare"):
        for verifier in (one, two):
            verifier.start("CALL pymig.verify('x', p_repair => true)")
            s.stopped(verifier)
    one.finish()
    two.finish()
    assert s.damage("x") == []


def test_poison_and_fresh_keys_in_one_bucket(db: Database) -> None:
    """One time that can't be written does not hold up the other times of its bucket."""
    s = migrated(db)
    s.insert("x", "a", B, 1)
    s.drain()
    s.main.run(f"ALTER TABLE {WIDE}x ADD CONSTRAINT bad CHECK (a <> '2' OR created_time <> '{A}')")
    s.update("x", "a", A, 2)
    s.main.run(SYNC)
    s.update("x", "a", B, 3)
    s.drain()
    assert [row[1] for row in s.wide("x")] == ["1", "3"]


def test_two_entities_are_created_at_once(db: Database) -> None:
    """Whoever creates one does not hold up who creates another."""
    s = migrated(db)
    for ship in "yz":
        s.insert(ship, "a", A, 1)
    s.point("pymig.entity", "BEFORE UPDATE OF first_bucket", "bounded")
    one, two = s.session("one"), s.session("two")
    with s.held("one", "bounded"):
        one.start("CALL pymig.start_sync('y')")
        s.stopped(one)
        two.start("CALL pymig.start_sync('z')")
        waits = s.stopped_or_done(two)
    one.finish()
    two.finish()
    assert not waits
