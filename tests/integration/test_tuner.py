"""`migrate --tune`: trials while chunks are moved, what is kept of them, and who goes first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pymig import fleet, tuner
from pymig.errors import InterruptedByUser
from pymig.fleet import Fleet, Setting, Step
from pymig.migrate import Options, Tuning, backfill_ships
from pymig.progress import QuietProgress
from pymig.tuner import Known, Pins, Space, Values
from tests.conftest import Database
from tests.integration.test_control import NARROW
from tests.oracle import difference
from tests.waiting import until

pytestmark = pytest.mark.once

CREATE: LiteralString = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '1 h', t
FROM unnest('{A,B}'::text[]) AS s, generate_series(1, 5) AS c, generate_series(1, 6000) AS t;
ANALYZE n;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}');
UPDATE pymig.throttle SET max_value = NULL;
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END$$;
CREATE TRIGGER slow AFTER UPDATE ON pymig.chunk FOR EACH ROW
WHEN (NEW.state = 'done' AND OLD.state <> 'done') EXECUTE FUNCTION slow()
"""
#: More than two workers are more than ingest can bear.
BUSY: LiteralString = """
UPDATE pymig.throttle SET max_value = 100, measure =
$$SELECT CASE WHEN count(*) > 2 THEN 900 ELSE 1 END FROM pg_stat_activity
  WHERE datname = current_database() AND application_name LIKE 'pymig backfill%'$$
WHERE condition = 'ingest latency'
"""
Connection = psycopg.Connection[Any]
#: A trial ends at the first look at which each worker has moved a chunk.
QUICK: Final = Tuning(share=1000.0, trials=5, seconds=0.0)
#: A trial never ends.
ENDLESS: Final = Tuning(share=1000.0, seconds=1000.0)
DEFAULT: Final = Values("transpose", 1.0, 2)
LEARNED: Final = Values("json", 2.0, 1)


@pytest.fixture
def conn(db: Database, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Two ships alike, none migrated: 100 chunks each that take a while."""
    monkeypatch.setattr(fleet, "_LOOK_SECONDS", 0.02)
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


def _move(conn: Connection, db: Database, options: Options, *ships: str) -> list[str]:
    """Move all of the history of ships, compare every cell; what was said."""
    for ship in ships:
        conn.execute("CALL pymig.start_sync(%s, p_strategy => %s)", [ship, options.strategy])
    progress, stop = _Said(), threading.Event()
    ends = threading.Timer(60, stop.set)
    ends.start()
    report = backfill_ships(db.url, ships, options=options, progress=progress, stop=stop)
    ends.cancel()
    assert not report.failed
    assert difference(conn, NARROW, set(ships)) == []
    return progress.said


def _trials(conn: Connection) -> list[Values]:
    query: LiteralString = """
        SELECT t.strategy, extract(epoch FROM t.chunk_target)::float8, t.workers
        FROM pymig.trial AS t ORDER BY t.trial"""
    return [Values(*row) for row in conn.execute(query).fetchall()]


def _teach(
    conn: Connection, values: Values, gain: float, rate: float = 1.0, latency: float | None = None
) -> None:
    """Three trials of it came to so much, with ships of five channels."""
    query: LiteralString = """
        INSERT INTO pymig.trial (source, column_types, magnitude, strategy, chunk_target, workers,
            rows_per_second, gain, latency)
        SELECT 'n', 'text', 1, %s, %s * interval '1 s', %s, %s, %s, %s
        FROM generate_series(1, 3)"""
    told = [values.strategy, values.chunk_target, values.workers, rate, gain, latency]
    conn.execute(query, told)


def _teach_enough(conn: Connection, **kwargs: float) -> None:
    """The default, one that is far better, and one that is not."""
    _teach(conn, DEFAULT, 1.0)
    _teach(conn, LEARNED, 2.0, **kwargs)
    _teach(conn, Values("json", 0.5, 1), 0.9)


def _moved_by(conn: Connection, ship: str) -> set[str]:
    query: LiteralString = (
        "SELECT DISTINCT strategy FROM pymig.chunk WHERE entity = %s AND state = 'done'"
    )
    return {strategy for (strategy,) in conn.execute(query, [ship]).fetchall()}


@contextmanager
def _moving(db: Database, options: Options) -> Iterator[Fleet]:
    """A fleet at work on A, which stops at the end."""
    assert options.tuning
    stop = threading.Event()
    ships = Fleet(db.url, ["A"], options, QuietProgress(), stop, last=Step.MOVE)
    look = tuner.Tuner(options.tuning, options.workers, QuietProgress()).look

    def run() -> None:
        with suppress(InterruptedByUser):
            ships.run([look])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield ships
    finally:
        stop.set()
        thread.join(60)


def test_learns_and_keeps(db: Database, conn: Connection) -> None:
    """The default is tried first, then others; all is written down, and every cell is equal."""
    _move(conn, db, Options(tuning=QUICK), "A", "B")
    tried = _trials(conn)
    assert (tried[0].chunk_target, tried[0].workers) == (1.0, 2)
    assert len(set(tried)) >= 3
    rates = conn.execute("SELECT gain, rows_per_second FROM pymig.trial ORDER BY trial").fetchall()
    assert rates[0][0] == 1
    assert all(rate > 0 for _, rate in rates)
    shapes = conn.execute("SELECT DISTINCT source, column_types, magnitude FROM pymig.trial")
    assert shapes.fetchall() == [("n", "text", 1)]
    events = "SELECT count(*) FROM pymig.event WHERE what IN ('workers set', 'chunk target set')"
    assert conn.execute(events).fetchone() == (0,), "the tuner is no person"
    conn.execute("CALL pymig.roll_back('A')")
    assert _trials(conn) == tried, "what was learned is the server's, not the ship's"


def test_begins_with_what_is_known(db: Database, conn: Connection) -> None:
    """From the first chunks on, and without another trial; auto tries nothing, either."""
    _teach_enough(conn)
    before = _trials(conn)
    said = _move(conn, db, Options(tuning=QUICK), "A")
    assert f"A: begins with what was learned: {LEARNED}" in said
    assert _trials(conn) == before
    assert "crosstab" not in _moved_by(conn, "A")
    last = "SELECT strategy FROM pymig.chunk WHERE entity = 'A' ORDER BY chunk DESC LIMIT 50"
    assert set(conn.execute(last).fetchall()) == {("json",)}


def test_another_shape_is_not_known(db: Database, conn: Connection) -> None:
    """Ships with ten times as many channels say nothing about these."""
    _teach_enough(conn)
    conn.execute("UPDATE pymig.trial SET magnitude = 2")
    said = _move(conn, db, Options(tuning=QUICK), "A")
    assert not [each for each in said if "begins with" in each]
    assert len(_trials(conn)) > 6


def test_a_ship_unlike_the_others(db: Database, conn: Connection) -> None:
    """What was learned is given up where it is nowhere near as fast as it was."""
    _teach_enough(conn, rate=1e12)
    said = _move(conn, db, Options(tuning=QUICK), "A")
    assert said[0].startswith("A: begins with")
    assert said[1].startswith("A: is slower than those it was learned from")
    assert _moved_by(conn, "A") > {"json"}


def test_a_person_goes_first(db: Database, conn: Connection) -> None:
    """What is set is not tuned, whatever was learned; the rest is."""
    _teach_enough(conn)
    conn.execute("CALL pymig.set_chunk_target('900 ms')")
    conn.execute("CALL pymig.set_workers(2)")
    known = len(_trials(conn))
    _move(conn, db, Options(tuning=QUICK, strategy="transpose"), "A")
    assert _moved_by(conn, "A") == {"transpose"}
    assert _trials(conn)[known:] == [], "all of it is set: there is nothing to try"
    conn.execute("CALL pymig.set_workers(NULL)")
    conn.execute("CALL pymig.roll_back('A')")
    _move(conn, db, Options(tuning=QUICK, strategy="transpose"), "A")
    assert {v.workers for v in _trials(conn)[known:]} == {1, 2, 4}
    assert {(v.strategy, v.chunk_target) for v in _trials(conn)[known:]} == {("transpose", 0.9)}


def test_workers_a_person_asked_for(db: Database, conn: Connection) -> None:
    """--workers is no less than set_workers."""
    options = Options(tuning=Tuning(1000.0, 3, 0.0, tunes_workers=False), workers=3)
    _move(conn, db, options, "A")
    assert {values.workers for values in _trials(conn)} == {3}


def test_the_database_heeds_the_person(conn: Connection) -> None:
    """Also where one asks for something else, step by step; and for what is not to be had."""
    step: LiteralString = """
        SELECT b.outcome
        FROM pymig.backfill_chunk(%s, p_workers => 2, p_strategy => %s, p_target => '1 us') AS b"""
    sizes: LiteralString = (
        "SELECT DISTINCT last_bucket - first_bucket + 1 FROM pymig.chunk "
        "WHERE entity = %s AND state = 'done'"
    )
    conn.execute("CALL pymig.start_sync('A', p_strategy => 'transpose')")
    conn.execute("CALL pymig.set_chunk_target('2 s', 'A')")
    conn.execute("CALL pymig.start_sync('B')")
    for ship, wanted in (("A", "json"), ("B", "crosstab")):
        outcomes = [conn.execute(step, [ship, wanted]).fetchone() for _ in range(3)]
        assert outcomes == [("dealt",), ("moved",), ("moved",)]
    assert _moved_by(conn, "A") == {"transpose"}
    assert conn.execute(sizes, ["A"]).fetchall() == [(64,)]
    assert _moved_by(conn, "B") == {"filter"}, "tablefunc is not installed"
    assert conn.execute(sizes, ["B"]).fetchall() == [(1,)]
    outcomes = [conn.execute(step, ["B", "json"]).fetchone() for _ in range(2)]
    assert outcomes == [("dealt",), ("moved",)]
    assert _moved_by(conn, "B") == {"filter", "json"}
    conn.execute("UPDATE pymig.chunk SET error = 'so it was' WHERE entity = 'B'")
    assert conn.execute(step, ["B", "transpose"]).fetchone() == ("moved",)
    assert "transpose" not in _moved_by(conn, "B"), "what failed is not tried with it again"


def test_pause_is_obeyed(db: Database, conn: Connection) -> None:
    """Nothing moves, the trial is over without a figure, and it begins anew afterwards."""
    with _moving(db, Options(tuning=ENDLESS, strategy="transpose")) as ships:
        (ship,) = ships.ships
        default = Setting("transpose", 1.0, 2)
        until(lambda: ship.setting == default, "no trial has begun")
        conn.execute("CALL pymig.pause('A')")
        until(lambda: ship.held_up_by and ship.setting == Setting(), "the trial goes on")
        count: LiteralString = "SELECT count(*) FROM pymig.chunk WHERE state = 'done'"
        until(lambda: not ship.workers, "a worker is at it")
        moved = conn.execute(count).fetchone()
        assert conn.execute("SELECT pg_sleep(0.5)")
        assert conn.execute(count).fetchone() == moved
        assert _trials(conn) == []
        conn.execute("CALL pymig.resume('A')")
        until(lambda: ship.setting == default, "the trial does not begin anew")
        conn.execute("CALL pymig.set_workers(3)")
        until(lambda: ship.setting == Setting("transpose", 1.0), "a person's setting is tuned")
        until(lambda: ships.wanted == 3, "a person's setting waits")
    _move(conn, db, Options(tuning=QUICK), "A")


def test_latency_makes_a_setting_lose(db: Database, conn: Connection) -> None:
    """Four workers hold ingest up, and so they are not what it goes on with."""
    conn.execute(BUSY)
    conn.execute("CALL pymig.set_chunk_target('900 ms')")
    tuning = Tuning(share=1000.0, seconds=0.6)
    _move(conn, db, Options(tuning=tuning, strategy="transpose"), "A", "B")
    known: LiteralString = (
        "SELECT workers, is_within FROM pymig.known_trials('A') WHERE workers <> 1 ORDER BY workers"
    )
    assert conn.execute(known).fetchall() == [(2, True), (4, False)]
    worst: LiteralString = "SELECT max(latency) FROM pymig.trial WHERE workers = 4"
    assert conn.execute(worst).fetchone() == (900,)
    conn.execute("UPDATE pymig.throttle SET max_value = 1000 WHERE condition = 'ingest latency'")
    assert conn.execute(known).fetchall() == [(2, True), (4, True)]


def test_latency_ends_a_trial(db: Database, conn: Connection) -> None:
    """At once: nobody waits until enough was measured."""
    conn.execute(BUSY)
    for workers, gain in ((2, 1.0), (1, 0.9)):
        _teach(conn, Values("transpose", 0.9, workers), gain)
    conn.execute("CALL pymig.set_chunk_target('900 ms')")
    known = len(_trials(conn))
    with _moving(db, Options(tuning=ENDLESS, strategy="transpose")):
        until(lambda: len(_trials(conn)) > known, "the trial goes on")
    assert _trials(conn)[known:] == [Values("transpose", 0.9, 4)]


def test_learned_settings_that_ingest_cannot_bear(db: Database, conn: Connection) -> None:
    """They are given up, whatever they were like on another day."""
    _teach_enough(conn)
    conn.execute("UPDATE pymig.trial SET workers = 4 WHERE gain = 2")
    conn.execute(BUSY)
    said = _move(conn, db, Options(tuning=QUICK), "A")
    assert "A: begins with what was learned: json, chunks of 2 s, workers: 4" in said
    assert "A: holds ingest up; it goes on with the default" in said


def _known(values: Values, gain: float, trials: int = 2, *, is_within: bool = True) -> Known:
    return Known(values, trials, gain, 1.0, is_within, 0.0)


def test_the_best() -> None:
    """It has to be worth it, and within what ingest can bear."""
    space = Space.of(Pins(None, None, None), ["transpose", "json"], 2, 100)
    slow, fast = Values("json", 2.0, 4), Values("transpose", 2.0, 2)
    default = _known(DEFAULT, 1.0)
    assert tuner.best(space, [default, _known(slow, 0.9), _known(fast, 1.04)]) is None
    found = tuner.best(space, [default, _known(slow, 1.2), _known(fast, 1.1)])
    assert found and found.values == slow
    found = tuner.best(space, [default, _known(slow, 1.2, is_within=False), _known(fast, 1.1)])
    assert found and found.values == fast
    unbearable = _known(DEFAULT, 1.0, is_within=False)
    found = tuner.best(space, [unbearable, _known(fast, 0.7)])
    assert found and found.values == fast, "whatever ingest can bear"


def test_asks_for_what_is_not_known() -> None:
    """Each setting of a small space once, then nothing; what seems best is to be tried twice."""
    space = Space.of(Pins("json", None, 2), ["json"], 2, 100)
    known = [_known(space.default, 1.0)]
    while asked := tuner.ask(space, known, trials=3):
        assert asked not in {each.values for each in known}
        known.append(_known(asked, 0.9))
    assert {each.values for each in known} == space.all()
    assert tuner.is_enough(space, known, trials=3)
    known[1] = _known(known[1].values, 1.5, trials=1)
    assert not tuner.is_enough(space, known, trials=3)


def test_connections_are_left_to_others(db: Database, conn: Connection) -> None:
    """No more workers are tried where a database or a role has hardly room for more."""
    assert {v.workers for v in Space.of(Pins(None, None, None), ["json"], 2, 5).all()} == {1, 2}
    assert {v.workers for v in Space.of(Pins(None, None, None), ["json"], 2, 6).all()} == {1, 2, 4}
    free: LiteralString = "SELECT pymig._free_connections()"
    most = conn.execute("SHOW max_connections").fetchone()
    before = conn.execute(free).fetchone()
    assert most and before and 0 < before[0] < int(most[0])
    name = sql.Identifier(db.name)
    conn.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 3").format(name))
    conn.execute(
        "CREATE ROLE few LOGIN PASSWORD 'pw' CONNECTION LIMIT 2; GRANT USAGE ON SCHEMA pymig TO few"
    )
    try:
        assert conn.execute(free).fetchone() == (2,)
        few = psycopg.connect(make_conninfo(db.url, user="few", password="pw"), autocommit=True)
        with few:
            assert few.execute(free).fetchone() == (1,)
    finally:
        conn.execute("DROP OWNED BY few; DROP ROLE few")


def test_killed_and_run_again(db: Database, conn: Connection) -> None:
    """Nothing is lost but the trial that was under way."""
    command = [sys.executable, "-c", "from pymig.cli import main; main()", "migrate", "--tune"]
    with subprocess.Popen(
        [*command, "--ship", "A"],
        env={**os.environ, "DATABASE_URL": db.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        done: LiteralString = "SELECT count(*) FROM pymig.chunk WHERE state = 'done'"
        until(lambda: conn.execute(done).fetchone() > (20,), "it moves nothing")  # type: ignore[operator]
        process.send_signal(signal.SIGKILL)
    _move(conn, db, Options(tuning=QUICK), "A")


def test_says_what_to_install(db: Database, conn: Connection) -> None:
    """One sentence, and nothing is begun."""
    without = "import sys; sys.modules['optuna'] = None; from pymig.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, "migrate", "--ship", "A", "--tune"],
        env={**os.environ, "DATABASE_URL": db.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "pymig: --tune needs more packages; optuna is missing.",
        "Install them: pip install 'pymig[tune]'.",
    ]
    begun = "SELECT count(*) FROM pymig.entity WHERE state <> 'known'"
    assert conn.execute(begun).fetchone() == (0,)
