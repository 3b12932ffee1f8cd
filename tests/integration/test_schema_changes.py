"""Wide tables grow while they are read: new channels, storms of them, new parts, new ships."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, LiteralString

import psycopg
import pytest

from pymig.worker import BackgroundWorker
from tests.conftest import Database
from tests.races.interleave import DEADLINE, SOURCE, TABLE, WIDE, Session, Stage

A, B, C = "2024-03-02 10:00:00", "2024-03-02 10:15:00", "2024-03-02 11:00:00"
MANY: LiteralString = (
    "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v,"
    " value_format) SELECT 'x', %s || i, %s::timestamp, i, 'Decimal'"
    " FROM generate_series(1, %s) AS i"
)
DDL: LiteralString = """
CREATE TABLE race.ddl (command text);
CREATE FUNCTION race.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO race.ddl
    SELECT DISTINCT format('%s %s', c.command_tag, c.object_identity)
    FROM pg_event_trigger_ddl_commands() AS c WHERE c.object_type IN ('table', 'view');
END $$;
CREATE EVENT TRIGGER note_ddl ON ddl_command_end EXECUTE FUNCTION race.note_ddl();
"""


@pytest.fixture
def stage(db: Database) -> Stage:
    """The default source on a fresh database."""
    return Stage(db)


def migrate(s: Stage, types: str = "native", ship: str = "x") -> None:
    """To the end."""
    s.main.run("CALL pymig.migrate(%s, p_column_types => %s)", ship, types)


def _is_backfilled(s: Stage, ship: str) -> bool:
    return s.main.run("SELECT state FROM pymig.entity WHERE entity = %s", ship) == [("backfilled",)]


def _has_after_a_pass(s: Stage, count: int) -> bool:
    s.drain(1)
    return channels(s) == count


def _has_text_after_a_pass(s: Stage) -> bool:
    s.drain(1)
    return s.main.run("SELECT 1 FROM pymig.channel WHERE column_type = 'text'") == [(1,)]


def _is_there(s: Stage, n: int) -> bool:
    return channels(s) == 301 + n and s.main.run(f'SELECT "new{n}" FROM {WIDE}x') == [(n,)]


def channels(s: Stage, ship: str = "x") -> int:
    """How many have columns."""
    return int(s.main.value("SELECT count(*) FROM pymig.channel WHERE entity = %s", ship))


def until(what: Callable[[], Any]) -> None:
    """Look again and again; too late is an error."""
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, "it never comes"


@pytest.mark.parametrize("types", ["native", "text"])
def test_storm(stage: Stage, types: str) -> None:
    """2,000 new channels on a ship of 300: one transaction, few ALTER TABLEs, readers go on."""
    stage.main.run(MANY, "old", A, 300)
    stage.main.run(MANY, "old", C, 300)
    migrate(stage, types)
    reader = stage.session("reader")
    reader.run(
        "PREPARE q AS SELECT old7::text FROM tenant.tbl_data_timeseries_x ORDER BY created_time"
    )
    stage.main.run(MANY, "new", B, 2000)
    stage.main.run(DDL)
    stage.main.run("CALL pymig.sync_pending()")
    ddl = [row[0] for row in stage.main.run("SELECT command FROM race.ddl ORDER BY 1")]
    alter = [command for command in ddl if command.startswith("ALTER TABLE")]
    parts = int(stage.main.value("SELECT count(*) FROM pymig.part"))
    assert parts == {"native": 3, "text": 7}[types]
    # The rename, and the columns the first part takes; new parts are complete from the start.
    assert len(alter) == 2, ddl
    assert len([command for command in ddl if command.startswith("CREATE VIEW")]) == 1
    assert channels(stage) == 2300
    assert stage.damage("x") == []
    stage.main.run("CALL pymig.verify('x')")
    assert stage.main.value("SELECT count(*) FROM pymig.event WHERE what = 'channels added'") == 1
    assert reader.run("EXECUTE q") == [("7",), (None,), ("7",)]
    # The view has the old ones and as many of the new ones as fit; more change nothing of it.
    for more in (0, 10):
        stage.main.run(MANY, "more", C, more)
        stage.drain()
        view = stage.main.value(
            f"SELECT count(*) FROM pg_attribute WHERE attrelid = '{WIDE}x'::regclass AND attnum > 0"
        )
        assert view == 1600
    assert channels(stage) == 2310
    assert stage.main.value("SELECT count(*) FROM pymig.event WHERE what = 'view is full'") == 1
    assert "first 1599 of 2310" in stage.main.value(f"SELECT obj_description('{WIDE}x'::regclass)")
    assert stage.damage("x") == []


def split(s: Stage) -> None:
    """A channel more than the table holds: it becomes a view over two parts."""
    s.main.run(MANY, "more", B, 5)
    s.drain()
    assert s.main.value("SELECT count(*) FROM pymig.part") == 2


def test_a_table_becomes_a_view(stage: Stage) -> None:
    """Whoever reads it by name goes on: rights, prepared statements, a view of somebody's."""
    stage.main.run(MANY, "c", A, 1000)
    migrate(stage)
    role = f"reader_{stage.db.name}"
    stage.main.run(f"CREATE ROLE {role}")
    stage.main.run(f"GRANT USAGE ON SCHEMA tenant TO {role}")
    stage.main.run(f"GRANT SELECT ON {WIDE}x TO {role}")
    stage.main.run(f"CREATE VIEW theirs AS SELECT created_time, c7 FROM {WIDE}x")
    try:
        early, late = stage.session("early"), stage.session("late")
        for session in (early, late):
            session.run(f"PREPARE q AS SELECT c7 FROM {WIDE}x WHERE created_time = '{A}'")
            assert session.run("EXECUTE q") == [(7.0,)]
        split(stage)
        assert early.run("EXECUTE q") == [(7.0,)]
        late.run(f"SET ROLE {role}")
        assert late.run("EXECUTE q") == [(7.0,)]
        assert late.run(f"SELECT c7, more1 FROM {WIDE}x WHERE created_time = '{B}'") == [
            (None, 1.0)
        ]
        assert stage.main.run("SELECT c7 FROM theirs ORDER BY created_time") == [(7.0,), (None,)]
        assert stage.damage("x") == []
        late.conn.close()
    finally:
        stage.main.run("DROP VIEW theirs")
        stage.main.run(f"DROP OWNED BY {role}")
        stage.main.run(f"DROP ROLE {role}")
    stage.main.run("CALL pymig.roll_back('x')")


@pytest.mark.parametrize("broken", [False, True])
def test_rights_on_columns_stay(stage: Stage, broken: bool) -> None:
    """Who may read a few columns reads them in the view, too, and in the next view."""
    if broken:
        stage.patch("_read_grants", ("t.attnum > 0", "false"))
    stage.main.run(MANY, "c", A, 1000)
    migrate(stage)
    role = f"columns_{stage.db.name}"
    stage.main.run(f"CREATE ROLE {role}")
    stage.main.run(f"GRANT USAGE ON SCHEMA tenant TO {role}")
    stage.main.run(f"ALTER TABLE {WIDE}x ADD COLUMN theirs int")
    stage.main.run(f"GRANT SELECT (created_time, c7, theirs) ON {WIDE}x TO {role}")
    try:
        reader = stage.session("reader")
        reader.run(f"SET ROLE {role}")
        query = f"SELECT c7 FROM {WIDE}x WHERE created_time = '{A}'"
        assert reader.run(query) == [(7.0,)]
        split(stage)
        if broken:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.run(query)
            return
        assert reader.run(query) == [(7.0,)]
        stage.main.run(
            f"UPDATE {TABLE} SET double_v = NULL, str_v = 'x', value_format = 'String'"
            " WHERE data_channel_id = 'c9'"
        )
        stage.main.run("CALL pymig.set_type_drift('x', 'promote')")
        until(partial(_has_text_after_a_pass, stage))
        assert reader.run(query) == [(7.0,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.run(f"SELECT c9 FROM {WIDE}x")
        assert stage.damage("x") == []
    finally:
        reader.conn.close()
        stage.main.run(f"DROP OWNED BY {role}")
        stage.main.run(f"DROP ROLE {role}")


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_open_transactions_of_readers(stage: Stage, isolation: str) -> None:
    """One that has read the table before holds the change up; one that has not reads it after."""
    stage.main.run(MANY, "c", A, 1000)
    migrate(stage)
    before, after = stage.session("before"), stage.session("after")
    before.begin(isolation)
    after.begin(isolation)
    assert before.run(f"SELECT c7 FROM {WIDE}x") == [(7.0,)]
    after.run("SELECT 1")  # its snapshot, at REPEATABLE READ
    stage.main.run(MANY, "more", B, 5)
    stage.main.run("CALL pymig.sync_pending()")  # gives way
    assert before.run(f"SELECT c7 FROM {WIDE}x WHERE created_time = '{A}'") == [(7.0,)]
    assert stage.main.value("SELECT count(*) FROM pymig.part") == 1
    before.run("COMMIT")
    stage.drain()
    assert stage.main.value("SELECT count(*) FROM pymig.part") == 2
    # It reads the view, and by a snapshot older than the second part still every row.
    rows = after.run(f"SELECT c7 FROM {WIDE}x WHERE created_time = '{A}'")
    after.run("COMMIT")
    assert rows == [(7.0,)]
    assert stage.damage("x") == []


def test_times_push_down_to_every_part(stage: Stage) -> None:
    """A point and a range through the view use the primary key of each part, unless tiny."""
    stage.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, double_v, value_format)"
        " SELECT 'x', 'c', %s::timestamp + t * interval '1 minute', t, 'Decimal'"
        " FROM generate_series(1, 3000) AS t",
        A,
    )
    migrate(stage)
    stage.patch("_deal_types", ("v_columns + 2 > 1600", "p_is_appended AND v_part = 1"))
    split(stage)
    stage.main.run(f"ANALYZE {WIDE}x_1, {WIDE}x_2")
    for condition in (
        f"created_time = '{C}'",
        f"created_time BETWEEN '{C}' AND '{C}'::timestamp + interval '2 minutes'",
    ):
        plan = "\n".join(
            row[0]
            for row in stage.main.run(f"EXPLAIN SELECT c, more1 FROM {WIDE}x WHERE {condition}")
        )
        assert plan.count("Index Cond:") == 2 and "Seq Scan" not in plan, plan
    # A part that no column is wanted of is not read.
    plan = str(stage.main.run(f"EXPLAIN SELECT c FROM {WIDE}x"))
    assert "x_1" in plan and "x_2" not in plan


def test_a_new_channel_gets_in_between_readers(stage: Stage) -> None:
    """There is a reader at every moment; the column comes nevertheless, and no reader fails."""
    stage.insert("x", "a", A, 1)
    migrate(stage)
    stop = threading.Event()
    errors: list[Exception] = []

    def read(session: Session) -> None:
        try:
            while not stop.is_set():
                session.begin()
                session.run(f"SELECT a, pg_sleep(0.05) FROM {WIDE}x")
                session.run("COMMIT")
        except Exception as error:
            errors.append(error)

    readers = [
        threading.Thread(target=read, args=(stage.session(f"reader {n}"),)) for n in range(4)
    ]
    for thread in readers:
        thread.start()
    try:
        stage.insert("x", "b", A, 2)
        until(partial(_has_after_a_pass, stage, 2))
    finally:
        stop.set()
        for thread in readers:
            thread.join()
    assert errors == []
    assert stage.damage("x") == []


def test_others_go_on_while_a_channel_waits(stage: Stage) -> None:
    """A long reader holds one ship's new channel up: its other rows and other ships don't wait."""
    for ship in ("x", "y"):
        stage.insert(ship, "a", A, 1)
        migrate(stage, ship=ship)
    reader = stage.session("reader")
    reader.begin()
    reader.run(f"SELECT a FROM {WIDE}x")
    stage.insert("x", "new", A, 5)
    stage.insert("x", "a", C, 7)
    stage.insert("y", "new", A, 6)
    stage.drain(3)
    assert channels(stage) == 1
    assert reader.run(f"SELECT a FROM {WIDE}x ORDER BY created_time") == [(1,), (7,)]
    assert stage.main.run(f'SELECT "new" FROM {WIDE}y') == [(6,)]
    reader.run("COMMIT")
    assert stage.damage("x", "y") == []
    assert channels(stage) == 2


@pytest.fixture
def worker(stage: Stage) -> Any:
    """The loop of `pymig worker`, polling every 100 ms."""
    thread = BackgroundWorker(stage.db.url, SOURCE)
    yield thread
    thread.stop()
    assert thread.error is None


def test_a_new_channel_in_under_a_second(stage: Stage, worker: BackgroundWorker) -> None:
    """From the commit of its first row to the cell; best of some tries (a busy machine)."""
    stage.main.run(MANY, "c", A, 300)
    migrate(stage)
    worker.start()
    took = []
    for n in range(3):
        began = time.monotonic()
        stage.insert("x", f"new{n}", A, n)
        until(partial(_is_there, stage, n))
        took.append(time.monotonic() - began)
    print(took)
    assert min(took) < 1


def test_a_new_ship_in_about_a_second(db: Database) -> None:
    """By the policy auto a small ship that begins to send is migrated by the worker at once."""
    stage = Stage(db, policy="auto")
    stage.insert("x", "a", A, 1)
    migrate(stage)
    worker = BackgroundWorker(db.url, SOURCE)
    worker.start()
    took = []
    try:
        for n in range(3):
            began = time.monotonic()
            stage.main.run(MANY.replace("'x'", f"'new{n}'"), "c", A, 100)
            until(partial(_is_backfilled, stage, f"new{n}"))
            took.append(time.monotonic() - began)
    finally:
        worker.stop()
    print(took)
    assert min(took) < 1.5
    assert stage.damage() == []


def test_nobody_waits_while_a_part_is_made(stage: Stage) -> None:
    """A part that is made after the rename would make every reader wait for it."""
    stage.main.run(MANY, "c", A, 1000)
    migrate(stage)
    stage.main.run(
        """
        CREATE FUNCTION race.pause_new_part() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM race.pause('made'); END $$;
        CREATE EVENT TRIGGER pause_new_part ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
            EXECUTE FUNCTION race.pause_new_part();
        """
    )
    stage.main.run(MANY, "more", B, 5)
    worker, reader = stage.session("worker"), stage.session("reader")
    with stage.held("worker", "made"):
        worker.start("CALL pymig.sync_pending()")
        stage.stopped(worker)
        reader.run("SET lock_timeout = '100ms'")
        assert reader.run(f"SELECT c7 FROM {WIDE}x") == [(7.0,)]
        # Had it the lock that the rename takes, this reader would fail:
        with pytest.raises(psycopg.errors.LockNotAvailable), stage.main.conn.transaction():
            stage.main.run(f"LOCK TABLE {WIDE}x")
            reader.run(f"SELECT c7 FROM {WIDE}x")
    worker.finish()
    assert stage.damage("x") == []
