"""Changes that come by logical replication, a server that publishes everything, and a standby.

Two servers: `publisher` and `subscriber`; a third is a copy that takes over. Nothing here sleeps for a while and hopes: the subscriber
has applied when it has confirmed the publisher's position.
"""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pymig.install import install
from pymig.server import Cluster
from tests.conftest import Database, _binaries
from tests.oracle import default_narrow, difference
from tests.physical_copy import PhysicalCopy
from tests.races.interleave import NARROW_TABLE, TABLE, UNIQUE, UPDATE, WIDE, Stage, times
from tests.races.scenarios import BACKFILL, CHUNK, SYNC
from tests.waiting import until

A, B, C = times(3)
FAR = "2024-03-05 20:00:00"


@pytest.fixture(scope="module")
def servers(server_folder: Path) -> Iterator[tuple[Cluster, Cluster]]:
    """The publisher and the subscriber."""
    settings = {
        "shared_buffers": "32MB",
        "wal_retrieve_retry_interval": "50ms",
        "autovacuum": "off",
    }
    pair = tuple(
        Cluster(server_folder / name, fast=True, settings=settings, binaries=_binaries())
        for name in ("publisher", "subscriber")
    )
    try:
        for server in pair:
            server.start()
        yield pair[0], pair[1]
    finally:
        for server in pair:
            server.remove()


class Pair:
    """A database on each server; pymig and the stage are on `with_pymig`."""

    def __init__(self, servers: tuple[Cluster, Cluster], name: str, cleanup: ExitStack) -> None:
        self.name = name
        databases = []
        for server in servers:
            with psycopg.connect(server.url(), autocommit=True) as conn:
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            databases.append(Database(name, server, cleanup))
        self.publisher, self.subscriber = databases
        self.pub, self.sub = (database.connect() for database in databases)
        cleanup.callback(self._unsubscribe)

    def subscribe(self, options: str = "") -> None:
        """Begin, and wait until the initial copy is there."""
        url = self.publisher.cluster.url(self.name)
        self.sub.execute(
            f"CREATE SUBSCRIPTION {self.name} CONNECTION '{url}' PUBLICATION p {options}"
        )
        _until(
            lambda: self._one(
                self.sub, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"
            )
        )

    def applied(self) -> None:
        """Wait until the subscriber has all the publisher has committed."""
        position = self._one(self.pub, "SELECT pg_current_wal_lsn()::text")
        _until(
            lambda: self._one(
                self.pub,
                f"SELECT coalesce(bool_or(replay_lsn >= '{position}'), false)"
                f" FROM pg_stat_replication WHERE application_name = '{self.name}'",
            )
        )

    def _one(self, conn: psycopg.Connection[Any], query: str) -> Any:
        row = conn.execute(query).fetchone()
        return row and row[0]

    def _unsubscribe(self) -> None:
        with suppress(psycopg.Error), self.subscriber.connect() as conn:
            conn.execute(f"DROP SUBSCRIPTION {self.name}")


def _until(condition: Callable[[], Any]) -> None:
    until(condition, "replication does not get on")


@pytest.fixture
def pair(servers: tuple[Cluster, Cluster], database_names: Iterator[str]) -> Iterator[Pair]:
    """Two empty databases."""
    with ExitStack() as cleanup:
        yield Pair(servers, f"pair_{next(database_names)}", cleanup)


PUT = (
    f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
    " SELECT 'x', c, t::timestamp, %s, 'Integer' FROM unnest(%s::text[]) AS c, unnest(%s::text[]) AS t"
)


def _subscribed(pair: Pair) -> Stage:
    """A publisher with history; a subscriber that was armed when it had but one row."""
    pair.pub.execute(NARROW_TABLE + UNIQUE)
    pair.pub.execute(PUT, [1, ["a", "b"], [A, B, C]])
    pair.pub.execute("CREATE PUBLICATION p FOR TABLE tenant.tbl_data_timeseries")
    install(pair.subscriber.url)
    stage = Stage(pair.subscriber)
    stage.insert("x", "mine", FAR, 1)
    stage.migrate("x")
    pair.subscribe("WITH (streaming = on)")
    return stage


def _changes(pair: Pair) -> None:
    """What a publisher does; each statement is a transaction."""
    run = pair.pub.execute
    run(PUT, [2, ["new"], [A, "2024-03-04 00:00:00"]])
    run(f"UPDATE {TABLE} SET long_v = 3 WHERE data_channel_id = 'a' AND created_time = %s", [A])
    run(f"UPDATE {TABLE} SET long_v = NULL WHERE data_channel_id = 'b' AND created_time = %s", [A])
    run(
        f"UPDATE {TABLE} SET created_time = created_time + interval '30 s' WHERE data_channel_id = 'a' AND created_time = %s",
        [B],
    )
    run(
        f"UPDATE {TABLE} SET data_channel_id = 'c' WHERE data_channel_id = 'a' AND created_time = %s",
        [C],
    )
    run(f"UPDATE {TABLE} SET ship_id = 'y' WHERE data_channel_id = 'b' AND created_time = %s", [B])
    run(f"DELETE FROM {TABLE} WHERE data_channel_id = 'b' AND created_time = %s", [C])
    with suppress(ZeroDivisionError), pair.pub.transaction():
        run(PUT, [9, ["rolled back"], [A]])
        raise ZeroDivisionError
    with pair.pub.transaction():  # a savepoint, and a key twice
        run(PUT, [4, ["twice"], [A]])
        run("SAVEPOINT s")
        run(f"DELETE FROM {TABLE}")
        run("ROLLBACK TO SAVEPOINT s")
        run(f"UPDATE {TABLE} SET long_v = 5 WHERE data_channel_id = 'twice'")


def test_subscriber_is_migrated(pair: Pair) -> None:
    """Initial copy, changes of all kinds, changes under a chunk in flight, TRUNCATE."""
    stage = _subscribed(pair)
    assert stage.main.value(f"SELECT count(*) FROM {TABLE}") == 7
    assert stage.damage("x") == []
    _changes(pair)
    pair.applied()
    assert stage.damage("x") == []
    assert len(stage.wide("x")) == 5  # A, B + 30 s, C, the 4th, the subscriber's own

    stage.main.run("CALL pymig.roll_back('x')")
    stage.start_sync("x")
    stage.deal("x")
    stage.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    chunk = stage.session("chunk")
    with stage.held("chunk", "reading"):
        chunk.start(CHUNK)
        stage.stopped(chunk)
        pair.pub.execute(f"UPDATE {TABLE} SET long_v = 8 WHERE created_time = %s", [A])
        pair.pub.execute(f"DELETE FROM {TABLE} WHERE created_time = %s", [C])
        pair.applied()
    chunk.finish()
    stage.main.run(BACKFILL)
    assert stage.damage("x") == []

    pair.pub.execute(f"TRUNCATE {TABLE}")
    pair.pub.execute(PUT, [1, ["a"], [B]])
    pair.applied()
    assert stage.damage("x") == []
    assert len(stage.wide("x")) == 1


def test_without_the_row_trigger_changes_are_lost(pair: Pair) -> None:
    """Why there is one: replication fires no statement trigger, but for TRUNCATE."""
    stage = _subscribed(pair)
    stage.main.run(f"ALTER TABLE {TABLE} DISABLE TRIGGER pymig_record_row")
    assert stage.main.value("SELECT DISTINCT triggers FROM pymig.status") == "drifted"
    _changes(pair)
    pair.applied()
    assert stage.damage("x") != []


@pytest.mark.parametrize("what", ["ALL TABLES", "TABLES IN SCHEMA tenant"])
def test_publisher_of_everything(pair: Pair, what: str) -> None:
    """Wide tables (and pymig's own) are published: plan says so, and all of pymig works."""
    install(pair.publisher.url)
    stage = Stage(pair.publisher)
    stage.main.conn.execute(sql.SQL("CREATE PUBLICATION p FOR {}").format(sql.SQL(what)))
    for at in (A, B):
        stage.insert("x", "a", at, 1)
    said = stage.main.run("SELECT value FROM pymig.plan('x') WHERE item = 'publications'")
    assert [value.split(" publish every new table")[0] for (value,) in said] == ["p"]
    assert everything(stage) == []
    if what == "ALL TABLES":
        pair.sub.execute(NARROW_TABLE)
        with pytest.raises(psycopg.Error) as error:
            pair.sub.execute(
                f"CREATE SUBSCRIPTION {pair.name} CONNECTION '{pair.publisher.url}' PUBLICATION p"
            )
        assert error.value.sqlstate == "3F000"  # schema "pymig" does not exist


def test_subscriber_of_everything_needs_the_tables(pair: Pair, capfd: Any) -> None:
    """A subscriber that was there before: it stops at pymig's tables, and goes on when it has them."""
    pair.pub.execute(NARROW_TABLE + UNIQUE)
    pair.pub.execute(PUT, [1, ["a"], [A]])
    pair.pub.execute("CREATE PUBLICATION p FOR ALL TABLES")
    pair.sub.execute(NARROW_TABLE + UNIQUE)
    pair.subscribe()
    install(pair.publisher.url)  # registers the default source
    said = capfd.readouterr().err
    assert "p publish every new table" in said and "publish a list" in said
    pair.pub.execute("CALL pymig.migrate('x')")
    stopped = "SELECT apply_error_count > 0 FROM pg_stat_subscription_stats WHERE subname = %s"
    _until(lambda: pair.sub.execute(stopped, [pair.name]).fetchone() == (True,))
    install(pair.subscriber.url)
    wide = pair.pub.execute(
        "SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ')"
        f" FROM pg_attribute WHERE attrelid = '{WIDE}x'::regclass AND attnum > 0"
    ).fetchone()
    assert wide
    pair.sub.execute(f"CREATE TABLE {WIDE}x ({wide[0]})")
    pair.pub.execute(PUT, [2, ["a"], [B]])
    pair.applied()
    assert pair.sub.execute(f"SELECT count(*) FROM {TABLE}").fetchone() == (2,)


def everything(s: Stage) -> list[str]:
    """All that pymig ever does to its own tables and to wide ones, errors and damage."""
    s.migrate("x")
    s.update("x", "a", A, 2)
    s.insert("x", "new", A, 1)
    s.main.run(f"UPDATE {TABLE} SET value_format = 'odd' WHERE created_time = %s::timestamp", B)
    damage = s.damage("x")
    s.main.run(f"UPDATE {TABLE} SET value_format = 'Integer'")
    s.delete("x", "a", B)
    damage += s.damage("x")
    s.main.run(f"UPDATE {WIDE}x SET a = 'wrong'")
    s.main.run("CALL pymig.verify('x', p_repair => true)")
    s.main.run(f"ALTER TABLE {WIDE}x ADD CONSTRAINT bad CHECK (a <> '5')")
    s.update("x", "a", A, 5)
    s.main.run(SYNC)
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT bad")
    damage += s.damage("x")
    s.main.run(f"TRUNCATE {TABLE}")
    damage += s.damage("x")
    s.main.run("CALL pymig.roll_back('x')")
    s.main.run(f"CALL pymig.unregister_source('{default_narrow().source}')")
    return damage


def test_publication_needs_the_replica_identity(db: Database) -> None:
    """Why the queue has one: without it the worker's DELETE is refused, by the server."""
    stage = Stage(db)
    stage.main.run("CREATE PUBLICATION p FOR ALL TABLES")
    stage.insert("x", "a", A, 1)
    stage.migrate("x")
    stage.main.run(
        f"ALTER TABLE pymig.{default_narrow().source}_pending_1 REPLICA IDENTITY DEFAULT"
    )
    stage.update("x", "a", A, 2)
    with pytest.raises(psycopg.Error) as error:
        stage.main.run(SYNC)
    assert error.value.sqlstate == "55000"
    assert difference(stage.main.conn, stage.narrow) != []


def test_standby_takes_over(
    servers: tuple[Cluster, Cluster], database_names: Iterator[str]
) -> None:
    """The primary dies with keys in both stages of the queue, a chunk and a prepared transaction open.

    What it had confirmed is on the standby; there the same commands go on.
    """
    primary = servers[0]
    name = f"primary_{next(database_names)}"
    with psycopg.connect(primary.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    settings = {**primary.settings, "hot_standby": "on"}
    standby = PhysicalCopy(
        primary.root.parent / "standby", fast=True, settings=settings, binaries=_binaries()
    )
    try:
        with ExitStack() as cleanup:
            install(primary.url(name))
            stage = Stage(Database(name, primary, cleanup))
            for ship in "xy":
                for at in (A, B, C, FAR):
                    stage.insert(ship, "a", at, 1)
            stage.migrate("x")
            standby.follow(primary)
            stage.start_sync("y")
            stage.deal("y")
            stage.update("x", "a", A, 2)
            stage.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
            stage.delete("x", "a", B)
            stage.insert("x", "new", FAR, 3)
            writer = stage.session("writer")
            writer.begin()
            stage.update("x", "a", C, 4, writer)
            writer.run("PREPARE TRANSACTION 'at take-over'")
            mover = stage.session("mover")
            mover.begin()
            mover.run(CHUNK.replace("'x'", "'y'"))  # never commits
            position = stage.main.value("SELECT pg_current_wal_lsn()::text")
            replayed = sql.SQL("SELECT pg_last_wal_replay_lsn() >= {}::pg_lsn").format(position)
            with psycopg.connect(standby.url(name), autocommit=True) as conn:
                _until(lambda: conn.execute(replayed).fetchone() == (True,))
                # Status can be read there before, and nothing be written.
                states = "SELECT entity, state, pending FROM pymig.status ORDER BY 1"
                assert conn.execute(states).fetchall() == stage.main.run(states)
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    conn.execute(SYNC)
            primary.stop("immediate")
        with ExitStack() as cleanup:
            conn = Database(name, standby, cleanup).connect()
            conn.execute("SELECT pg_promote()")
            conn.execute(SYNC)
            conn.execute("COMMIT PREPARED 'at take-over'")
            conn.execute(UPDATE, [9, "y", "a", A])
            conn.execute("CALL pymig.backfill('y')")
            conn.execute(SYNC)
            conn.execute(SYNC)
            assert conn.execute("SELECT * FROM pymig.pending").fetchall() == []
            assert difference(conn, default_narrow()) == []
            for ship in "xy":
                conn.execute("CALL pymig.verify(%s)", [ship])
    finally:
        standby.remove()
        primary.start()
