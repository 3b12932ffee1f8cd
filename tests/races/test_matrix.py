"""T6: every style of writing, at every isolation level, whatever pymig does meanwhile.

A cell of the matrix is one database in which all styles (styles.py) are acted out one after the
other by a role that has rights on its own tables and none on pymig's. Afterwards the wide tables
equal the oracle's pivot, and the writer has met what it meets without pymig: the same number of
rows from each statement, the same errors, the same rows in the narrow table, no wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.races import styles
from tests.races.interleave import NARROW_TABLE, SOURCE, UNIQUE, WIDE, Session, Stage
from tests.races.scenarios import CHUNK, SYNC
from tests.races.styles import APPLICATION, HISTORY, MINUTES, ROLE, ROWS, STYLES, App, slots

LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
Left = tuple[list[styles.Outcome], list[tuple[Any, ...]]]


def prepare(conn: psycopg.Connection[Any]) -> None:
    """The application's schema and its history."""
    with suppress(psycopg.errors.DuplicateObject):
        conn.execute(f"CREATE ROLE {ROLE}")  # of all databases of the server
    conn.execute(APPLICATION)
    conn.execute(HISTORY, {"minutes": MINUTES, "styles": len(STYLES)})


def application(db: Database, level: str, single: bool) -> App:
    """The writer's session. A wait of a second is an error: nothing of pymig's may hold it up."""
    conn = db.connect(application_name="writer")
    for setting in ("lock_timeout = '1s'", "statement_timeout = '5s'", f"ROLE {ROLE}"):
        conn.execute(f"SET {setting}")
    conn.execute(f"SET default_transaction_isolation = '{level.lower()}'")
    app = App(conn, single, level)
    if single:
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM app.channel")  # the snapshot; touches no narrow row
    return app


def act(app: App, between: Callable[[], None] = lambda: None, truncate: bool = False) -> None:
    """All styles, and the end of the one transaction they may be in."""
    for slot, style in slots(app.single):
        app.do(slot, style)
        between()
    if truncate:
        app.do(0, styles.truncate_and_load)
    if app.single:
        app.conn.execute("COMMIT")


@pytest.fixture(scope="session")
def control(cluster: Any, database_names: Iterator[str]) -> Callable[[str, bool, bool], Left]:
    """What the writer meets without pymig, by isolation level and way; each is run once."""
    from tests.conftest import _database  # the fixture for one test, used here for a moment

    known: dict[tuple[str, bool, bool], Left] = {}

    def run(level: str, single: bool, truncate: bool) -> Left:
        key = (level, single, truncate)
        if key not in known:
            databases = _database(cluster, next(database_names), "template0")
            db = next(databases)
            conn = db.connect()
            conn.execute(NARROW_TABLE + UNIQUE)
            prepare(conn)
            app = application(db, level, single)
            act(app, truncate=truncate)
            assert app.errors == []
            known[key] = (app.outcomes, conn.execute(ROWS).fetchall())
            next(databases, None)
        return known[key]

    return run


class Cell:
    """One database with pymig and one application."""

    def __init__(self, db: Database, level: str, single: bool) -> None:
        self.stage = Stage(db)
        prepare(self.stage.main.conn)
        self.app = application(db, level, single)

    def migrate(self, backfill: bool = True) -> None:
        """Start both ships; x by the fastest strategy, y by another."""
        self.stage.start_sync("x", strategy="transpose")
        self.stage.start_sync("y", strategy="json")
        if backfill:
            for ship in "xy":
                self.stage.main.run("CALL pymig.backfill(%s)", ship)

    def set_direct(self) -> None:
        """Let the writer's own statements write the wide rows, and count how often they do."""
        self.stage.main.run("CREATE SEQUENCE race.merges")
        self.stage.patch("_merge_part", ("BEGIN", "BEGIN PERFORM nextval('race.merges');"))
        for ship in "xy":
            self.stage.main.run(
                "CALL pymig.set_sync(%s, 'direct', p_budget => interval '10 s')", ship
            )
        self.stage.drain()

    def session(self, name: str) -> Session:
        """One of pymig's."""
        return self.stage.session(name)

    def check(self, control: Callable[[str, bool, bool], Left], truncate: bool = False) -> None:
        """Equal, and unnoticed."""
        app, stage = self.app, self.stage
        outcomes, rows = control(app.isolation, app.single, truncate)
        assert app.errors == []
        assert app.outcomes == outcomes
        assert stage.main.run(ROWS) == rows
        assert stage.damage("x", "y") == []


Control = Callable[[str, bool, bool], Left]
level = pytest.mark.parametrize("level", LEVELS)
single = pytest.mark.parametrize("single", [False, True], ids=["many", "one"])


@level
def test_before_arming(db: Database, level: str, control: Control) -> None:
    """All of it is history."""
    cell = Cell(db, level, False)
    act(cell.app, truncate=True)
    cell.migrate()
    cell.check(control, truncate=True)


@level
def test_in_flight_while_arming(db: Database, level: str, control: Control) -> None:
    """A transaction with all styles is open when the source is armed, and commits then."""
    cell = Cell(db, level, True)
    app = cell.app
    for slot, style in slots(True):
        app.do(slot, style)
    starter = cell.session("starter")
    starter.start("CALL pymig.start_sync('x')")
    cell.stage.stopped(starter)
    app.conn.execute("COMMIT")
    starter.finish()
    cell.migrate()
    cell.check(control)


@level
@single
def test_while_a_chunk_is_in_flight(
    db: Database, level: str, single: bool, control: Control
) -> None:
    """A chunk has read; `one`: the writer's snapshot is older than the triggers."""
    cell = Cell(db, level, single)
    stage = cell.stage
    cell.migrate(backfill=False)
    for ship in "xy":
        stage.deal(ship)
    stage.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    chunk, worker = cell.session("chunk"), cell.session("worker")
    with stage.held("chunk", "reading"):
        chunk.start(CHUNK)
        stage.stopped(chunk)
        act(cell.app)
        worker.start(SYNC)
        stage.stopped_or_done(worker)
    chunk.finish()
    worker.finish()
    for ship in "xy":
        stage.main.run("CALL pymig.backfill(%s)", ship)
    cell.check(control)


@level
@single
def test_in_sync(db: Database, level: str, single: bool, control: Control) -> None:
    """The worker passes after every style."""
    cell = Cell(db, level, single)
    cell.migrate()
    worker = cell.session("worker")

    def one_pass() -> None:
        worker.run(SYNC)

    act(cell.app, one_pass, truncate=True)
    cell.check(control, truncate=True)


@single
def test_in_sync_directly(db: Database, single: bool, control: Control) -> None:
    """Its statements write the wide rows where they can; a worker passes after every style."""
    cell = Cell(db, "READ COMMITTED", single)
    cell.migrate()
    cell.set_direct()
    worker = cell.session("worker")

    def one_pass() -> None:
        worker.run(SYNC)

    act(cell.app, one_pass, truncate=True)
    assert cell.stage.main.value("SELECT last_value FROM race.merges") > 10
    cell.check(control, truncate=True)


@level
@single
def test_while_the_worker_has_read(
    db: Database, level: str, single: bool, control: Control
) -> None:
    """A worker has claimed and read keys that the writer changes again before it writes."""
    cell = Cell(db, level, single)
    stage = cell.stage
    cell.migrate()
    stage.main.run(
        f"INSERT INTO pymig.{SOURCE}_pending_1 SELECT DISTINCT ship_id, created_time"
        " FROM tenant.tbl_data_timeseries"
    )
    stage.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    worker, other = cell.session("worker"), cell.session("other")
    with stage.held("worker", "reading"):
        worker.start(SYNC)
        stage.stopped(worker)
        act(cell.app)
        other.start(SYNC)
        stage.stopped_or_done(other)  # it wants to add columns, and waits for the first
    worker.finish()
    other.finish()
    cell.check(control)


@level
@single
def test_while_verify_runs(db: Database, level: str, single: bool, control: Control) -> None:
    """Verification is inside its statement; it must raise no false alarm."""
    cell = Cell(db, level, single)
    stage = cell.stage
    cell.migrate()
    stage.patch(
        "_verify_sql",
        (
            "        SELECT t.filled::bigint AS",
            "        SELECT t.filled::bigint + CASE WHEN race.pause('inside') THEN 0 END AS",
        ),
    )
    verifier = cell.session("verifier")
    with stage.held("verifier", "inside"):
        verifier.start("CALL pymig.verify('x')")
        stage.stopped(verifier)
        act(cell.app)
    verifier.finish()
    cell.check(control)
    stage.main.run("CALL pymig.verify('x')")


def test_a_writer_that_waits_is_seen(db: Database, control: Control) -> None:
    """The matrix goes red where a trigger waits for a recomputer."""
    cell = Cell(db, "READ COMMITTED", False)
    stage = cell.stage
    cell.migrate()
    stage.patch(
        f"{SOURCE}_record_delete",
        ("BEGIN", f"BEGIN PERFORM pymig._lock_entity('{SOURCE}', 'x', false);"),
    )
    stage.keys.run(f"SELECT pg_advisory_lock(pymig._lock_key('entity', '{SOURCE}', 'x'))")
    cell.app.conn.execute("SET lock_timeout = '5ms'")
    act(cell.app)
    stage.keys.run("SELECT pg_advisory_unlock_all()")
    assert cell.app.errors
    with pytest.raises(AssertionError):
        cell.check(control)


def test_every_style_is_acted_out() -> None:
    """None is lost from the list, and none has no name of its own."""
    names = [style.__name__ for style in STYLES]
    assert len(set(names)) == len(names) > 35
    assert set(names) >= styles.ALONE
