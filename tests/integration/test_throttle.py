"""What makes history wait, caused for real: it stops, ingest goes on, and it goes on by itself."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from pymig import disk
from pymig.db import Session
from pymig.install import install
from pymig.migrate import Options, migrate_ships
from pymig.progress import QuietProgress
from pymig.server import Cluster
from tests.conftest import Database, _binaries
from tests.oracle import Narrow, difference
from tests.physical_copy import PhysicalCopy
from tests.waiting import until

CREATE: LiteralString = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', t
FROM unnest('{X,Y}'::text[]) AS s, generate_series(1, 5) AS c, generate_series(1, 300) AS t;
ANALYZE n;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}')
"""
NARROW = Narrow("n", "n", "ship", "ch", "ts", ("d",))
SETTINGS = {
    "archive_mode": "on",
    "archive_command": "true",
    "shared_buffers": "32MB",
    "autovacuum_naptime": "1s",
    "autovacuum_freeze_max_age": "100000",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}
Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def server(server_folder: Path) -> Iterator[Cluster]:
    """A server with an archive, and an autovacuum that is in a hurry."""
    server = Cluster(server_folder / "throttle", fast=True, settings=SETTINGS, binaries=_binaries())
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def own(server: Cluster, database_names: Iterator[str]) -> Iterator[Database]:
    """A database there, with a source."""
    name = f"throttle_{next(database_names)}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        install(server.url(name))
        with ExitStack() as cleanup:
            database = Database(name, server, cleanup)
            _create(database.connect())
            yield database
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create(conn: Connection) -> None:
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())


def _only(conn: Connection, condition: str, limit: float) -> None:
    """Nothing else is looked at: what other tests do on this server says nothing here."""
    conn.execute("UPDATE pymig.throttle SET max_value = NULL, checked_at = NULL, value = NULL")
    conn.execute("CALL pymig.set_throttle(%s, %s)", [condition, limit])


def _step(conn: Connection) -> tuple[str, str | None]:
    row = conn.execute("SELECT outcome, held_up_by FROM pymig.backfill_chunk('X')").fetchone()
    assert row
    return row[0], row[1]


def _write(conn: Connection) -> None:
    """Bytes for the WAL: full of what doesn't compress."""
    conn.execute("CREATE TABLE IF NOT EXISTS bulk (t text)")
    conn.execute(
        "INSERT INTO bulk SELECT string_agg(md5(g::text), '') FROM generate_series(1, 40000) AS g, generate_series(1, 4) AS h GROUP BY g % 400"
    )


class Condition:
    """A condition, its limit, and how it comes about and goes away."""

    def __init__(self, db: Database, cleanup: ExitStack) -> None:
        self.db = db
        self.cleanup = cleanup
        self.conn = db.connect()

    limit = 0.0

    def cause(self) -> None:
        """Bring it about."""

    def end(self) -> None:
        """Take it away."""


class ReplicaLag(Condition):
    """A standby that does not replay."""

    limit = 1e6

    def cause(self) -> None:
        primary = self.db.cluster
        self.standby = PhysicalCopy(
            primary.root.parent / "lagging",
            fast=True,
            settings={**SETTINGS, "archive_mode": "off"},
            binaries=_binaries(),
        )
        self.cleanup.callback(self.standby.remove)
        self.standby.follow(primary)
        self._there("SELECT pg_wal_replay_pause()")
        _write(self.conn)

    def end(self) -> None:
        self._there("SELECT pg_wal_replay_resume()")

    def _there(self, statement: LiteralString) -> None:
        with psycopg.connect(self.standby.url(self.db.name), autocommit=True) as conn:
            conn.execute(statement)


class WalKeptBySlots(Condition):
    """A slot nobody reads."""

    limit = 1e6

    def cause(self) -> None:
        self.conn.execute("SELECT pg_create_physical_replication_slot('idle', true)")
        self.cleanup.callback(
            lambda: self.conn.execute(
                "SELECT pg_drop_replication_slot(s.slot_name) FROM pg_replication_slots AS s WHERE s.slot_name = 'idle'"
            )
        )
        _write(self.conn)

    def end(self) -> None:
        self.conn.execute("SELECT pg_drop_replication_slot('idle')")


class ArchiverBacklog(Condition):
    """An archive_command that fails."""

    limit = 1

    def cause(self) -> None:
        self._command("false")
        for _ in range(3):
            _write(self.conn)
            self.conn.execute("SELECT pg_switch_wal()")

    def end(self) -> None:
        self._command("true")

    def _command(self, command: str) -> None:
        self.conn.execute(sql.SQL("ALTER SYSTEM SET archive_command = {}").format(command))
        self.conn.execute("SELECT pg_reload_conf()")


class WalRate(Condition):
    """Somebody writes."""

    limit = 1e6

    def cause(self) -> None:
        self._stop = threading.Event()
        url = self.db.url

        def write() -> None:
            with psycopg.connect(url, autocommit=True) as conn:
                while not self._stop.is_set():
                    _write(conn)

        self._thread = threading.Thread(target=write, daemon=True)
        self.cleanup.callback(self.end)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


class CheckpointPressure(Condition):
    """More WAL since the last checkpoint than a fiftieth of max_wal_size."""

    limit = 2

    def cause(self) -> None:
        self.conn.execute("CHECKPOINT")
        _write(self.conn)

    def end(self) -> None:
        self.conn.execute("CHECKPOINT")


class ActiveSessions(Condition):
    """Somebody works."""

    limit = 0

    def cause(self) -> None:
        self.sleeper = self.db.connect(application_name="other")
        self.pid = self.sleeper.info.backend_pid
        self._thread = threading.Thread(target=self._sleep, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.conn.execute("SELECT pg_cancel_backend(%s)", [self.pid])
        self._thread.join()

    def _sleep(self) -> None:
        with suppress(psycopg.errors.QueryCanceled):
            self.sleeper.execute("SELECT pg_sleep(600)")


class LockWaits(ActiveSessions):
    """Somebody waits for a lock."""

    limit = 0

    def cause(self) -> None:
        self.holder = self.db.connect(autocommit=False)
        self.holder.execute("SELECT pg_advisory_lock(1)")
        super().cause()

    def _sleep(self) -> None:
        with suppress(psycopg.errors.QueryCanceled):
            self.sleeper.execute("SELECT pg_advisory_lock(1)")


class OldestSnapshot(Condition):
    """A transaction that is left open."""

    limit = 1

    def cause(self) -> None:
        self.open = self.db.connect(autocommit=False)
        self.open.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.open.execute("SELECT count(*) FROM n")

    def end(self) -> None:
        self.open.rollback()


class IngestLatency(ActiveSessions):
    """A statement that writes the narrow table, and takes its time."""

    limit = 500

    def _sleep(self) -> None:
        with suppress(psycopg.errors.QueryCanceled):
            self.sleeper.execute("INSERT INTO n SELECT 'Z', 'c1', now(), 1 FROM pg_sleep(600)")


class Autovacuum(Condition):
    """Autovacuum at the narrow table, slowly."""

    def cause(self) -> None:
        self.conn.execute(
            "ALTER TABLE n SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,"
            " autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0)"
        )
        self.conn.execute("UPDATE n SET d = d WHERE ship = 'Y'")

    def end(self) -> None:
        # Its ALTER TABLE would wait for autovacuum, which goes out of the way of who waits.
        self.conn.execute("ALTER TABLE n SET (autovacuum_enabled = false)")


class AntiWraparoundVacuum(Condition):
    """A table that has to be frozen, and is large enough for that to take a while."""

    def cause(self) -> None:
        self.conn.execute(
            "CREATE TABLE old AS SELECT g, repeat('x', 500) FROM generate_series(1, 20000) AS g"
        )
        self.conn.execute(
            "ALTER TABLE old SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
        )
        self.conn.execute("CREATE TABLE burnt (i int)")
        self.conn.execute(
            "DO $$ BEGIN FOR i IN 1 .. 110000 LOOP BEGIN INSERT INTO burnt VALUES (i); EXCEPTION WHEN OTHERS THEN NULL; END;"
            " IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$"
        )

    def end(self) -> None:
        self.conn.execute("SET vacuum_cost_delay = 0")
        at_it = (
            "FROM pg_stat_activity AS a WHERE a.backend_type = 'autovacuum worker'"
            " AND a.datname = current_database()"
        )

        def frozen() -> bool:
            # Another one may have begun already, for which VACUUM would wait to its end; and one
            # that waits for VACUUM to end has read how slow it has to be.
            self.conn.execute(f"SELECT pg_terminate_backend(a.pid) {at_it}")
            self.conn.execute("VACUUM (FREEZE, SKIP_LOCKED) old")
            self.conn.execute("VACUUM (FREEZE, SKIP_LOCKED)")
            row = self.conn.execute(
                "SELECT age(d.datfrozenxid) < 100000 AND NOT EXISTS"
                f" (SELECT {at_it} AND a.query LIKE '%.old (%')"
                " FROM pg_database AS d WHERE d.datname = current_database()"
            ).fetchone()
            return row == (True,)

        until(frozen, "the database stays old")


class MaintenanceWindow(Condition):
    """A window that is shut."""

    def cause(self) -> None:
        self._window("1 h")

    def end(self) -> None:
        self._window("-1 h")

    def _window(self, after: str) -> None:
        # Two hours, beginning an hour from now or an hour ago.
        row = self.conn.execute(
            "SELECT format('SELECT pymig.outside_window(%%L, %%L, ''Asia/Seoul'')', (t.now + %s::interval)::time, (t.now + %s::interval + interval '2 h')::time)"
            " FROM (SELECT clock_timestamp() AT TIME ZONE 'Asia/Seoul') AS t (now)",
            [after, after],
        ).fetchone()
        assert row
        self.conn.execute("CALL pymig.set_throttle('maintenance window', 0, %s)", [row[0]])


class OwnCondition(Condition):
    """What a user asks for."""

    limit = 10

    def cause(self) -> None:
        self.conn.execute("CREATE TABLE mine AS SELECT 11 AS load")
        self.conn.execute(
            "CALL pymig.set_throttle('own condition', 10, 'SELECT load FROM public.mine', '%')"
        )

    def end(self) -> None:
        self.conn.execute("UPDATE mine SET load = 10")


CONDITIONS: dict[str, type[Condition]] = {
    "replica lag": ReplicaLag,
    "wal kept by slots": WalKeptBySlots,
    "archiver backlog": ArchiverBacklog,
    "wal rate": WalRate,
    "checkpoint pressure": CheckpointPressure,
    "active sessions": ActiveSessions,
    "lock waits": LockWaits,
    "oldest snapshot": OldestSnapshot,
    "ingest latency": IngestLatency,
    "autovacuum": Autovacuum,
    "anti-wraparound vacuum": AntiWraparoundVacuum,
    "maintenance window": MaintenanceWindow,
    "own condition": OwnCondition,
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_it_waits_and_goes_on(own: Database, name: str) -> None:
    """No chunk is moved while the condition holds; ingest and sync notice nothing; then the same command ends."""
    with ExitStack() as cleanup:
        conn = own.connect(application_name="pymig test")
        conn.execute("CALL pymig.start_sync('X')")
        condition = CONDITIONS[name](own, cleanup)
        if name == "own condition":
            condition.cause()
        _only(conn, name, condition.limit)
        if name != "own condition":
            condition.cause()

        def is_over() -> bool:
            row = conn.execute("SELECT pymig.look_at_throttle()").fetchone()
            return bool(row and (row[0] or "").startswith(f"{name} ("))

        until(is_over, f"{name} holds nothing up", 60)
        outcome, why = _step(conn)
        assert (outcome, (why or "").split(" (")[0]) == ("held", f"throttled: {name}")
        began = time.monotonic()
        conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-02-01', 1)")
        conn.execute("CALL pymig.sync_pending()")
        assert time.monotonic() - began < 2
        row = conn.execute("SELECT held_up_by FROM pymig.status WHERE entity = 'X'").fetchone()
        assert row and name in row[0]
        condition.end()
        until(lambda: not is_over(), f"{name} holds up for ever", 60)
        conn.execute("CALL pymig.backfill('X')")
        conn.execute("CALL pymig.verify('X')")
        assert difference(conn, NARROW, {"X"}) == []
        told = conn.execute(
            "SELECT what FROM pymig.event WHERE what LIKE '%throttled' ORDER BY event"
        ).fetchall()
        assert told[:2] == [("throttled",), ("no longer throttled",)]


def test_every_condition_is_tested(own: Database) -> None:
    """One that is added needs a test of its own."""
    rows = own.connect().execute("SELECT condition FROM pymig.throttle").fetchall()
    assert {name for (name,) in rows} == set(CONDITIONS) - {"own condition"} | {"disk used"}


def test_a_full_disk(own: Database) -> None:
    """A command on the server itself tells how full its disk is; what is old counts no more."""
    conn = own.connect()
    conn.execute("CALL pymig.start_sync('X')")
    _only(conn, "disk used", 0.001)
    assert _step(conn)[0] != "held", "nobody has told"
    with Session(own.url, "test") as session:
        session.run(disk.report)
        assert _step(conn)[0] == "held"
        _only(conn, "disk used", 99.999)
        session.run(disk.report)
        assert _step(conn)[0] != "held"
        _only(conn, "disk used", 0.001)
        session.run(disk.report)
        assert _step(conn)[0] == "held"
        conn.execute("UPDATE pymig.throttle SET checked_at = checked_at - interval '11 s'")
        assert _step(conn)[0] != "held"


def test_what_cant_be_measured_holds_nothing_up(own: Database) -> None:
    """It is said once, and stands in the table."""
    conn = own.connect()
    conn.execute("CALL pymig.start_sync('X')")
    conn.execute("CALL pymig.set_throttle('broken', 0, 'SELECT no_such_column FROM n')")
    conn.execute("CALL pymig.set_throttle('empty', 0, 'SELECT 1 WHERE false')")
    for _ in range(3):
        assert _step(conn)[0] != "held"
        conn.execute("UPDATE pymig.throttle SET checked_at = checked_at - interval '1 s'")
    row = conn.execute(
        "SELECT count(*) FROM pymig.event WHERE what = 'throttle not measured' AND detail LIKE 'broken:%'"
    ).fetchone()
    assert row == (1,)
    assert conn.execute(
        "SELECT error FROM pymig.throttle WHERE condition = 'broken'"
    ).fetchone() != (None,)


def test_a_limit_that_is_being_changed_keeps_nobody_waiting(own: Database) -> None:
    """An open transaction on the table holds up no chunk."""
    conn = own.connect()
    conn.execute("CALL pymig.start_sync('X')")
    with own.connect(autocommit=False) as other:
        other.execute("UPDATE pymig.throttle SET max_value = 0 WHERE condition = 'oldest snapshot'")
        conn.execute("SET lock_timeout = '1 s'")
        assert _step(conn)[0] != "held"
        other.rollback()


@pytest.mark.parametrize(
    ("at", "start", "end", "days", "expected"),
    [
        ("2024-01-03 23:00", "22:00", "06:00", "{3}", 0),  # a Wednesday
        ("2024-01-04 05:59:59", "22:00", "06:00", "{3}", 0),  # still Wednesday's
        ("2024-01-04 06:00", "22:00", "06:00", "{3}", 1),
        ("2024-01-03 05:00", "22:00", "06:00", "{3}", 1),  # Tuesday's
        ("2024-01-03 12:00", "09:00", "17:00", "{1,2,3,4,5}", 0),
        ("2024-01-06 12:00", "09:00", "17:00", "{1,2,3,4,5}", 1),
    ],
)
def test_windows(own: Database, at: str, start: str, end: str, days: str, expected: int) -> None:
    """By the clock of the time zone that is named; over midnight by the day it begins."""
    conn = own.connect()
    body = conn.execute("SELECT prosrc FROM pg_proc WHERE proname = 'outside_window'").fetchone()
    assert body
    text = body[0].replace("clock_timestamp()", "$5::timestamptz")
    for position, name in enumerate(["p_from", "p_to", "p_time_zone", "p_days"], 1):
        text = text.replace(name, f"${position}")
    conn.execute("SET TimeZone = 'Asia/Seoul'")
    conn.execute(f"PREPARE w (time, time, text, int[], timestamptz) AS {text}".encode())
    quoted = ", ".join(f"'{value}'" for value in (start, end, "Asia/Seoul", days, at))
    assert conn.execute(f"EXECUTE w ({quoted})".encode()).fetchone() == (expected,)


def test_paused_and_resumed(own: Database) -> None:
    """A migration under way waits, and its sync does not; who and when is recorded; it goes on by itself."""
    conn = own.connect()
    conn.execute("UPDATE pymig.throttle SET max_value = NULL")
    conn.execute("CALL pymig.start_sync('X')")
    conn.execute("CALL pymig.pause('X')")
    conn.execute("CALL pymig.pause('X')")
    report: list[Any] = []
    said: list[str] = []
    stop = threading.Event()

    def migrate() -> None:
        report.append(
            migrate_ships(
                own.url, "X", options=Options(source="n"), stop=stop, progress=_Said(said)
            )
        )

    thread = threading.Thread(target=migrate, daemon=True)
    thread.start()
    until(lambda: said, "the driver does not say that it waits")
    assert said[0].startswith("X: waits, paused by postgres since ")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-02-01', 7)")
    until(
        lambda: conn.execute("SELECT c1 FROM n_x WHERE ts = '2024-02-01'").fetchone() == ("7",),
        "sync waits, too",
    )
    assert conn.execute("SELECT count(*) FROM pymig.chunk WHERE state = 'done'").fetchone() == (0,)
    assert thread.is_alive()
    conn.execute("CALL pymig.resume('X')")
    thread.join(60)
    assert report and not report[0].failed
    assert said[1] == "X: goes on"
    assert difference(conn, NARROW, {"X"}) == []
    events = conn.execute(
        "SELECT what, who FROM pymig.event WHERE what IN ('paused', 'resumed') ORDER BY event"
    ).fetchall()
    assert events == [("paused", "postgres"), ("resumed", "postgres")]


def test_a_source_is_paused_as_a_whole(own: Database) -> None:
    """Also ships that come later; resumed as a whole nothing stays behind."""
    conn = own.connect()
    conn.execute("UPDATE pymig.throttle SET max_value = NULL")
    conn.execute("CALL pymig.start_sync('X')")
    conn.execute("CALL pymig.pause('X')")
    conn.execute("CALL pymig.pause()")
    conn.execute("CALL pymig.start_sync('Y')")
    query: LiteralString = "SELECT outcome FROM pymig.backfill_chunk(%s)"
    for ship in "XY":
        assert conn.execute(query, [ship]).fetchone() == ("held",)
    conn.execute("CALL pymig.resume()")
    for ship in "XY":
        assert conn.execute(query, [ship]).fetchone() != ("held",)
    conn.execute("CALL pymig.backfill('X')")
    conn.execute("CALL pymig.pause('X')")
    verifier = threading.Thread(
        target=lambda: own.connect().execute("CALL pymig.verify('X')"), daemon=True
    )
    verifier.start()
    verifier.join(1)
    assert verifier.is_alive()
    assert conn.execute("SELECT count(*) FROM pymig.verification").fetchone() == (0,)
    conn.execute("CALL pymig.resume('X')")
    verifier.join(30)
    assert conn.execute("SELECT state FROM pymig.entity WHERE entity = 'X'").fetchone() == (
        "verified",
    )
    with pytest.raises(psycopg.Error) as error:
        conn.execute("CALL pymig.pause('nowhere')")
    assert error.value.sqlstate == "PM002"
    with pytest.raises(psycopg.Error) as error:
        conn.execute("CALL pymig.set_throttle('nothing', 1)")
    assert error.value.sqlstate == "PM007"


def test_a_paused_ship_is_not_verified_again(own: Database) -> None:
    """Neither what changed nor what was compared long ago; the other ship is, and it too once resumed."""
    conn = own.connect()
    conn.execute("UPDATE pymig.throttle SET max_value = NULL")
    conn.execute("CALL pymig.set_verification(1)")
    for ship in "XY":
        conn.execute("CALL pymig.migrate(%s)", [ship])
    conn.execute("CALL pymig.pause('X')")
    conn.execute("UPDATE pymig.verification SET checked_at = checked_at - interval '1 day'")
    conn.execute("CALL pymig.reverify()")
    query: LiteralString = "SELECT count(*) FROM pymig.verification WHERE entity = %s AND checked_at > now() - interval '1 h'"
    assert conn.execute(query, ["X"]).fetchone() == (0,)
    assert conn.execute(query, ["Y"]).fetchone() != (0,)
    conn.execute("CALL pymig.resume('X')")
    conn.execute("UPDATE pymig.verification SET checked_at = checked_at - interval '1 day'")
    until(
        lambda: (
            conn.execute("CALL pymig.reverify()") and conn.execute(query, ["X"]).fetchone() != (0,)
        ),
        "it is never looked at again",
    )


def test_it_stops_within_two_seconds(own: Database) -> None:
    """Chunks that are under way end; no other is begun."""
    conn = own.connect()
    conn.execute("UPDATE pymig.throttle SET max_value = NULL")
    conn.execute("CALL pymig.set_chunk_target('1 us')")  # 300 chunks
    conn.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$"
    )
    conn.execute(
        "CREATE TRIGGER slow AFTER UPDATE ON pymig.chunk FOR EACH ROW WHEN (NEW.state = 'done') EXECUTE FUNCTION slow()"
    )
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: migrate_ships(own.url, "X", options=Options(source="n"), stop=stop),
        daemon=True,
    )
    thread.start()

    def done() -> Any:
        return conn.execute("SELECT count(*) FROM pymig.chunk WHERE state = 'done'").fetchone()

    until(lambda: done() > (1,), "nothing is moved")
    conn.execute("CALL pymig.set_throttle('own condition', 0, 'SELECT 1')")
    time.sleep(2)
    before = done()
    time.sleep(1)
    assert done() == before
    state = conn.execute("SELECT state FROM pymig.entity WHERE entity = 'X'").fetchone()
    assert state == ("syncing",), "it was done before: nothing is shown"
    conn.execute("DROP TRIGGER slow ON pymig.chunk")
    conn.execute("CALL pymig.set_chunk_target('1 s')")
    conn.execute("CALL pymig.set_throttle('own condition', NULL)")
    thread.join(60)
    assert not thread.is_alive()
    assert difference(conn, NARROW, {"X"}) == []


class _Said(QuietProgress):
    """A progress that keeps what is said."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Keep it."""
        self._said.append(sentence)
