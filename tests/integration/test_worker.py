"""The worker: fair to live keys, patient with poison, and seen: lag, heartbeats, pending.

A protection that is taken away on purpose (`broken`) must be missed: each such test runs twice.
"""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pymig.worker import keep_in_sync
from tests.conftest import Database
from tests.integration.test_cells import FLOATS, INTEGERS, NUMERICS, TEXTS
from tests.oracle import Narrow, difference
from tests.races.interleave import SOURCE, WIDE, Stage, times
from tests.races.scenarios import SYNC, A, B, C

LATER = "2024-03-09 10:00:00"
WRITTEN = """
CREATE TABLE race.written (place bigserial, wide text);
CREATE FUNCTION race.write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO race.written (wide) VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
"""
AGES = """
SELECT pymig._note_lag(%s, %s, array_agg(clock_timestamp() - u.age), array_agg(1))
FROM unnest(%s::interval[]) AS u (age)
"""


def migrated(db: Database, *ships: str, policy: str = "ask") -> Stage:
    """Ships with a channel at one time, in sync."""
    stage = Stage(db, policy=policy)
    for ship in ships:
        stage.insert(ship, "a", A, 1)
    stage.migrate(*ships)
    return stage


def status(s: Stage, ship: str, column: str) -> Any:
    """What pymig.status says of a ship."""
    return s.main.value(f"SELECT {column} FROM pymig.status WHERE entity = %s", ship)


# --- single keys through the row type -----------------------------------------------------------


@pytest.mark.parametrize("column_types", ["text", "native"])
def test_keys_keep_every_value(db: Database, column_types: str) -> None:
    """Keys go through json_populate_record, and what comes out is what went in, bit for bit."""
    conn = db.connect(options="-c extra_float_digits=-15 -c TimeZone=Asia/Kolkata")
    conn.execute(
        "CREATE TABLE n (ship text, ch text, ts timestamptz, f float8, i int8, s text, b bool,"
        " q numeric, fmt text, PRIMARY KEY (ship, ch, ts)); CREATE INDEX ON n (ts)"
    )
    conn.execute(
        "CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{f,i,s,b,q}', 'fmt',"
        """ '{"f":"f","i":"i","s":"s","b":"b","q":"q"}', p_column_types => %s)""",
        [column_types],
    )
    some: dict[str, list[Any]] = {
        "f": list(FLOATS), "i": list(INTEGERS), "s": list(TEXTS), "b": [True, False], "q": list(NUMERICS),
    }  # fmt: skip
    kinds = {"f": "float8", "i": "int8", "s": "text", "b": "bool", "q": "numeric"}
    for column in kinds:
        conn.execute(
            f"INSERT INTO n (ship, ch, ts, fmt, {column}) VALUES ('x', '{column}\"\\', '2024-01-01+00', '{column}', NULL)"
        )
    conn.execute("CALL pymig.migrate('x')")
    for column, kind in kinds.items():
        conn.execute(
            f"INSERT INTO n (ship, ch, ts, fmt, {column})"
            f" SELECT 'x', '{column}\"\\', '2024-01-01+00'::timestamptz + u.i * interval '67 min', '{column}', u.v"
            f" FROM unnest(%s::{kind}[]) WITH ORDINALITY AS u (v, i)",
            [[*some[column], None]],
        )
    for at in (
        "infinity",
        "-infinity",
        "4713-01-01 00:00:00+00 BC",
        "294276-12-31 23:59:59.999999+00",
    ):
        conn.execute("INSERT INTO n (ship, ch, ts, fmt, i) VALUES ('x', 'i\"\\', %s::text::timestamptz, 'i', 7)", [at])  # fmt: skip
    assert conn.execute("SELECT pymig._is_as_created(s, 'x') FROM pymig.source AS s").fetchone() == (True,)  # fmt: skip
    conn.execute("CALL pymig.sync_pending()")
    assert conn.execute("SELECT count(*) FROM pymig.pending").fetchone() == (0,)
    narrow = Narrow(
        source="n", table="n", entity_column="ship", channel_column="ch", time_column="ts",
        value_columns=("f", "i", "s", "b", "q"), format_column="fmt",
        formats={name: name for name in kinds},
    )  # fmt: skip
    assert difference(conn, narrow, {"x"}) == []


@pytest.mark.parametrize("broken", [False, True])
def test_renamed_column_is_not_passed_over(db: Database, broken: bool) -> None:
    """A DBA renamed a wide column: the cell goes to its new name, and is not lost in silence."""
    s = migrated(db, "x")
    if broken:
        s.patch("_is_as_created", ("SELECT NOT EXISTS (", "SELECT true OR NOT EXISTS ("))
    s.main.run(f"ALTER TABLE {WIDE}x RENAME COLUMN a TO mine")
    s.insert("x", "a", B, 2)
    s.drain()
    found = s.main.run(f"SELECT mine FROM {WIDE}x WHERE created_time = %s", B)
    assert (found == [("2",)]) is not broken


@pytest.mark.parametrize(
    "change",
    ["DROP COLUMN a", "ADD COLUMN b int", "ALTER a TYPE varchar(20)", "ADD COLUMN b text GENERATED ALWAYS AS (a || '') STORED"],
)  # fmt: skip
def test_changed_table_is_seen(db: Database, change: str) -> None:
    """Any change of columns sends keys the long way, by the column list."""
    s = migrated(db, "x")
    as_created = "SELECT pymig._is_as_created(s, 'x') FROM pymig.source AS s"
    assert s.main.value(as_created) is True
    s.main.run(f"ALTER TABLE {WIDE}x {change}")
    assert s.main.value(as_created) is False


# --- fair ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [False, True])
def test_live_key_overtakes_a_backlog(db: Database, broken: bool) -> None:
    """A bulk correction is being worked off when another ship sends: its key is next but few."""
    s = migrated(db, "x", "y")
    slice_ends = "greatest(c_slice, 4 * (clock_timestamp() - v_looked))"
    # Time does not matter here: look after every bucket, or, broken, not before the end.
    s.patch("sync_pending", (slice_ends, "interval '1 hour'" if broken else "interval '0'"))
    s.patch("_due_todo", ("ELSE 'keys' END", "ELSE 'alone' END"))  # one bucket a run
    s.main.run(WRITTEN)
    for ship in "xy":
        s.main.run(f"CREATE TRIGGER w AFTER INSERT ON {WIDE}{ship} FOR EACH STATEMENT EXECUTE FUNCTION race.write()")  # fmt: skip
    for hour in range(20):
        s.insert("x", "a", f"2024-02-01 {hour:02d}:00:00", 1)
    s.point(f"{WIDE}x", "BEFORE INSERT", "at work")
    worker = s.session("worker")
    with s.held("worker", "at work"):
        worker.start(SYNC)
        s.stopped(worker)
        s.insert("y", "a", LATER, 1)
    worker.finish()
    order = [row[0][-1] for row in s.main.run("SELECT wide FROM race.written ORDER BY place")]
    assert order.count("x") == 20
    assert ("y" in order[:4]) is not broken
    assert s.damage("x", "y") == []


@pytest.mark.parametrize("broken", [False, True])
def test_backlog_ends_under_live_keys_without_end(db: Database, broken: bool) -> None:
    """Live keys that fill every slice leave every fifth bucket to who waited longest."""
    s = migrated(db, "x", "y")
    if broken:
        s.patch("_due_todo", ("least(\n", "coalesce(\n"))
    for hour in range(3):
        s.insert("x", "a", f"2024-02-01 {hour:02d}:00:00", 1)
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    for day in range(10, 25):
        s.insert("x", "a", f"2024-03-{day} 10:00:00", 1)
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    runs = s.main.value("SELECT d.runs FROM pymig.source AS s, pymig._due_todo(s, 0) AS d")
    assert runs[0] == f"{{{s.bucket('2024-03-24 10:00:00')}}}"
    oldest = ",".join(str(s.bucket(f"2024-02-01 {hour:02d}:00:00")) for hour in range(3))
    assert (runs.index(f"{{{oldest}}}") < 5) is not broken


def test_ships_stand_in_a_ring(db: Database) -> None:
    """A list that was left early goes on behind the ship that was done last, which is the last then."""
    s = migrated(db, *"abcdefgh")
    for ship in "abcdefgh":
        s.insert(ship, "a", B, 1)
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    order = (
        "SELECT d.entities FROM pymig.source AS s, pymig._due_todo(s, pymig._ring_place(%s)) AS d"
    )
    # Every fifth is the one that has waited longest, the same for all.
    s.patch("_due_todo", ("4 * row_number() OVER", "1000 + row_number() OVER"))
    ring = s.main.value(order, "a")
    assert sorted(ring) == list("abcdefgh")
    for place, ship in enumerate(ring):
        assert s.main.value(order, ship) == [*ring[place + 1 :], *ring[: place + 1]]


@pytest.mark.parametrize("broken", [False, True])
def test_history_of_newcomers_is_left_to_the_other_connection(db: Database, broken: bool) -> None:
    """p_adopt => false recomputes and moves no chunk; migrate_adopted moves them all."""
    s = migrated(db, "x", policy="auto")
    if broken:
        s.patch("sync_pending", ("IF p_adopt AND v_steps", "IF v_steps"))
    s.insert("new", "a", A, 1)
    s.insert("x", "a", B, 1)
    s.main.run("CALL pymig.sync_pending(p_adopt => false)")
    assert len(s.wide("x")) == 2
    assert (status(s, "new", "state") == "planned") is not broken
    s.main.run("CALL pymig.migrate_adopted()")
    assert status(s, "new", "state") == "backfilled"
    assert s.damage("new", "x") == []


def test_worker_syncs_while_a_newcomer_is_migrated(db: Database) -> None:
    """The chunk of a newcomer is held; live keys of another ship don't wait; the stop cuts it off."""
    s = migrated(db, "x", policy="auto")
    s.insert("new", "a", A, 1)
    s.main.run("CALL pymig.sync_pending(p_adopt => false)")
    s.point("pymig.chunk", "BEFORE UPDATE", "moving")
    stop = threading.Event()
    with s.held("pymig adopter", "moving"):
        worker = threading.Thread(target=keep_in_sync, args=(db.url, stop), daemon=True)
        worker.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pymig adopter' AND wait_event_type = 'Lock'"
        until(lambda: s.main.value(waiting) == 1)
        s.insert("x", "a", B, 1)
        until(lambda: len(s.wide("x")) == 2)
        stop.set()
        worker.join(10)
        assert not worker.is_alive()
    s.main.run("CALL pymig.migrate_adopted()")
    assert s.damage("new", "x") == []


def until(is_so: Any, seconds: float = 10.0) -> None:
    """Wait for something that other sessions do."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- poison -------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [False, True])
def test_poison_is_quarantined_and_comes_back(db: Database, broken: bool) -> None:
    """A key that can't be recomputed: the others are done, it is in quarantine with the error, nothing verifies."""
    s = migrated(db, "x")
    if broken:
        s.patch("_todo_failed", ("f.attempts >= $5", "false"))
    s.main.run(f"ALTER TABLE {WIDE}x ADD CONSTRAINT no_13 CHECK (a <> '13') NOT VALID")
    s.insert("x", "a", B, 13)
    s.insert("x", "a", C, 14)
    s.drain(passes=6)
    assert [row[1] for row in s.wide("x")] == ["1", "14"]
    found = s.main.run("SELECT time, reason, detail FROM pymig.quarantine")
    if broken:
        assert found == []
        return
    assert [(time, reason) for time, reason, _ in found] == [(B, "recompute_failed")]
    assert "no_13" in found[0][2]
    assert status(s, "x", "quarantined") == 1
    assert "no_13" in status(s, "x", "last_error")
    with pytest.raises(psycopg.Error) as failed:
        s.main.run("CALL pymig.verify('x')")
    assert failed.value.sqlstate == "PM013"
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT no_13")
    assert s.damage("x") == []
    assert s.main.value("SELECT count(*) FROM pymig.quarantine") == 0
    s.main.run("CALL pymig.verify('x')")


@pytest.mark.parametrize("broken", [False, True])
def test_many_failing_keys_take_turns(db: Database, broken: bool) -> None:
    """A fault that is not in one key: a turn ends after 20 of them, not after all."""
    s = migrated(db, "x")
    if broken:
        s.patch("_recompute_singly", ("EXIT WHEN v_failures >= c_failures OR clock_timestamp() > v_until;", ""))  # fmt: skip
    s.main.run(f"ALTER TABLE {WIDE}x ADD CONSTRAINT none CHECK (a = '1') NOT VALID")
    for at in times(50, hour=12):
        s.insert("x", "a", at, 2)
    s.main.run(SYNC)
    again = f"UPDATE pymig.{SOURCE}_todo SET retry_at = NULL"
    s.main.run(again)
    s.main.run(SYNC)
    singles = s.main.value(f"SELECT count(*) FROM pymig.{SOURCE}_todo WHERE cardinality(times) = 1")
    assert singles == (50 if broken else 20)
    assert s.pending() == 50
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT none")
    assert s.damage("x") == []


# --- seen ---------------------------------------------------------------------------------------


def test_lag_of_a_recompute_is_counted(db: Database) -> None:
    """From the start of the transaction that changed the key to the wide row."""
    s = migrated(db, "x")
    assert status(s, "x", "sync_lag_p50") is None or status(s, "x", "sync_lag_p50") < timedelta(seconds=5)  # fmt: skip
    s.main.run("DELETE FROM pymig.lag")
    s.insert("x", "a", B, 1)
    s.main.run(f"UPDATE pymig.{SOURCE}_pending_1 SET recorded_at = recorded_at - interval '10 s'")
    s.main.run(SYNC)
    for column in ("sync_lag_p50", "sync_lag_p99"):
        assert timedelta(seconds=10) < status(s, "x", column) < timedelta(seconds=20)
    assert status(s, "x", "sync_lag") == timedelta(0)
    s.main.run("CALL pymig.roll_back('x')")
    assert s.main.value("SELECT count(*) FROM pymig.lag") == 0


def test_lag_percentiles(db: Database) -> None:
    """99 quick keys and two slow ones; another ship's; a minute that is long over; reused slots."""
    s = migrated(db, "x", "y")
    s.main.run("DELETE FROM pymig.lag")
    quick = [timedelta(milliseconds=20)] * 99
    s.main.run(AGES, SOURCE, "x", quick)
    s.main.run(AGES, SOURCE, "x", [timedelta(seconds=3)] * 2)
    s.main.run(AGES, SOURCE, "y", [timedelta(days=400)])
    assert timedelta(milliseconds=20) <= status(s, "x", "sync_lag_p50") < timedelta(milliseconds=100)  # fmt: skip
    assert timedelta(seconds=3) <= status(s, "x", "sync_lag_p99") < timedelta(seconds=5)
    assert status(s, "y", "sync_lag_p50") > timedelta(hours=4)
    s.main.run("UPDATE pymig.lag SET minute = minute - interval '6 min'")
    assert status(s, "x", "sync_lag_p99") is None
    s.main.run("UPDATE pymig.lag SET slot = extract(epoch FROM now())::bigint / 60 % 6 WHERE entity = 'x' AND slot = (SELECT min(slot) FROM pymig.lag WHERE entity = 'x')")  # fmt: skip
    s.main.run(AGES, SOURCE, "x", quick)
    assert status(s, "x", "sync_lag_p99") < timedelta(milliseconds=100)


@pytest.mark.parametrize("broken", [False, True])
def test_counting_pending_is_bounded(db: Database, broken: bool) -> None:
    """With very many keys status says NULL rather than 0 for who was not reached."""
    s = migrated(db, "x", "y")
    s.patch("_pending_by_entity", ("c_rows constant int := 5000", "c_rows constant int := 10"))
    if broken:
        s.patch("_pending_by_entity", ("CASE WHEN t.is_all THEN 0 END", "0"))
    s.insert("x", "a", B, 1)
    assert status(s, "x", "pending") == 1
    assert status(s, "y", "pending") == 0
    for at in times(20, hour=12):
        s.insert("x", "a", at, 1)
    s.insert("y", "a", B, 1)
    assert status(s, "x", "pending") == 10
    assert (status(s, "y", "pending") is None) is not broken
    assert (status(s, "y", "sync_lag") is None) is not broken
    assert s.damage("x", "y") == []


def test_pending_counts_keys_in_both_stages(db: Database) -> None:
    """What is collected is counted by keys, not by rows."""
    s = migrated(db, "x")
    for at in times(5, hour=12):
        s.insert("x", "a", at, 1)
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    s.insert("x", "a", B, 1)
    assert status(s, "x", "pending") == 6
    assert status(s, "x", "sync_lag") > timedelta(0)


@pytest.mark.parametrize("broken", [False, True])
def test_silence_leaves_one_event(db: Database, broken: bool) -> None:
    """The first worker after a minute without any says so, once."""
    s = migrated(db, "x")
    if broken:
        s.patch("_heartbeat", ("interval '1 minute'", "interval '1 year'"))
    events = "SELECT count(*) FROM pymig.event WHERE what = 'no worker' AND level = 'WARNING'"
    s.main.run(SYNC)
    assert s.main.value(events) == 0
    s.main.run("UPDATE pymig.worker SET seen_at = now() - interval '2 min'")
    assert status(s, "x", "workers_alive") == 0
    for name in ("one", "two"):
        s.main.run("CALL pymig.sync_pending(p_worker => %s)", name)
    assert s.main.value(events) == (0 if broken else 1)
    assert status(s, "x", "workers_alive") == 2
    s.main.run("UPDATE pymig.worker SET seen_at = now() - interval '2 days' WHERE worker = 'one'")
    s.main.run(SYNC)
    assert s.main.value("SELECT count(*) FROM pymig.worker WHERE worker = 'one'") == 0


def test_dead_worker_is_replaced(db: Database) -> None:
    """A worker's backend dies in the middle of a recompute: the next pass of another does it."""
    s = migrated(db, "x")
    s.insert("x", "a", B, 2)
    s.point(f"{WIDE}x", "BEFORE INSERT", "at work")
    dead = s.session("dead")
    with s.held("dead", "at work"):
        dead.start(SYNC)
        s.stopped(dead)
        s.main.run(SYNC)  # leaves the bucket to who has it
        assert len(s.wide("x")) == 1
        s.kill(dead)
        with pytest.raises(psycopg.Error):
            dead.finish()
    s.main.run(SYNC)
    assert len(s.wide("x")) == 2
    assert s.damage("x") == []


def test_worker_through_a_lost_connection(db: Database) -> None:
    """pymig worker goes on when its connections are cut, under the same name."""
    s = migrated(db, "x")
    stop = threading.Event()
    worker = threading.Thread(target=keep_in_sync, args=(db.url, stop), daemon=True)
    worker.start()
    try:
        for n, at in enumerate(times(4, hour=12)):
            s.insert("x", "a", at, n)
            until(lambda n=n: len(s.wide("x")) == n + 2)
            s.main.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pymig%%' AND pid <> pg_backend_pid()")  # fmt: skip
    finally:
        stop.set()
        worker.join(10)
    assert not worker.is_alive()
    assert s.main.value("SELECT count(*) FROM pymig.worker WHERE worker LIKE '%%:%%'") == 1
    assert s.damage("x") == []
