"""The ingest side of the stress: what applications do to a narrow table, all at once and badly.

Every writer blames itself for what is its own making (a unique violation, a deadlock among writers,
40001 above READ COMMITTED). Everything else, and whatever names pymig, is a failure of pymig.
"""

from __future__ import annotations

import random
import re
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from tests.oracle import Narrow, default_narrow

SCHEMA = "stress"
TABLE = "stress.samples"
SOURCE = "stress"
APP_ROLE = "pymig_stress_app"
SHIPS = ("imo9000001", 'O\'Neil "2"', "Größe %s {x}")
CHANNELS = (
    "/hs4sd_v1/ab/fuel/oil///use",
    "/hs4sd_v1/ab/fuel/oil///temp",
    'quo"te',
    "it's",
    "%(x)s %% {0}",
    "created_time",
    "ctid",
    "select",
    "Select",
    "漢字" * 20 + "a",
    "漢字" * 20 + "b",
    '"; DROP TABLE stress.samples; --',
)
Row = tuple[Any, ...]
COLUMNS = (
    "ship_id",
    "data_channel_id",
    "created_time",
    "server_created_time",
    "bool_v",
    "str_v",
    "long_v",
    "double_v",
    "value_format",
)
EXTREME_TIMES = (
    "infinity",
    "-infinity",
    "4000-01-01 00:00:00 BC",
    "290000-01-01 00:00:00",
    "1999-12-31 23:59:59.999999",
    "2024-03-31 02:30:00",
)
FORMATS = ("Decimal", "Integer", "String", "Boolean")
VALUE_COLUMN = {"Decimal": 7, "Integer": 6, "String": 5, "Boolean": 4}
FLOATS = (0.1 + 0.2, -0.0, float("nan"), float("inf"), -float("inf"), 5e-324, 1.7e308, 1.0, 1e22)
INTEGERS = (0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63))
STRINGS = ("", "NULL", "null", '{"a"}', "it's", "\\N", "\t\n", "😀", "\u0001", " ", "x" * 3000)

CREATE = """
CREATE SCHEMA stress;
CREATE TABLE stress.samples (
    id bigserial NOT NULL, ship_id text NOT NULL, data_channel_id text NOT NULL,
    created_time timestamp NOT NULL, server_created_time timestamp, bool_v bool, str_v text,
    long_v int8, double_v float8, value_format varchar(50));
CREATE INDEX ON stress.samples (created_time DESC);
GRANT USAGE ON SCHEMA stress TO pymig_stress_app;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON stress.samples TO pymig_stress_app;
GRANT USAGE ON SEQUENCE stress.samples_id_seq TO pymig_stress_app;
"""
HOURS = range(4)
LEAVES = (
    "".join(
        f"CREATE TABLE stress.h{h} PARTITION OF stress.samples"
        f" FOR VALUES FROM ('2024-01-01 0{h}:00') TO ('2024-01-01 0{h + 1}:00');"
        for h in HOURS
    )
    + """
CREATE TABLE stress.before PARTITION OF stress.samples
    FOR VALUES FROM (MINVALUE) TO ('2024-01-01 00:00');
CREATE TABLE stress.after PARTITION OF stress.samples
    FOR VALUES FROM ('2024-01-01 04:00') TO (MAXVALUE);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA stress TO pymig_stress_app;
"""
)
UNIQUE_KEY = "ALTER TABLE stress.samples ADD PRIMARY KEY (ship_id, data_channel_id, created_time)"
PLAIN_KEY = "CREATE INDEX ON stress.samples (ship_id, data_channel_id, created_time)"


def narrow(duplicates: bool) -> Narrow:
    """The description of the stress table for the oracle."""
    return default_narrow(TABLE, SOURCE, tie_break=("id",) if duplicates else ())


@dataclass
class World:
    """What all threads of one run share."""

    url: str
    seed: int
    duplicates: bool = False
    partitioned: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    failures: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    ships: list[str] = field(default_factory=lambda: list(SHIPS))
    channels: list[str] = field(default_factory=lambda: list(CHANNELS))
    recent: deque[Row] = field(default_factory=lambda: deque(maxlen=300))
    writer_pids: set[int] = field(default_factory=set)
    ddl_pids: set[int] = field(default_factory=set)
    slowest: float = 0.0
    truncate_at: float | None = None
    truncate_every: float | None = None
    excused_until: float = 0.0
    """Until then, on the monotonic clock, a lost connection is what the run itself did."""
    steady: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, message: str) -> None:
        """Note a failure; the run goes on so that its end state can be looked at too."""
        with self.lock:
            if message in self.failures or len(self.failures) < 30:
                self.failures[message] += 1

    def count(self, what: str, times: int = 1) -> None:
        """Count something for the report."""
        with self.lock:
            self.counts[what] += times

    def is_crash(self, error: psycopg.Error) -> bool:
        """Whether this is what any application gets while the run restarts the server."""
        state = error.sqlstate
        is_lost = isinstance(error, psycopg.OperationalError) and (
            state is None or state.startswith(("57P", "08"))
        )
        return is_lost and time.monotonic() < self.excused_until

    def rng(self, name: str) -> random.Random:
        """A generator of this run's seed for one thread."""
        return random.Random(f"{self.seed}-{name}")


def create_table(conn: psycopg.Connection[Any], world: World) -> None:
    """Create and fill the narrow table, and the plain role that writes it."""
    with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        conn.execute(f"CREATE ROLE {APP_ROLE}")  # shared by all databases of the server
    if world.partitioned:
        conn.execute(
            CREATE.replace("varchar(50));", "varchar(50)) PARTITION BY RANGE (created_time);")
        )
        conn.execute(LEAVES)
    else:
        conn.execute(CREATE)
    conn.execute(PLAIN_KEY if world.duplicates else UNIQUE_KEY)
    rng = world.rng("history")
    rows = {}
    for number in range(3000):
        row = make_row(world, rng)
        rows[(number % 5 if world.duplicates else 0, *row[:3])] = row
    with conn.cursor() as cursor:
        _copy(cursor, list(rows.values()))
    conn.execute("ANALYZE stress.samples")
    world.steady = False


def make_time(rng: random.Random) -> str:
    """Mostly one of some hundred times of few hours, so that writers and chunks collide."""
    kind = rng.random()
    if kind < 0.02:
        return rng.choice(EXTREME_TIMES)
    if kind < 0.06:
        return f"2023-12-{rng.randint(28, 31)} 12:00:{rng.randint(0, 59):02d}"
    tick = rng.randrange(240) if kind < 0.8 else rng.randrange(240, 300)  # the latest is hot
    hours, seconds = divmod(tick * 45, 3600)
    return f"2024-01-01 {hours:02d}:{seconds // 60:02d}:{seconds % 60:02d}"


def make_value(rng: random.Random, fmt: str) -> Any:
    """A value of that format, often an awkward one."""
    if fmt == "Decimal":
        return rng.choice(FLOATS) if rng.random() < 0.4 else rng.uniform(-1e6, 1e6)
    if fmt == "Integer":
        return rng.choice(INTEGERS) if rng.random() < 0.4 else rng.randint(-1000, 1000)
    if fmt == "String":
        return rng.choice(STRINGS) if rng.random() < 0.4 else f"s{rng.randint(0, 99)}"
    return rng.random() < 0.5


def make_row(
    world: World, rng: random.Random, ship: str | None = None, channel: str | None = None
) -> Row:
    """One narrow row; a few are bad: another format than usual, unknown, none, value elsewhere."""
    ship = ship or rng.choice(world.ships)
    channel = channel or rng.choice(world.channels)
    usual = FORMATS[sum(channel.encode()) % 4]
    # Two channels of three are steady in the history, so that they get a native type of their own.
    drift = 0.0 if world.steady and zlib.crc32(channel.encode()) % 3 else 0.05
    fmt: str | None = usual if rng.random() >= drift else rng.choice(FORMATS)
    values: list[Any] = [None] * 4
    kind = rng.random()
    if kind > 0.04:
        values[VALUE_COLUMN[fmt or usual] - 4] = make_value(rng, fmt or usual)
    if kind > 0.96:
        fmt = rng.choice(["Strange", None, "", usual if world.steady else rng.choice(FORMATS)])
    return (ship, channel, make_time(rng), "2024-01-01 00:00:00", *values, fmt)


_SLOTS = (
    "(%s::text, %s::text, %s::timestamp, %s::timestamp, %s::bool, %s::text, %s::int8, %s::float8,"
    " %s::varchar)"
)
_LIST = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO {TABLE} ({_LIST}) VALUES "
_SET = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[3:])
_CONFLICT = " ON CONFLICT (ship_id, data_channel_id, created_time) DO "
_KEY_MATCH = " AND ".join(f"t.{name} = s.{name}" for name in COLUMNS[:3])
_MERGE = (
    f"MERGE INTO {TABLE} t USING (VALUES {{}}) s ({_LIST}) ON {_KEY_MATCH}"
    " WHEN MATCHED AND s.long_v % 2 = 0 THEN DELETE"
    " WHEN MATCHED THEN UPDATE SET double_v = s.double_v, value_format = s.value_format"
    f" WHEN NOT MATCHED THEN INSERT ({_LIST}) VALUES ("
    + ", ".join(f"s.{name}" for name in COLUMNS)
    + ")"
)


def _copy(cursor: psycopg.Cursor[Any], rows: list[Row]) -> None:
    with cursor.copy(f"COPY {TABLE} ({_LIST}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


class Writer(threading.Thread):
    """One application session after another until the world stops."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.world, self.number = world, number
        self.rng = world.rng(self.name)
        self.superuser = number == 0
        self.isolation = self.default_isolation = ""
        self.doing = ""
        self.ops: list[tuple[float, Callable[[psycopg.Cursor[Any]], None]]] = [
            (20, self.insert_rows),
            (8, self.copy_rows),
            (14, self.update_values),
            (6, self.update_to_null),
            (8, self.update_key),
            (10, self.delete_rows),
            (3, self.delete_range),
            (2, self.update_range),
            (0.8, self.add_channel),
            (0.4, self.add_ship),
            (1, self.nothing),
        ]
        if world.partitioned:
            self.ops.append((12, self.insert_direct))
        if not world.duplicates:
            self.ops += [(10, self.upsert), (5, self.insert_ignore), (6, self.merge)]

    def run(self) -> None:
        try:
            while not self.world.stop.is_set():
                try:
                    self._session()
                except psycopg.Error as error:
                    if not self.world.is_crash(error):
                        raise
                    time.sleep(0.05)
        except Exception as error:
            self.world.fail(f"{self.name} ({self.doing}): {error!r}")

    def _session(self) -> None:
        rng = self.rng
        with psycopg.connect(self.world.url, autocommit=True, prepare_threshold=None) as conn:
            with self.world.lock:
                self.world.writer_pids.add(conn.info.backend_pid)
            conn.execute("SET application_name = 'stress writer'")
            conn.execute("SET deadlock_timeout = '60ms'")
            conn.execute("SET statement_timeout = '20s'")
            for setting in rng.sample(SESSION_SETTINGS, rng.randint(0, 2)):
                conn.execute(setting)
            row = conn.execute("SHOW default_transaction_isolation").fetchone()
            self.default_isolation = str(row and row[0]).upper()
            if not self.superuser:
                conn.execute(f"SET ROLE {APP_ROLE}")
            for _ in range(rng.randint(5, 60)):
                if self.world.stop.is_set():
                    return
                self._transaction(conn)

    def _transaction(self, conn: psycopg.Connection[Any]) -> None:
        rng, cursor = self.rng, conn.cursor()
        self.isolation = rng.choices(
            ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"], [6, 2, 2]
        )[0]
        try:
            if rng.random() < 0.3:  # autocommit, as most loggers do
                self.isolation = self.default_isolation
                self._op(cursor, autocommit=True)
            else:
                self._execute(cursor, f"BEGIN ISOLATION LEVEL {self.isolation}")
                if self.superuser and rng.random() < 0.15:
                    self._execute(cursor, "SET LOCAL session_replication_role = replica")
                for _ in range(rng.randint(1, 5)):
                    self._op(cursor)
                    self._pause(0.01)
                self._end(cursor)
        except psycopg.Error as error:
            self._blame(error)
            if conn.closed:
                raise
            conn.execute("ROLLBACK")
        self._pause(0.02)

    def _pause(self, longest: float) -> None:
        if self.rng.random() < 0.5:
            time.sleep(self.rng.random() * longest)

    def _end(self, cursor: psycopg.Cursor[Any]) -> None:
        kind = self.rng.random()
        if kind < 0.02:
            time.sleep(self.rng.random() * 0.4)  # a slow transaction: its keys come late
        if 0.82 <= kind < 0.94:
            self._execute(cursor, "ROLLBACK")
            self.world.count("rollbacks")
        elif kind >= 0.94 and self.world.counts["2pc off"] == 0:
            gid = f"stress-{self.world.seed}-{self.number}-{self.rng.getrandbits(48):x}"
            self._execute(cursor, f"PREPARE TRANSACTION '{gid}'")
            self.world.count("prepared")
        else:
            self._execute(cursor, "COMMIT")
            self.world.count("commits")

    def _op(self, cursor: psycopg.Cursor[Any], autocommit: bool = False) -> None:
        rng = self.rng
        truncate_at = self.world.truncate_at
        if autocommit and truncate_at is not None and time.monotonic() > truncate_at:
            every = self.world.truncate_every
            self.world.truncate_at = time.monotonic() + every if every else None
            self.truncate(cursor)
            return
        operation = rng.choices([op for _, op in self.ops], [weight for weight, _ in self.ops])[0]
        self.world.count(f"op {operation.__name__}")
        if autocommit or rng.random() < 0.5:
            operation(cursor)
            if autocommit:
                self.world.count("commits")
            return
        self._execute(cursor, "SAVEPOINT s")
        try:
            operation(cursor)
        except psycopg.Error as error:
            self._blame(error)
            if error.sqlstate in ("40001", "40P01"):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT s")
            return
        if rng.random() < 0.3:
            self._execute(cursor, "ROLLBACK TO SAVEPOINT s")
        elif rng.random() < 0.5:
            self._execute(cursor, "RELEASE SAVEPOINT s")

    def _execute(
        self, cursor: psycopg.Cursor[Any], query: str, params: list[Any] | None = None
    ) -> None:
        if self.world.partitioned and self.rng.random() < 0.3:  # straight into a partition
            leaf = f"stress.h{self.rng.choice(HOURS)}"
            for verb in ("UPDATE", "DELETE FROM"):
                query = query.replace(f"{verb} {TABLE}", f"{verb} {leaf}")
        self.doing = query[:120]
        start = time.monotonic()
        try:
            cursor.execute(query, params)
        finally:
            took = time.monotonic() - start
            self.world.count("statements")
            if took > self.world.slowest:
                self.world.slowest = took

    def _blame(self, error: psycopg.Error) -> None:
        """Our own fault is counted; pymig's is a failure."""
        if getattr(error, "blamed", False):
            return
        error.blamed = True  # type: ignore[attr-defined]
        if self.world.is_crash(error):
            self.world.count("statements cut off by a crash")
            return
        diag = error.diag
        said = " ".join(
            str(part)
            for part in (diag.message_primary, diag.context, diag.schema_name, diag.table_name)
        )
        ours = "pymig" in said
        state = error.sqlstate or "lost connection"
        own = False
        if state == "40001":
            # At READ COMMITTED only where a row moved to another partition meanwhile.
            own = self.isolation == "SERIALIZABLE" or (
                not ours and (self.isolation == "REPEATABLE READ" or self.world.partitioned)
            )
            if ours:
                state = "40001 seen in the trigger"
        elif state == "40P01":
            pids = {int(pid) for pid in re.findall(r"rocess (\d+)", diag.message_detail or "")}
            # DETACH against who wrote into a partition and goes on through the table is a deadlock
            # of the application's own, whoever else waits there.
            own = not ours and (pids <= self.world.writer_pids or bool(pids & self.world.ddl_pids))
        elif state in ("23505", "21000"):
            own = not ours and diag.schema_name in (SCHEMA, None)
        elif self.world.partitioned and state in ("23514", "42P01", "XX000"):
            # No such partition, or not of this one; and what PostgreSQL says of ON CONFLICT while
            # a partition comes or goes (seen without pymig, too).
            own = not ours and (state != "XX000" or "arbiter index" in said)
        elif state == "55P03":
            own = not ours and self.doing.startswith("TRUNCATE")
        self.world.count(f"own error {state}" if own else f"FOREIGN error {state}")
        if not own:
            self.world.fail(
                f"{self.name} at {self.isolation}: {state} {diag.message_primary or error}"
                f" | detail {diag.message_detail} | context {where(error)} | {self.doing}"
            )

    # --- operations -----------------------------------------------------------------------------

    def _rows(self, most: int, known: bool = False) -> list[Row]:
        """Some rows with different keys, of one ship or of several; `known`: keys seen before."""
        ship = self.rng.choice(self.world.ships) if self.rng.random() < 0.6 else None
        rows = {}
        for _ in range(self.rng.randint(1, most)):
            row = make_row(self.world, self.rng, ship)
            if known and self.world.recent and self.rng.random() < 0.3:
                row = (*self.rng.choice(self.world.recent), *row[3:])
            rows[row[:3]] = row
        self.world.recent.extend(rows)
        return list(rows.values())

    def _insert(self, cursor: psycopg.Cursor[Any], rows: list[Row], tail: str = "") -> None:
        slots = ", ".join([_SLOTS] * len(rows))
        self._execute(cursor, _INSERT + slots + tail, [value for row in rows for value in row])

    def insert_rows(self, cursor: psycopg.Cursor[Any]) -> None:
        """One row or many; a known key is a unique violation of our own."""
        self._insert(cursor, self._rows(self.rng.choice([1, 1, 3]), self.world.duplicates))

    def upsert(self, cursor: psycopg.Cursor[Any]) -> None:
        """ON CONFLICT DO UPDATE, sometimes with a condition that skips."""
        where = " WHERE excluded.double_v IS NOT NULL" if self.rng.random() < 0.2 else ""
        self._insert(cursor, self._rows(12, known=True), f"{_CONFLICT}UPDATE SET {_SET}{where}")

    def insert_ignore(self, cursor: psycopg.Cursor[Any]) -> None:
        """ON CONFLICT DO NOTHING."""
        self._insert(cursor, self._rows(12, known=True), f"{_CONFLICT}NOTHING")

    def merge(self, cursor: psycopg.Cursor[Any]) -> None:
        """Insert, update and delete in one statement."""
        rows = self._rows(8, known=True)
        slots = ", ".join([_SLOTS] * len(rows))
        self._execute(cursor, _MERGE.format(slots).replace("_v % 2", "_v %% 2"), _flat(rows))

    def copy_rows(self, cursor: psycopg.Cursor[Any]) -> None:
        """COPY, mostly of times nobody else has, so that it mostly succeeds."""
        rows = [
            (*row[:2], f"2024-01-01 {self.rng.randrange(5):02d}:00:00.{n:06d}", *row[3:])
            for row, n in (
                (row, self.rng.randrange(10**6)) for row in self._rows(self.rng.choice([5, 40]))
            )
        ]
        self.doing = "COPY"
        _copy(cursor, rows)
        self.world.count("copies")

    def _key(self) -> list[Any]:
        return [self.rng.choice(self.world.ships), self.rng.choice(self.world.channels)]

    def _span(self, minutes: int) -> list[Any]:
        start = self.rng.randrange(225)
        return [f"2024-01-01 {start // 60:02d}:{start % 60:02d}:00", f"{minutes} minutes"]

    _WHERE = (
        " WHERE ship_id = %s AND data_channel_id = %s"
        " AND created_time >= %s AND created_time < %s::timestamp + %s::interval"
    )

    def _where(self, minutes: int) -> list[Any]:
        start, span = self._span(minutes)
        return [*self._key(), start, start, span]

    def insert_direct(self, cursor: psycopg.Cursor[Any]) -> None:
        """Rows straight into the partition of an hour, whether it is attached or not."""
        hour = self.rng.choice(HOURS)
        rows = [
            (*row[:2], f"2024-01-01 0{hour}:00:00.{self.rng.randrange(10**6):06d}", *row[3:])
            for row in self._rows(self.rng.choice([1, 3, 12]))
        ]
        slots = ", ".join([_SLOTS] * len(rows))
        self._execute(cursor, _INSERT.replace(TABLE, f"stress.h{hour}") + slots, _flat(rows))
        self.world.count("direct inserts")

    def update_values(self, cursor: psycopg.Cursor[Any]) -> None:
        """Corrections of values, with or without their format."""
        _, _, _, _, *values, fmt = make_row(self.world, self.rng)
        self._execute(
            cursor,
            f"UPDATE {TABLE} SET bool_v = %s, str_v = %s, long_v = %s, double_v = %s,"
            f" value_format = %s {self._WHERE}",
            [*values, fmt, *self._where(8)],
        )

    def update_to_null(self, cursor: psycopg.Cursor[Any]) -> None:
        """Values that become NULL: the cell must too."""
        self._execute(
            cursor,
            f"UPDATE {TABLE} SET bool_v = NULL, str_v = NULL, long_v = NULL, double_v = NULL"
            f" {self._WHERE}",
            self._where(8),
        )

    def update_key(self, cursor: psycopg.Cursor[Any]) -> None:
        """Time, ship or channel changed: the old cell goes, the new one comes."""
        change, params = self.rng.choice(
            [
                ("created_time = created_time + %s::interval", ["00:00:00.5"]),
                ("created_time = created_time - %s::interval", ["1 hour 45 seconds"]),
                ("created_time = %s", [make_time(self.rng)]),
                ("ship_id = %s", [self.rng.choice(self.world.ships)]),
                ("data_channel_id = %s", [self.rng.choice(self.world.channels)]),
                ("ship_id = %s, data_channel_id = %s", self._key()),
            ]
        )
        self._execute(
            cursor, f"UPDATE {TABLE} SET {change} {self._WHERE}", [*params, *self._where(3)]
        )

    def delete_rows(self, cursor: psycopg.Cursor[Any]) -> None:
        """Some samples of one channel, or every row of one extreme time."""
        if self.rng.random() < 0.1:
            self._execute(
                cursor, f"DELETE FROM {TABLE} WHERE created_time = %s", [make_time(self.rng)]
            )
        else:
            self._execute(cursor, f"DELETE FROM {TABLE} {self._WHERE}", self._where(6))

    def delete_range(self, cursor: psycopg.Cursor[Any]) -> None:
        """A ship's samples of some minutes: whole wide rows go."""
        start, span = self._span(self.rng.choice([3, 12]))
        self._execute(
            cursor,
            f"DELETE FROM {TABLE} WHERE ship_id = %s"
            " AND created_time >= %s AND created_time < %s::timestamp + %s::interval",
            [self.rng.choice(self.world.ships), start, start, span],
        )

    def update_range(self, cursor: psycopg.Cursor[Any]) -> None:
        """One statement over all ships and channels."""
        start, span = self._span(3)
        self._execute(
            cursor,
            f"UPDATE {TABLE} SET str_v = 'range', value_format = 'String'"
            " WHERE created_time >= %s AND created_time < %s::timestamp + %s::interval",
            [start, start, span],
        )

    def add_channel(self, cursor: psycopg.Cursor[Any]) -> None:
        """A channel nobody has seen, from now on used by all writers."""
        if len(self.world.channels) < 40:
            channel = f"new/{self.rng.getrandbits(20):x}"
            self._insert(cursor, [make_row(self.world, self.rng, channel=channel)])
            self.world.channels.append(channel)
            self.world.count("new channels")

    def add_ship(self, cursor: psycopg.Cursor[Any]) -> None:
        """A ship nobody has seen, from now on used by all writers."""
        if len(self.world.ships) < 5:
            ship = f"New ship {self.rng.getrandbits(20):x}"
            self._insert(cursor, [make_row(self.world, self.rng, ship)])
            self.world.ships.append(ship)
            self.world.count("new ships")

    def nothing(self, cursor: psycopg.Cursor[Any]) -> None:
        """A statement that touches no row."""
        self._execute(cursor, f"DELETE FROM {TABLE} WHERE false")

    def truncate(self, cursor: psycopg.Cursor[Any]) -> None:
        """Everything gone, at once."""
        self._execute(cursor, "SET lock_timeout = '2s'")
        try:
            self._execute(cursor, f"TRUNCATE {TABLE}")
            self.world.count("truncates")
        finally:
            cursor.execute("RESET lock_timeout")


def where(error: psycopg.Error) -> str:
    """The routines an error came through, innermost first, without their statements."""
    found = re.findall(r"PL/pgSQL function (\S+?)\(.*?\) line (\d+)", error.diag.context or "")
    routines = [f"{name} line {line}" for name, line in found]
    return " < ".join(routines) or str(error.diag.context)


def _flat(rows: list[Row]) -> list[Any]:
    return [value for row in rows for value in row]


SESSION_SETTINGS: list[sql.SQL] = [
    sql.SQL("SET DateStyle = 'SQL, DMY'"),
    sql.SQL("SET TimeZone = 'Asia/Kolkata'"),
    sql.SQL("SET extra_float_digits = 0"),
    sql.SQL("SET search_path = ''"),
    sql.SQL("SET enable_seqscan = off"),
    sql.SQL("SET enable_indexscan = off"),
    sql.SQL("SET IntervalStyle = 'iso_8601'"),
    sql.SQL("SET default_transaction_isolation = 'serializable'"),
    sql.SQL("SET plan_cache_mode = 'force_generic_plan'"),
    sql.SQL("SET client_encoding = 'UTF8'"),
]


class Sampler(Writer):
    """Sample sets of channels of its own, in two buckets without a fault, as a direct ship has."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.ops = [(10, self.sample), (4, self.correct), (1, self.drop)]

    def _key(self) -> list[Any]:
        return [self.rng.choice(SHIPS), f"sampler {self.number} {self.rng.randrange(4)}"]

    def _second(self) -> str:
        return f"2024-02-01 0{self.rng.randrange(2)}:00:{self.rng.randrange(40):02d}"

    def sample(self, cursor: psycopg.Cursor[Any]) -> None:
        """All channels of one or two times, once more than once."""
        ship = self.rng.choice(SHIPS)
        rows = [
            (ship, f"sampler {self.number} {n}", at, None, None, None, value, None, "Integer")
            for at in {self._second(), self._second()}
            for n, value in enumerate(self.rng.choices(INTEGERS, k=self.rng.randint(1, 4)))
        ]
        self._insert(cursor, rows, f"{_CONFLICT}UPDATE SET {_SET}")

    def correct(self, cursor: psycopg.Cursor[Any]) -> None:
        """One value, or one channel of many times."""
        clause = " AND created_time = %s" if self.rng.random() < 0.7 else ""
        self._execute(
            cursor,
            f"UPDATE {TABLE} SET long_v = {self.rng.randrange(99)}"
            f" WHERE ship_id = %s AND data_channel_id = %s{clause}",
            [*self._key(), *([self._second()] if clause else [])],
        )

    def drop(self, cursor: psycopg.Cursor[Any]) -> None:
        """One row."""
        self._execute(
            cursor,
            f"DELETE FROM {TABLE}"
            " WHERE ship_id = %s AND data_channel_id = %s AND created_time = %s",
            [*self._key(), self._second()],
        )


class Resolver(threading.Thread):
    """Ends prepared transactions a little later, either way; outlives the writers."""

    def __init__(self, world: World) -> None:
        super().__init__(name="resolver", daemon=True)
        self.world, self.rng = world, world.rng("resolver")
        self.done = threading.Event()

    def run(self) -> None:
        try:
            while not self.done.is_set():
                try:
                    with psycopg.connect(self.world.url, autocommit=True) as conn:
                        conn.execute("SET application_name = 'stress resolver'")
                        while not self.done.wait(self.rng.random() * 0.3):
                            self.resolve(conn)
                except psycopg.Error as error:
                    if not self.world.is_crash(error):
                        raise
        except Exception as error:
            self.world.fail(f"resolver: {error!r}")

    def resolve(self, conn: psycopg.Connection[Any]) -> None:
        """Commit or roll back all there are, also those whose writer lost its answer."""
        rows = conn.execute(
            "SELECT x.gid FROM pg_prepared_xacts x WHERE x.database = current_database()"
            " ORDER BY x.prepared"
        ).fetchall()
        for (gid,) in rows:
            verb = "COMMIT" if self.rng.random() < 0.7 else "ROLLBACK"
            # Busy: a session of ours that was cut off is still at it. Gone: it has done it.
            with suppress(
                psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.UndefinedObject
            ):
                conn.execute(sql.SQL("{} PREPARED {}").format(sql.SQL(verb), gid))


class Reader(threading.Thread):
    """Holds wide tables with slow SELECTs, as reports do; what it gets does not matter here."""

    def __init__(self, world: World) -> None:
        super().__init__(name="reader", daemon=True)
        self.world, self.rng = world, world.rng("reader")

    def run(self) -> None:
        try:
            while not self.world.stop.is_set():
                try:
                    self._session()
                except psycopg.Error as error:
                    if not self.world.is_crash(error):
                        raise
                    time.sleep(0.05)
        except Exception as error:
            self.world.fail(f"reader: {error!r}")

    def _session(self) -> None:
        with psycopg.connect(self.world.url, autocommit=True, prepare_threshold=None) as conn:
            conn.execute("SET application_name = 'stress reader'")
            conn.execute("SET lock_timeout = '1s'")
            while not self.world.stop.wait(self.rng.random() * 0.2):
                self._read(conn)

    def _read(self, conn: psycopg.Connection[Any]) -> None:
        tables = conn.execute("SELECT DISTINCT m.wide_table::text FROM pymig.channel_map m")
        names = [name for (name,) in tables]
        if not names:
            return
        try:
            with conn.transaction():
                conn.execute(sql.SQL("SELECT * FROM {}").format(sql.SQL(self.rng.choice(names))))
                time.sleep(self.rng.random() * 0.3)
        except (psycopg.errors.UndefinedTable, psycopg.errors.LockNotAvailable):
            pass  # rolled back meanwhile
        except psycopg.errors.DeadlockDetected as error:
            self.world.fail(f"reader: {error}")


class Partitioner(threading.Thread):
    """A DBA whose partitions come and go: detached, dropped, emptied, attached with rows."""

    def __init__(self, world: World) -> None:
        super().__init__(name="partitioner", daemon=True)
        self.world, self.rng = world, world.rng("partitioner")
        self.doing = ""

    def run(self) -> None:
        try:
            with psycopg.connect(self.world.url, autocommit=True, prepare_threshold=None) as conn:
                with self.world.lock:
                    self.world.writer_pids.add(conn.info.backend_pid)
                    self.world.ddl_pids.add(conn.info.backend_pid)
                conn.execute("SET application_name = 'stress partitioner'")
                conn.execute("SET lock_timeout = '700ms'")
                while not self.world.stop.wait(self.rng.random() * 0.25):
                    self._step(conn)
        except Exception as error:
            self.world.fail(f"partitioner ({self.doing}): {error!r}")

    def _step(self, conn: psycopg.Connection[Any]) -> None:
        hour = self.rng.choice(HOURS)
        leaf = f"stress.h{hour}"
        row = conn.execute(
            "SELECT to_regclass(%s) IS NOT NULL, i.inhrelid IS NOT NULL,"
            " coalesce(i.inhdetachpending, false)"
            " FROM (SELECT) AS x LEFT JOIN pg_inherits AS i ON i.inhrelid = to_regclass(%s)",
            [leaf, leaf],
        ).fetchone()
        assert row is not None
        exists, attached, pending = row
        bounds = f"FOR VALUES FROM ('2024-01-01 0{hour}:00') TO ('2024-01-01 0{hour + 1}:00')"
        if pending:
            self.doing = f"ALTER TABLE {TABLE} DETACH PARTITION {leaf} FINALIZE"
        elif attached:
            self.doing = self.rng.choice(
                [
                    f"ALTER TABLE {TABLE} DETACH PARTITION {leaf}",
                    f"ALTER TABLE {TABLE} DETACH PARTITION {leaf} CONCURRENTLY",
                    f"DROP TABLE {leaf}",
                    f"TRUNCATE {leaf}",
                ]
            )
        elif exists:
            attach = f"ALTER TABLE {TABLE} ATTACH PARTITION {leaf} {bounds}"
            self.doing = self.rng.choice([attach, attach, f"DROP TABLE {leaf}"])
        else:
            self.doing = (
                f"CREATE TABLE {leaf} PARTITION OF {TABLE} {bounds};"
                f" GRANT SELECT, INSERT, UPDATE, DELETE ON {leaf} TO {APP_ROLE}"
            )
        try:
            conn.execute(self.doing.encode())
            self.world.count(f"partitions: {' '.join(self.doing.split()[:2]).lower()}")
        except psycopg.Error as error:
            own = error.sqlstate in ("55P03", "40P01", "42P01", "55000", "23514")
            self.world.count(f"partitioner stopped by {error.sqlstate}")
            if not own or "pymig" in str(error.diag.message_primary):
                self.world.fail(f"partitioner: {error.sqlstate} {error} | {self.doing}")
