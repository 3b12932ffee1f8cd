"""Control of migrations that run: cancel, workers, chunk target, priority, the canary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
import pytest

from pymig.errors import InterruptedByUser, NotDoneError, UsageError
from pymig.migrate import Canary, MigrationReport, Options, migrate_ships, verify_ships
from pymig.progress import QuietProgress
from tests.conftest import Database
from tests.oracle import Narrow, difference
from tests.waiting import until

CREATE: LiteralString = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', t
FROM (VALUES ('A', 100), ('B', 200), ('C', 300)) AS s (s, n), generate_series(1, 5) AS c, LATERAL generate_series(1, n) AS t;
ANALYZE n;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}');
UPDATE pymig.throttle SET max_value = NULL
"""  # noqa: E501
NARROW = Narrow("n", "n", "ship", "ch", "ts", ("d",))
Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(db: Database) -> Connection:
    """Three ships, the smallest first in the alphabet, none migrated."""
    conn = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    return conn


class _Said(QuietProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Keep it."""
        self.said.append(sentence)


class Run(threading.Thread):
    """migrate_ships in a thread: what it said, and what came of it."""

    def __init__(self, db: Database, ships: str = "all", **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self.progress = _Said()
        self.report = MigrationReport()
        self.stop = threading.Event()
        self._url = db.url
        self._ships = ships
        self._kwargs = kwargs
        self.start()

    def run(self) -> None:
        """Migrate."""
        with suppress(InterruptedByUser):
            self.report = migrate_ships(
                self._url, self._ships, stop=self.stop, progress=self.progress, **self._kwargs
            )

    def end(self) -> MigrationReport:
        """Wait for it."""
        self.join(60)
        assert not self.is_alive()
        return self.report

    def says(self, beginning: str) -> Callable[[], bool]:
        """Whether it said something like that."""
        return lambda: any(sentence.startswith(beginning) for sentence in self.progress.said)


def _states(conn: Connection) -> dict[str, str]:
    query = "SELECT entity, state FROM pymig.entity WHERE state <> 'known'"
    return dict(conn.execute(query).fetchall())


def _slow(conn: Connection, seconds: float) -> None:
    """Every chunk takes a while longer; and each is a bucket."""
    conn.execute("CALL pymig.set_chunk_target('1 us')")
    conn.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$"
        f"BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$".encode()
    )
    conn.execute(
        "CREATE TRIGGER slow AFTER UPDATE ON pymig.chunk FOR EACH ROW "
        "WHEN (NEW.state = 'done' AND OLD.state <> 'done') EXECUTE FUNCTION slow()"
    )


def _break(conn: Connection) -> None:
    """B can't be begun."""
    conn.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE 'not this one'; END $$"
    )
    conn.execute(
        "CREATE TRIGGER broken BEFORE UPDATE ON pymig.entity FOR EACH ROW "
        "WHEN (NEW.entity = 'B' AND NEW.state = 'syncing') EXECUTE FUNCTION broken()"
    )


def _moving(conn: Connection) -> bool:
    query = "SELECT count(*) FROM pymig.chunk WHERE state = 'done'"
    return conn.execute(query).fetchone() > (1,)  # type: ignore[operator]


def test_cancelled(db: Database, conn: Connection) -> None:
    """Commands at it end within a second, and say by whom; until resume, then it goes on."""
    _slow(conn, 0.02)
    run = Run(db, "C,A")
    until(lambda: _moving(conn) and _states(conn).get("C") == "syncing", "C is not begun")
    conn.execute("CALL pymig.cancel('C', p_reason => 'disk is needed')")
    cancelled = time.monotonic()
    until(run.says("C: the work on"), "it goes on")
    assert time.monotonic() - cancelled < 1.5
    report = run.end()
    assert list(report.failed) == ["C"]
    error = report.failed["C"]
    assert isinstance(error, NotDoneError)
    assert error.message.startswith("the work on 'C' was cancelled by postgres since ")
    assert error.message.endswith(": disk is needed.")
    assert _states(conn) == {"A": "verified", "C": "syncing"}
    status = "SELECT held_up_by FROM pymig.status WHERE entity = 'C'"
    assert "disk is needed" in conn.execute(status).fetchone()[0]  # type: ignore[index]
    for statement in ("SELECT pymig.backfill_chunk('C')", "CALL pymig.backfill('C')"):
        with pytest.raises(psycopg.Error) as refused:
            conn.execute(statement.encode())
        assert refused.value.sqlstate == "PM064"
    conn.execute("INSERT INTO n VALUES ('C', 'c1', '2025-01-01', 7)")
    conn.execute("CALL pymig.sync_pending()")
    assert conn.execute("SELECT c1 FROM n_c WHERE ts = '2025-01-01'").fetchone() == ("7",)
    conn.execute("CALL pymig.resume('C')")
    conn.execute("DROP TRIGGER slow ON pymig.chunk")
    assert not Run(db, "C").end().failed
    assert difference(conn, NARROW, {"A", "C"}) == []
    events = """
        SELECT what, who FROM pymig.event
        WHERE entity = 'C' AND what IN ('cancelled', 'resumed') ORDER BY event"""
    assert conn.execute(events).fetchall() == [("cancelled", "postgres"), ("resumed", "postgres")]


def test_cancelled_while_it_waits(db: Database, conn: Connection) -> None:
    """Paused first, then cancelled as a source: nothing is begun any more, and verify ends, too."""
    conn.execute("CALL pymig.migrate('A')")
    conn.execute("CALL pymig.pause()")
    run = Run(db)
    until(lambda: "paused by postgres" in str(run.progress.said), "it does not say that it waits")
    conn.execute("CALL pymig.cancel()")
    assert list(run.end().failed) == ["A", "B", "C"]
    assert _states(conn) == {"A": "verified"}
    assert list(verify_ships(db.url, ["A"], source=None).failed) == ["A"]
    conn.execute("CALL pymig.resume()")
    assert not verify_ships(db.url, ["A"], source=None).failed


def test_workers_up_and_down(db: Database, conn: Connection) -> None:
    """While it runs; the limit of a ship keeps the others from it."""
    _slow(conn, 0.02)

    def movers() -> int:
        query: LiteralString = """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'pymig backfill%'"""
        found = conn.execute(query).fetchone()
        assert found
        return int(found[0])

    run = Run(db, "C", options=Options(workers=1))
    until(lambda: movers() == 1, "not one worker")
    conn.execute("CALL pymig.set_workers(4)")
    until(lambda: movers() == 4, "there are no more workers")
    conn.execute("CALL pymig.set_workers(2)")
    until(lambda: movers() == 2, "there are no fewer workers")
    assert run.is_alive(), "it was done before: nothing is shown"
    conn.execute("CALL pymig.set_workers(NULL)")
    until(lambda: movers() == 1, "not one worker")
    conn.execute("DROP TRIGGER slow ON pymig.chunk")
    assert not run.end().failed
    assert difference(conn, NARROW, {"C"}) == []


def test_limit_of_a_ship(db: Database, conn: Connection) -> None:
    """Only so many workers are at it at once; the next one goes to the next ship."""
    _slow(conn, 0.02)
    conn.execute("CALL pymig.set_workers(1, 'A')")
    run = Run(db, "A,B", options=Options(workers=2))
    until(lambda: _states(conn) == {"A": "syncing", "B": "syncing"}, "B is not begun beside A")
    conn.execute("CALL pymig.set_workers(2, 'A')")
    conn.execute("DROP TRIGGER slow ON pymig.chunk")
    assert not run.end().failed
    assert difference(conn, NARROW, {"A", "B"}) == []


def test_chunk_target(conn: Connection) -> None:
    """Chunks dealt before are cut to the new size; it is the ship's own, or the source's."""
    conn.execute("CALL pymig.start_sync('C')")
    step: LiteralString = "SELECT outcome FROM pymig.backfill_chunk('C')"
    sizes: LiteralString = (
        "SELECT last_bucket - first_bucket + 1 FROM pymig.chunk WHERE state = 'done' ORDER BY chunk"
    )
    assert [conn.execute(step).fetchone() for _ in range(2)] == [("dealt",), ("moved",)]
    conn.execute("CALL pymig.set_chunk_target('1 us', 'C')")
    assert conn.execute(step).fetchone() == ("moved",)
    assert conn.execute(sizes).fetchall() == [(64,), (1,)]
    conn.execute("CALL pymig.set_chunk_target(NULL, 'C')")
    conn.execute("CALL pymig.backfill('C')")
    assert max(conn.execute(sizes).fetchall()[2:]) > (16,)
    conn.execute("CALL pymig.verify('C')")
    assert difference(conn, NARROW, {"C"}) == []


def test_wrong_settings(conn: Connection) -> None:
    """One sentence each, and nothing is changed."""
    for call, state in (
        ("set_workers(0)", "PM007"),
        ("set_workers(65, 'A')", "PM007"),
        ("set_workers(2, 'nowhere')", "PM002"),
        ("set_chunk_target('0')", "PM007"),
        ("set_chunk_target(NULL)", "PM007"),
        ("set_priority('nowhere', 1)", "PM002"),
        ("cancel('nowhere')", "PM002"),
    ):
        with pytest.raises(psycopg.Error) as error:
            conn.execute(f"CALL pymig.{call}".encode())
        assert error.value.sqlstate == state, call
    assert _states(conn) == {}


def test_order(db: Database, conn: Connection) -> None:
    """By priority, then the smallest first."""
    conn.execute("CALL pymig.set_priority('C', 5)")
    conn.execute("CALL pymig.set_priority('A', -1)")
    order = [name for (name,) in conn.execute("SELECT entity FROM pymig.resolve_entities('all')")]
    assert order == ["C", "B", "A"]
    assert [ship.name for ship in Run(db).end().ships] == order
    started = conn.execute("SELECT entity FROM pymig.entity ORDER BY started_at").fetchall()
    assert started == [("C",), ("B",), ("A",)]


def test_one_that_fails_stops_no_other(db: Database, conn: Connection) -> None:
    """The report says which is left and why."""
    _break(conn)
    report = Run(db).end()
    assert list(report.failed) == ["B"]
    assert "not this one" in report.failed["B"].message
    assert _states(conn) == {"A": "verified", "B": "planned", "C": "verified"}


def test_canary(db: Database, conn: Connection) -> None:
    """It goes first; the others are not even begun until they are resumed, also by another run."""
    run = Run(db, canary=Canary("B"))
    until(run.says("B is verified; 2 others wait: pymig resume lets them go"), "no word of it")
    assert _states(conn) == {"B": "verified"}
    why = conn.execute("SELECT held_up_by FROM pymig.status WHERE entity = 'A'").fetchone()
    assert why is None or "the canary" in why[0]
    run.stop.set()
    run.join(30)
    again = Run(db, canary=Canary("B"))
    until(again.says("B is verified; 2 others wait"), "the others did not stay paused")
    assert _states(conn) == {"B": "verified"}
    conn.execute("CALL pymig.resume('A')")
    until(lambda: _states(conn).get("A") == "verified", "A does not go on")
    assert "C" not in _states(conn)
    conn.execute("CALL pymig.resume()")
    assert not again.end().failed
    assert difference(conn, NARROW, {"A", "B", "C"}) == []


def test_canary_that_is_watched_for_a_while(db: Database, conn: Connection) -> None:
    """Then the others follow by themselves."""
    run = Run(db, canary=Canary("C", 0.2))
    assert not run.end().failed
    assert set(_states(conn).values()) == {"verified"}
    newest = "SELECT entity FROM pymig.entity ORDER BY started_at LIMIT 1"
    assert conn.execute(newest).fetchone() == ("C",)


def test_canary_that_fails(db: Database, conn: Connection) -> None:
    """The others are left as they are, and paused: whoever repeats it meets them so."""
    _break(conn)
    report = Run(db, canary=Canary("B", 0.0)).end()
    assert list(report.failed) == ["B", "A", "C"]
    assert "B, the canary, failed" in report.failed["C"].message
    assert _states(conn) == {"B": "planned"}
    with pytest.raises(UsageError, match="not among the ships"):
        migrate_ships(db.url, "A", canary=Canary("B"))
