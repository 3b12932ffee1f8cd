"""T1: migrate while everything happens at once, then let the oracle judge.

`run_stress(Config(url=..., seed=7))` on a database of its own: creates a narrow table, starts
writers (tests/stress_writers.py), and meanwhile arms, backfills, drains, verifies, rolls back and
migrates again on many connections that are killed at random. At the end the queue is drained and
the wide tables must equal the narrow table cell by cell.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import psycopg
from psycopg import sql

from tests.oracle import difference
from tests.stress_writers import (
    SESSION_SETTINGS,
    SHIPS,
    SOURCE,
    TABLE,
    Partitioner,
    Reader,
    Resolver,
    Sampler,
    World,
    Writer,
    create_table,
    narrow,
    where,
)

STRATEGIES = ("auto", "transpose", "crosstab", "json", "filter")
MIGRATING = frozenset({"syncing", "backfilled", "verified", "cut_over", "finalized"})
DRAIN_SECONDS = 30.0
PARTITION_CHANGES = 3
KILLED = frozenset({None, "57P01", "57014"})
BUSY = frozenset({"40001", "40P01", "55P03"})
#: Chunks failed for good; a verification, or the comparison before retiring, found something.
NEVER = frozenset({"PM012", "PM013", "PM065"})


class StressError(AssertionError):
    """What went wrong, with everything needed to run it again."""


@dataclass(frozen=True)
class Config:
    """One run. Fields left None are drawn from the seed."""

    url: str
    seed: int
    seconds: float = 3.0
    column_types: str | None = None
    strategy: str | None = None
    duplicates: bool | None = None
    new_entities: str | None = None
    partitioned: bool = False
    type_drift: str | None = None
    bucket: str | None = None
    kill: bool | None = None
    rotate_above: int | None = None
    """Bytes above which the pending tables change turns; 0: as installed."""
    direct: bool | None = None
    """Ships are set to direct and back; only with a unique key, and not partitioned."""
    writers: int = 4
    truncate_every: float | None = None
    """Seconds between TRUNCATEs; None: one at most."""
    control: bool = False
    """Load without pymig: what the writers do to themselves."""

    def drawn(self) -> Config:
        """The same run with nothing left open."""
        rng = World(self.url, self.seed).rng("config")
        drawn: dict[str, Any] = {
            "column_types": rng.choice(["text", "native"]),
            "strategy": rng.choice(STRATEGIES),
            "duplicates": rng.random() < 0.3,
            "new_entities": rng.choice(["ask", "auto"]),
            "type_drift": rng.choice(["quarantine", "promote"]),
            "bucket": rng.choice(["1 hour", "10 minutes", "7 minutes"]),
            "kill": rng.random() < 0.6,
            "rotate_above": rng.choice([0, 1, 1, 65536]),
            "direct": rng.random() < 0.5,
        }
        run = replace(self, **{k: v for k, v in drawn.items() if getattr(self, k) is None})
        return replace(run, direct=run.direct and not run.duplicates and not run.partitioned)

    def __str__(self) -> str:
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "url"}
        return " ".join(f"{name}={value}" for name, value in rest.items())


class Surface:
    """The SQL surface of pymig as the stress uses it, on one connection."""

    def __init__(self, conn: psycopg.Connection[Any], config: Config) -> None:
        self.conn, self.config = conn, config

    def register(self) -> None:
        """Describe the stress table to pymig."""
        self.conn.execute(
            "CALL pymig.register_source(p_source => %s, p_narrow => %s::regclass,"
            " p_entity_column => 'ship_id', p_channel_column => 'data_channel_id',"
            " p_time_column => 'created_time',"
            " p_value_columns => '{double_v,long_v,str_v,bool_v}',"
            ' p_format_column => \'value_format\', p_formats => \'{"Decimal":"double_v",'
            ' "Integer":"long_v","String":"str_v","Boolean":"bool_v"}\','
            " p_tie_break => %s::text[], p_bucket => %s::interval, p_column_types => %s,"
            " p_new_entities => %s)",
            [
                SOURCE,
                TABLE,
                list(narrow(bool(self.config.duplicates)).tie_break),
                self.config.bucket,
                self.config.column_types,
                self.config.new_entities,
            ],
        )
        if self.config.rotate_above:
            self.conn.execute(
                "CALL pymig.set_queue(p_source => %s, p_rotate_above => %s)",
                [SOURCE, self.config.rotate_above],
            )
        self.conn.execute(
            "CALL pymig.set_type_drift(NULL, %s, p_source => %s)", [self.config.type_drift, SOURCE]
        )

    def start_sync(self, ship: str) -> None:
        """Arm the source and plan the ship."""
        self.conn.execute(
            "CALL pymig.start_sync(%s, p_source => %s, p_column_types => %s, p_strategy => %s)",
            [ship, SOURCE, self.config.column_types, self.config.strategy],
        )

    def backfill_chunk(self, ship: str) -> str:
        """Do one step of the backfill; says what it did."""
        row = self.conn.execute(
            "SELECT c.outcome FROM pymig.backfill_chunk(%s, p_source => %s) c", [ship, SOURCE]
        ).fetchone()
        assert row is not None
        return str(row[0])

    def backfill(self, ship: str) -> None:
        """Move every chunk."""
        self.conn.execute("CALL pymig.backfill(%s, p_source => %s)", [ship, SOURCE])

    def verify(self, ship: str) -> None:
        """Compare every cell; a difference is an exception or an alarm."""
        self.conn.execute("CALL pymig.verify(%s, p_source => %s)", [ship, SOURCE])

    def alarms(self) -> list[str]:
        """Buckets that verify found different."""
        rows = self.conn.execute(
            "SELECT v.* FROM pymig.verification v WHERE v.source = %s AND v.differences > 0",
            [SOURCE],
        )
        return [repr(row) for row in rows]

    def set_sync(self, ship: str, how: str) -> None:
        """Let the triggers write a ship's wide rows, or leave it to the worker again."""
        self.conn.execute(
            "CALL pymig.set_sync(%s, %s, p_source => %s, p_budget => interval '10 s')",
            [ship, how, SOURCE],
        )

    def direct_writes(self) -> int:
        """How often a trigger has written rows of a wide table."""
        row = self.conn.execute(
            "SELECT coalesce(sum(f.calls), 0) FROM pg_stat_user_functions AS f"
            " WHERE f.schemaname = 'pymig' AND f.funcname = '_merge_part'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def sync_pending(self) -> None:
        """One pass of the worker."""
        self.conn.execute("CALL pymig.sync_pending()")

    def roll_back(self, ship: str) -> None:
        """Drop the ship's wide tables."""
        self.conn.execute("CALL pymig.roll_back(%s, p_source => %s)", [ship, SOURCE])

    def look(self) -> None:
        """What people look at meanwhile."""
        self.conn.execute("SELECT * FROM pymig.status")
        self.conn.execute("SELECT * FROM pymig.plan(%s, p_source => %s)", [SHIPS[0], SOURCE])

    def states(self) -> dict[str, str]:
        """State by entity."""
        rows = self.conn.execute(
            "SELECT e.entity::text, e.state::text FROM pymig.entity e WHERE e.source = %s",
            [SOURCE],
        )
        return dict(rows.fetchall())

    def noticed(self) -> set[str]:
        """Entities the worker found to be new."""
        rows = self.conn.execute(
            "SELECT e.entity::text FROM pymig.event e"
            " WHERE e.source = %s AND e.what = 'new entity'",
            [SOURCE],
        )
        return {entity for (entity,) in rows}

    def promotions(self) -> int:
        """How often columns got a wider type."""
        row = self.conn.execute(
            "SELECT count(*) FROM pymig.event e WHERE e.what = 'columns promoted'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def pending(self) -> int:
        """Keys not yet recomputed."""
        # A ship that was planned and whose partitions then went has nobody to start it again.
        row = self.conn.execute(
            "SELECT count(*) FROM pymig.pending AS p WHERE NOT EXISTS ("
            " SELECT FROM pymig.entity AS e WHERE e.source = p.source AND e.entity = p.entity"
            f" AND e.state = 'planned' AND NOT EXISTS (SELECT FROM {TABLE} AS n"
            " WHERE n.ship_id = e.entity))"
        ).fetchone()
        assert row is not None
        return int(row[0])


class Control(threading.Thread):
    """One of pymig's sessions; it may be killed at any moment and begins again."""

    def __init__(self, world: World, config: Config, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.world, self.config = world, config
        self.rng = world.rng(name)
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            try:
                with connected(self.config, f"pymig {self.name}") as conn:
                    for setting in self.rng.sample(SESSION_SETTINGS, self.rng.randint(0, 2)):
                        conn.execute(setting)
                    self.session(Surface(conn, self.config))
            except psycopg.Error as error:
                self.judge(error)
            except Exception as error:
                self.world.fail(f"{self.name}: {error!r}")
                return
            self.done.wait(0.02)

    def session(self, pymig: Surface) -> None:
        """Work until `done`; any exception ends this session."""
        raise NotImplementedError

    def judge(self, error: psycopg.Error) -> None:
        """Killed or refused in pymig's own words is part of the game; anything else is not."""
        state = error.sqlstate
        refused = state is not None and state.startswith("PM") and state not in NEVER
        if refused or state in KILLED | BUSY or self.world.is_crash(error):
            self.world.count(f"{self.name.split()[0]} stopped by {state}")
        else:
            self.world.fail(
                f"{self.name.split()[0]}: {state} {error.diag.message_primary}"
                f" | detail {error.diag.message_detail} | context {where(error)}"
            )


class Worker(Control):
    """The loop of `pymig worker`."""

    def session(self, pymig: Surface) -> None:
        while not self.done.is_set():
            pymig.sync_pending()
            self.world.count("sync passes")
            self.done.wait(self.rng.random() * 0.1)


class Mover(Control):
    """The loop of one backfill worker over all ships."""

    def session(self, pymig: Surface) -> None:
        while not self.done.is_set():
            started = [s for s, state in pymig.states().items() if state == "syncing"]
            for ship in self.rng.sample(started, len(started)):
                outcome = pymig.backfill_chunk(ship)
                self.world.count(f"chunk {outcome}")
                if outcome == "failed":
                    self.world.fail(f"{ship!r}: a chunk failed for good")
            self.done.wait(self.rng.random() * 0.05)


class Director(Control):
    """A DBA who starts, completes, verifies, rolls back and starts again."""

    def session(self, pymig: Surface) -> None:
        while not self.done.wait(self.rng.random() * 0.4):
            states = pymig.states()
            ship = self.rng.choice(SHIPS)
            state = states.get(ship)
            if self.config.direct and state is not None and self.rng.random() < 0.2:
                pymig.set_sync(ship, self.rng.choice(["direct", "pending"]))
            if state in ("backfilled", "verified") and self.rng.random() < 0.7:
                self.verify(pymig, ship)
            elif state in ("syncing", "backfilled", "verified"):
                if self.rng.random() < 0.3:
                    pymig.roll_back(ship)
                    self.world.count("rollbacks of ships")
                elif self.rng.random() < 0.5:
                    pymig.backfill(ship)
                else:
                    pymig.look()
            else:
                pymig.start_sync(ship)
                self.world.count("starts")
                if self.config.direct:
                    pymig.set_sync(ship, "direct")

    def verify(self, pymig: Surface, ship: str) -> None:
        """Under load there must be no false alarm; a true one is as bad."""
        pymig.verify(ship)
        self.world.count("verified under load")
        for alarm in pymig.alarms():
            self.world.fail(f"alarm under load: {alarm}")


class Killer(Control):
    """Ends pymig's sessions."""

    def session(self, pymig: Surface) -> None:
        pymig.conn.execute("SET application_name = 'stress killer'")
        while not self.done.wait(0.1 + self.rng.random() * 0.3):
            verb = "cancel" if self.rng.random() < 0.3 else "terminate"
            pymig.conn.execute(
                sql.SQL(
                    "SELECT {} (a.pid) FROM pg_stat_activity a"
                    " WHERE a.application_name LIKE 'pymig%' AND a.datname = current_database()"
                    " ORDER BY random() LIMIT 1"
                ).format(sql.Identifier(f"pg_{verb}_backend"))
            )
            self.world.count("kills")


Extra = Callable[[World, Config], list[Control]]
Settle = Callable[[psycopg.Connection[Any], World], None]


@contextmanager
def connected(config: Config, name: str) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection with a name that the killer knows."""
    with psycopg.connect(
        config.url, autocommit=True, application_name=name, prepare_threshold=None
    ) as conn:
        yield conn


def run_stress(
    config: Config,
    extra: Extra = lambda _world, _config: [],
    settle: Settle = lambda _conn, _world: None,
    look: Settle = lambda _conn, _world: None,
) -> dict[str, int]:
    """Run, stop, drain, compare. Returns what happened how often; raises StressError.

    extra: more threads to run beside, as a soak has; they are stopped before all others.
    settle: what these leave to be done before the comparison; look: what else to compare.
    """
    config = config.drawn()
    world = World(
        config.url, config.seed, duplicates=bool(config.duplicates), partitioned=config.partitioned
    )
    world.truncate_every = config.truncate_every
    rng = world.rng("run")
    try:
        with connected(config, "stress main") as conn:
            _prepare(conn, world, config)
            if config.truncate_every or rng.random() < 0.35:
                world.truncate_at = time.monotonic() + rng.random() * (
                    config.truncate_every or config.seconds
                )
            ingest: list[threading.Thread] = [Writer(world, n) for n in range(config.writers)]
            if config.direct:
                ingest += [Sampler(world, config.writers + n) for n in range(2)]
            resolver = Resolver(world)
            controls = [] if config.control else _controls(world, config)
            if controls:
                ingest.append(Reader(world))
                controls += extra(world, config)
            if config.partitioned:
                ingest.append(Partitioner(world))
            for thread in (*ingest, resolver, *controls):
                thread.start()
            _last(world, config)
            _stop(world, ingest, controls)
            resolver.done.set()
            resolver.join(30)
        with connected(config, "stress main") as conn:
            resolver.resolve(conn)
            settle(conn, world)
            if not config.control:
                _finish(conn, world, config)
                look(conn, world)
            _count_deadlocks(conn, world)
    except psycopg.Error as error:
        world.fail(
            f"main: {error.sqlstate} {error.diag.message_primary} | detail"
            f" {error.diag.message_detail} | context {where(error)}"
        )
    if world.counts["commits"] < 20:
        world.fail("the writers hardly wrote")
    if world.failures:
        raise StressError(_report(world, config))
    world.counts["slowest ms"] = round(world.slowest * 1000)
    return dict(world.counts)


def _last(world: World, config: Config) -> None:
    """As long as asked, and until partitions have come and gone, however slow the machine is."""
    time.sleep(config.seconds)
    end = time.monotonic() + (9 * config.seconds if config.partitioned else 0)
    while time.monotonic() < end and partition_changes(world.counts) < PARTITION_CHANGES:
        time.sleep(0.05)


def partition_changes(counts: Mapping[str, int]) -> int:
    """How often a partition was made, attached, detached, emptied or dropped in a run."""
    return sum(n for name, n in counts.items() if name.startswith("partitions: "))


def _count_deadlocks(conn: psycopg.Connection[Any], world: World) -> None:
    """The server's own count against the writers': what is left over is pymig's, and must be none.

    Their sessions have ended, so all of them are counted.
    """
    row = conn.execute(
        "SELECT d.deadlocks FROM pg_stat_database AS d WHERE d.datname = current_database()"
    ).fetchone()
    assert row is not None
    world.counts["deadlocks"] = row[0]
    if row[0] > world.counts["own error 40P01"]:
        world.fail(
            f"{row[0]} deadlocks, {world.counts['own error 40P01']} among the writers:"
            f" {_deadlocks_logged(conn)}"
        )


def _deadlocks_logged(conn: psycopg.Connection[Any]) -> str:
    """Who waited for whom, of all databases, by the log of a server of the tests' own."""
    log = "current_setting('data_directory') || '/../run/log'"
    row = conn.execute(f"SELECT pg_read_file({log}, true)").fetchone()
    found = re.findall(r"deadlock detected(?:\n.*){0,16}", str((row and row[0]) or ""))
    return " ".join(f"\n    {line[:300]}" for text in found[-4:] for line in text.splitlines())


def _report(world: World, config: Config) -> str:
    lines = "\n  ".join(f"{n} x {what}" for what, n in world.failures.items())
    counts = ", ".join(f"{name} {times}" for name, times in sorted(world.counts.items()))
    return f"seed {config.seed} failed ({config})\n  {lines}\n  happened: {counts}"


def _prepare(conn: psycopg.Connection[Any], world: World, config: Config) -> None:
    if conn.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
        world.counts["2pc off"] = 1
    create_table(conn, world)
    if not config.control:
        if conn.execute("SELECT to_regnamespace('pymig')").fetchone() == (None,):
            from pymig.install import install

            install(config.url)
        conn.execute("CREATE EXTENSION IF NOT EXISTS tablefunc")  # for crosstab
        Surface(conn, config).register()
        if config.direct:
            conn.execute(
                sql.SQL("ALTER DATABASE {} SET track_functions = 'pl'").format(
                    sql.Identifier(conn.info.dbname)
                )
            )


def _controls(world: World, config: Config) -> list[Control]:
    controls: list[Control] = [
        Director(world, config, "director 1"),
        Director(world, config, "director 2"),
        Worker(world, config, "worker 1"),
        Worker(world, config, "worker 2"),
        Mover(world, config, "mover 1"),
        Mover(world, config, "mover 2"),
    ]
    return [*controls, Killer(world, config, "killer")] if config.kill else controls


def _stop(world: World, ingest: list[threading.Thread], controls: list[Control]) -> None:
    """The writers first, then the killer, so that the others stop by themselves."""
    world.stop.set()
    for thread in ingest:
        thread.join(30)
        if thread.is_alive():
            world.fail(f"{thread.name} hangs: {getattr(thread, 'doing', '')}")
    for control in reversed(controls):
        control.done.set()
        control.join(60)
        if control.is_alive():
            world.fail(f"{control.name} hangs")


def _finish(conn: psycopg.Connection[Any], world: World, config: Config) -> None:
    """Complete what the chaos left, drain, and compare before and after verify."""
    pymig = Surface(conn, config)
    ships = {row[0] for row in conn.execute(f"SELECT DISTINCT ship_id FROM {TABLE}")}
    _complete(pymig, world, ships)
    _compare(conn, world, config, "oracle")
    for ship in _migrating(pymig):
        pymig.verify(ship)
    for alarm in pymig.alarms():
        world.fail(f"alarm at the end: {alarm}")
    states = pymig.states()
    due = set(SHIPS) | (pymig.noticed() if config.new_entities == "auto" else set())
    for ship in ships & due:
        if states.get(ship) not in ("verified", "cut_over"):
            world.fail(f"{ship!r} ends as {states.get(ship)}")
    world.counts["promotions"] = pymig.promotions()
    world.counts["direct writes"] = pymig.direct_writes()
    _drain(pymig, world)  # a column may have been promoted while verify drained
    _compare(conn, world, config, "oracle after verify")


def _complete(pymig: Surface, world: World, ships: set[str]) -> None:
    for ship in ships.intersection(SHIPS).difference(_migrating(pymig)):
        pymig.start_sync(ship)
    for _ in range(2):  # the worker may adopt a ship while it drains: nobody backfills it but we
        for ship in _migrating(pymig):
            pymig.backfill(ship)
        _drain(pymig, world)


def _migrating(pymig: Surface) -> list[str]:
    return [ship for ship, state in pymig.states().items() if state in MIGRATING]


def _compare(conn: psycopg.Connection[Any], world: World, config: Config, who: str) -> None:
    for line in difference(conn, narrow(bool(config.duplicates))):
        world.fail(f"{who}: {line}")


def _drain(pymig: Surface, world: World) -> None:
    end = time.monotonic() + DRAIN_SECONDS
    while (left := pymig.pending()) > 0:
        if time.monotonic() > end:
            world.fail(f"{left} keys pending after {DRAIN_SECONDS:.0f} s, {pymig.states()}")
            return
        pymig.sync_pending()
