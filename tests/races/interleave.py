"""Two or three sessions stepped by the test: pause points, blocked statements, mutations.

A pause point is a name. An actor (a connection whose application_name is the actor's) that comes
to a point stops there while the test holds it; everybody else, and everybody while nobody holds
it, passes. Points are laid by the test alone: as statement triggers on wide and catalog tables
(BEFORE INSERT fires when the snapshot of the INSERT … SELECT is already taken) or by patching a
function of the cloned database. Nothing here waits for time to pass: a statement counts as
stopped when pg_stat_activity says that its backend waits for a lock.
"""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

from tests.conftest import Database
from tests.oracle import Narrow, default_narrow, difference

SOURCE = "tbl_data_timeseries"
TABLE = "tenant.tbl_data_timeseries"
WIDE = "tenant.tbl_data_timeseries_"
DEADLINE = 20.0  # seconds until a statement that neither stops nor ends fails the test

PAUSES: LiteralString = """
CREATE SCHEMA race;
CREATE FUNCTION race.key(actor text, point text) RETURNS bigint LANGUAGE sql AS
    $$ SELECT hashtextextended(format('race %s at %s', actor, point), 0) $$;
CREATE FUNCTION race.pause(point text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_timeout text := current_setting('lock_timeout');
    v_key bigint := race.key(current_setting('application_name'), point);
BEGIN
    PERFORM set_config('lock_timeout', '0', true);
    PERFORM pg_advisory_lock_shared(v_key);
    PERFORM pg_advisory_unlock_shared(v_key);
    PERFORM set_config('lock_timeout', v_timeout, true);
    RETURN true;
END $$;
CREATE FUNCTION race.pause_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM race.pause(TG_ARGV[0]);
    RETURN NULL;
END $$;
"""
NARROW_TABLE: LiteralString = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text NOT NULL, data_channel_id text NOT NULL,
    created_time timestamp NOT NULL, server_created_time timestamp,
    bool_v bool, str_v text, long_v int8, double_v float8, value_format varchar(50));
"""
UNIQUE: LiteralString = "ALTER TABLE tenant.tbl_data_timeseries ADD PRIMARY KEY (ship_id, data_channel_id, created_time)"
NOT_UNIQUE: LiteralString = (
    "CREATE INDEX ON tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time)"
)
REGISTER: LiteralString = """
CALL pymig.register_source('tbl_data_timeseries', 'tenant.tbl_data_timeseries', 'ship_id',
    'data_channel_id', 'created_time', '{double_v,long_v,str_v,bool_v}', 'value_format',
    '{"Decimal":"double_v","Integer":"long_v","String":"str_v","Boolean":"bool_v"}',
    p_tie_break => %s::text[], p_new_entities => %s)
"""
PLAIN_END: LiteralString = "value_format varchar(50));"
PARTITIONED_END: LiteralString = "value_format varchar(50)) PARTITION BY RANGE (created_time);"
DAYS = range(1, 7)
INSERT: LiteralString = (
    "INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v,"
    " value_format) VALUES (%s, %s, %s::timestamp, %s, 'Integer')"
)
UPDATE: LiteralString = (
    "UPDATE tenant.tbl_data_timeseries SET long_v = %s"
    " WHERE ship_id = %s AND data_channel_id = %s AND created_time = %s::timestamp"
)
DELETE: LiteralString = (
    "DELETE FROM tenant.tbl_data_timeseries"
    " WHERE ship_id = %s AND data_channel_id = %s AND created_time = %s::timestamp"
)


class Session:
    """One connection with a name; statements can be left running while the test goes on."""

    def __init__(self, db: Database, actor: str, **kwargs: Any) -> None:
        self.actor = actor
        self.conn = db.connect(application_name=actor, prepare_threshold=None, **kwargs)
        self.pid = self.conn.info.backend_pid
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def run(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run a statement to its end."""
        cursor = self.conn.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *params: Any) -> Any:
        """The one value a query returns."""
        return self.run(statement, *params)[0][0]

    def begin(self, isolation: str = "READ COMMITTED") -> None:
        """Open a transaction."""
        self.run(f"BEGIN ISOLATION LEVEL {isolation}")

    def start(self, statement: str, *params: Any) -> None:
        """Run a statement in a thread."""

        def work() -> None:
            try:
                self.conn.execute(statement, params or None)
            except Exception as error:
                self._error = error

        assert self._thread is None, f"{self.actor} still runs"
        self._error = None
        self._thread = threading.Thread(target=work, name=self.actor, daemon=True)
        self._thread.start()

    def is_done(self) -> bool:
        """Whether the started statement has ended."""
        return self._thread is None or not self._thread.is_alive()

    def finish(self) -> None:
        """Wait for the started statement; raise what it raised."""
        assert self._thread is not None
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), f"{self.actor} hangs"
        self._thread = None
        if self._error is not None:
            raise self._error


class Stage:
    """A source on a fresh database, a director's connection, and the pause points."""

    def __init__(
        self,
        db: Database,
        *,
        unique: bool = True,
        policy: str = "ask",
        options: str = "",
        partitioned: bool = False,
    ) -> None:
        self.db, self.unique = db, unique
        self.options = {"options": options} if options else {}
        self.main = Session(db, "main")
        self.keys = Session(db, "holder")
        self.main.run("SET statement_timeout = '15s'")  # a scenario that hangs says where
        self.main.run(PAUSES)
        self.main.run(
            NARROW_TABLE.replace(PLAIN_END, PARTITIONED_END) if partitioned else NARROW_TABLE
        )
        for day in DAYS if partitioned else ():
            self.partition(day)
        self.main.run(UNIQUE if unique else NOT_UNIQUE)
        self.main.run(f"CREATE INDEX ON {TABLE} (created_time DESC)")
        self.main.run(REGISTER, [] if unique else ["id"], policy)

    @property
    def narrow(self) -> Narrow:
        """For the oracle."""
        return default_narrow(tie_break=() if self.unique else ("id",))

    def session(self, actor: str) -> Session:
        """A new connection of that name."""
        return Session(self.db, actor, **self.options)

    def partition(self, day: int, name: str = "") -> str:
        """A new partition for one day of March 2024; returns its name."""
        name = name or f"tenant.p{day}"
        self.main.run(f"CREATE TABLE {name} PARTITION OF {TABLE} {self.bounds(day)}")
        return name

    @staticmethod
    def bounds(day: int) -> str:
        """The partition bound of one day."""
        return f"FOR VALUES FROM ('2024-03-{day:02d}') TO ('2024-03-{day + 1:02d}')"

    # --- what happens in a narrow table ---------------------------------------------------------

    def insert(
        self, ship: str, channel: str, at: str, value: int | None, by: Session | None = None
    ) -> None:
        """One row."""
        (by or self.main).run(INSERT, ship, channel, at, value)

    def update(
        self, ship: str, channel: str, at: str, value: int | None, by: Session | None = None
    ) -> None:
        """Set the value of a row."""
        (by or self.main).run(UPDATE, value, ship, channel, at)

    def delete(self, ship: str, channel: str, at: str, by: Session | None = None) -> None:
        """Delete a row."""
        (by or self.main).run(DELETE, ship, channel, at)

    # --- what pymig is told ---------------------------------------------------------------------

    def start_sync(self, *ships: str, strategy: str = "json") -> None:
        """Start ships, without their history."""
        for ship in ships:
            self.main.run("CALL pymig.start_sync(%s, p_strategy => %s)", ship, strategy)

    def migrate(self, *ships: str, strategy: str = "json") -> None:
        """Start ships and move their history."""
        self.start_sync(*ships, strategy=strategy)
        for ship in ships:
            self.main.run("CALL pymig.backfill(%s)", ship)

    def deal(self, ship: str) -> None:
        """Deal the chunks, move none."""
        assert self.main.value("SELECT outcome FROM pymig.backfill_chunk(%s)", ship) == "dealt"

    def drain(self, passes: int = 6) -> None:
        """Passes of the worker until nothing is pending; keys that wait are due now."""
        for _ in range(passes):
            self.main.run(f"UPDATE pymig.{SOURCE}_todo SET retry_at = NULL WHERE retry_at > now()")
            self.main.run("CALL pymig.sync_pending()")
            if self.pending() == 0:
                return

    def pending(self) -> int:
        """Keys that are pending."""
        return int(self.main.value("SELECT count(*) FROM pymig.pending"))

    def damage(self, *ships: str) -> list[str]:
        """After draining: what the oracle and the queue say is wrong."""
        self.drain()
        lines = difference(self.main.conn, self.narrow, set(ships) or None)
        left = self.main.run(
            "SELECT p.* FROM pymig.pending AS p JOIN pymig.entity AS e USING (source, entity)"
            " WHERE e.state <> 'planned'"
        )
        return lines + [f"stays pending: {row}" for row in left]

    def wide(self, ship: str) -> list[tuple[Any, ...]]:
        """The rows of a wide table, in time order."""
        return self.main.run(f"SELECT * FROM {WIDE}{ship} ORDER BY 1")

    def bucket(self, at: str) -> int:
        """The bucket of a time."""
        return int(
            self.main.value(
                "SELECT pymig.bucket_of(pymig.tick_of(%s::timestamp), s.bucket_ticks)"
                " FROM pymig.source AS s",
                at,
            )
        )

    # --- stopping -------------------------------------------------------------------------------

    def point(self, table: str, event: str, point: str) -> None:
        """Lay a pause point before (or after) a statement on a table: 'BEFORE INSERT'."""
        self.main.run(
            f'CREATE TRIGGER "zz_{point}" {event} ON {table} FOR EACH STATEMENT'
            f" EXECUTE FUNCTION race.pause_trigger('{point}')"
        )
        self.main.run(f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER "zz_{point}"')

    @contextmanager
    def held(self, actor: str, point: str) -> Iterator[None]:
        """Who is called `actor` stops at `point` until this ends."""
        self.keys.run("SELECT pg_advisory_lock(race.key(%s, %s))", actor, point)
        try:
            yield
        finally:
            self.keys.run("SELECT pg_advisory_unlock(race.key(%s, %s))", actor, point)

    @contextmanager
    def bucket_held(self, ship: str, at: str) -> Iterator[None]:
        """The lock of a bucket, as another recomputer would hold it."""
        key = (
            "hashtextextended(format('pymig bucket %%L %%L %%s', %s::text, %s::text, %s::int8), 0)"
        )
        params = (SOURCE, ship, self.bucket(at))
        self.keys.run(f"SELECT pg_advisory_lock({key})", *params)
        try:
            yield
        finally:
            self.keys.run(f"SELECT pg_advisory_unlock({key})", *params)

    def is_stopped(self, session: Session) -> bool:
        """Whether its backend waits for a lock right now."""
        return bool(
            self.main.value(
                "SELECT wait_event_type IS NOT DISTINCT FROM 'Lock' AND state = 'active'"
                " FROM pg_stat_activity WHERE pid = %s",
                session.pid,
            )
        )

    def stopped_or_done(self, session: Session) -> bool:
        """Wait until a session waits for a lock (True) or has ended its statement (False)."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if self.is_stopped(session):
                return True
            if session.is_done():
                return False
        raise AssertionError(f"{session.actor} neither stops nor ends")

    def stopped(self, session: Session) -> None:
        """Wait until a session waits for a lock; its end before that is an error."""
        if not self.stopped_or_done(session):
            session.finish()
            raise AssertionError(f"{session.actor} ended instead of waiting")

    # --- mutations ------------------------------------------------------------------------------

    def patch(self, routine: str, *changes: tuple[str, str]) -> None:
        """Replace text in a routine of this database; every text must be there."""
        patch_routine(self.main.conn, routine, *changes)

    def kill(self, session: Session) -> None:
        """End its backend."""
        self.main.run("SELECT pg_terminate_backend(%s)", session.pid)


def patch_routine(conn: Any, routine: str, *changes: tuple[str, str]) -> None:
    """Replace text in a routine of the connection's database; every text must be there."""
    row = conn.execute(
        "SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p"
        " WHERE p.pronamespace = 'pymig'::regnamespace AND p.proname = %s",
        [routine],
    ).fetchone()
    definition = str(row[0])
    for old, new in changes:
        assert old in definition, f"{routine} has no {old!r}:\n{definition}"
        definition = definition.replace(old, new)
    conn.execute(definition)


def damage_without(
    stage: Stage, mutate: Callable[[Stage], None], scenario: Callable[[Stage], list[str]]
) -> list[str]:
    """Take a protection away and act its scenario out: the damage; an error counts as some."""
    mutate(stage)
    try:
        damage = scenario(stage)
    except psycopg.Error as error:
        damage = [str(error)]
    print(damage)
    return damage


def times(count: int, hour: int = 10) -> Sequence[str]:
    """So many minutes of one hour, that is of one bucket."""
    return [f"2024-03-02 {hour:02d}:{minute:02d}:00" for minute in range(count)]
