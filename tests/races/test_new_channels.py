"""A channel that comes in just after the columns for another one were added."""

from __future__ import annotations

from tests.conftest import Database
from tests.races.interleave import Stage
from tests.races.scenarios import SYNC, A

NOT_AN_ATTEMPT = (" OR p_sqlstate = 'PM009'", "")


def between(db: Database, *changes: tuple[str, str]) -> Stage:
    """Channel c is new; while the worker has added its column, d comes; the recompute fails."""
    s = Stage(db)
    for channel in "ab":
        s.insert("x", channel, A, 1)
    s.migrate("x")
    added = "PERFORM pymig._add_channels(p_source, p_entity);"
    s.patch("_todo_needs_channels", (added, f"{added} PERFORM race.pause('added');"))
    if changes:
        s.patch("_todo_failed", *changes)
    s.insert("x", "c", A, 1)
    worker = s.session("worker")
    with s.held("worker", "added"):
        worker.start(SYNC)
        s.stopped(worker)
        s.insert("x", "d", A, 1)
    worker.finish()
    return s


def channels(s: Stage) -> list[str]:
    """Those that have a column."""
    rows = s.main.run("SELECT m.channel FROM pymig.channel_map AS m ORDER BY m.channel")
    return [channel for (channel,) in rows]


def test_it_is_no_failed_attempt_and_no_column_is_lost(db: Database) -> None:
    """The key waits for its next turn, and verification does not complain of it."""
    s = between(db)
    assert channels(s) == ["a", "b", "c"]
    assert s.main.run("SELECT t.attempts FROM pymig.tbl_data_timeseries_todo AS t") == [(0,)]
    s.main.run("SELECT pymig._finish_verify(s, 'x', clock_timestamp()) FROM pymig.source AS s")
    assert s.main.value("SELECT e.state FROM pymig.entity AS e") == "verified"
    assert s.damage("x") == []
    assert channels(s) == ["a", "b", "c", "d"]


def test_counted_as_an_attempt_it_is_a_false_alarm(db: Database) -> None:
    """The mutation: the verification of a ship that is all right fails."""
    s = between(db, NOT_AN_ATTEMPT)
    said = s.main.value(
        "SELECT pymig._finish_verify(s, 'x', clock_timestamp()) FROM pymig.source AS s"
    )
    assert "cannot be recomputed" in said
