"""Retention keep: what was in quarantine when its partition went is the only copy, and stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.test_type_drift import promote, put, types
from tests.races.interleave import TABLE, WIDE, Stage

PRECIOUS: Final = ("a", "2024-03-01 10:11:00", "type_mismatch", "precious")


def kept(s: Stage) -> list[tuple[str, ...]]:
    """What is in quarantine of the text nobody has another copy of, and whether ship x verifies."""
    rows = s.main.run(
        "SELECT channel, time, reason, narrow_row->>'str_v' FROM pymig.quarantine"
        " WHERE narrow_row->>'str_v' = 'precious'"
    )
    try:
        s.main.run("CALL pymig.verify('x')")
    except psycopg.Error as error:
        rows.append((str(error),))
    return rows


def gone(s: Stage) -> Stage:
    """A value that does not fit, quarantined; then its partition is dropped."""
    s.main.run("CALL pymig.set_retention('keep')")
    for day in (1, 2, 3):
        put(s, "a", f"2024-03-{day:02d} 10:00", "long_v", day)
    s.main.run("CALL pymig.migrate('x', p_column_types => 'native', p_strategy => 'json')")
    put(s, "a", PRECIOUS[1], "str_v", "precious")
    s.drain()
    s.main.run("DROP TABLE tenant.p1")
    s.drain()
    return s


def late(s: Stage, at: str) -> None:
    """A row that comes late into the range, through a new partition."""
    s.partition(1, "tenant.p1_again")
    put(s, "a", at, "long_v", 7)
    s.drain()


def verified(s: Stage) -> None:
    """Nothing happens but that."""


def repaired(s: Stage) -> None:
    """What verify finds surplus, repair would delete."""
    s.main.run("CALL pymig.verify('x', p_repair => true)")


def same_key(s: Stage) -> None:
    """The key itself is recomputed."""
    late(s, PRECIOUS[1])


def same_bucket(s: Stage) -> None:
    """The bucket is recomputed whole, twice: the late row goes again."""
    late(s, "2024-03-01 10:00")
    s.main.run("TRUNCATE tenant.p1_again")
    s.drain()


def promoted(s: Stage) -> None:
    """Its column gets a type that would hold it; but its cell is closed."""
    put(s, "a", "2024-03-03 11:00", "str_v", "later")
    s.main.run("CALL pymig.set_type_drift('x', 'promote')")
    s.drain()
    promote(s)
    assert types(s, "a") == ["text"]
    values = s.main.run(f"SELECT a FROM {WIDE}x ORDER BY created_time")
    assert values == [("1",), (None,), ("2",), ("3",), ("later",)]
    # It is no reason to begin again.
    s.drain()
    assert s.main.value("SELECT count(*) FROM pymig.event WHERE what = 'promotion begun'") == 1


WAYS: Final = (verified, repaired, same_key, same_bucket, promoted)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_only_copy_stays(db: Database, way: Callable[[Stage], None]) -> None:
    """Whatever happens to its bucket and its column, and the ship verifies."""
    s = gone(Stage(db, partitioned=True))
    way(s)
    assert kept(s) == [PRECIOUS]


def test_back_to_drop(db: Database) -> None:
    """Then wide follows narrow again, and so does quarantine."""
    s = gone(Stage(db, partitioned=True))
    s.main.run("CALL pymig.set_retention('drop')")
    s.drain()
    assert kept(s) == []
    assert s.damage("x") == []


def test_what_came_late_is_kept_like_the_rest(db: Database) -> None:
    """The second partition of that range goes, too: its rows were in quarantine alone."""
    s = gone(Stage(db, partitioned=True))
    late(s, "2024-03-01 10:00")
    s.main.run("DROP TABLE tenant.p1_again")
    s.drain()
    put(s, "a", "2024-03-02 10:00:30", "long_v", 8)
    s.drain()
    found = (
        "SELECT reason, narrow_row->>'long_v' FROM pymig.quarantine WHERE reason = 'closed_range'"
    )
    assert s.main.run(found) == [("closed_range", "7")]
    assert kept(s) == [PRECIOUS]


def test_rows_outside_of_the_range_are_found_again(db: Database) -> None:
    """Of a bucket at the edge only what stood in the partition is kept; of others nothing."""
    s = Stage(db, partitioned=True)
    put(s, "a", "2024-03-02 00:00:00", "long_v", 1)
    s.main.run("CALL pymig.set_retention('keep')")
    s.main.run("CALL pymig.migrate('x', p_column_types => 'native', p_strategy => 'json')")
    for at in ("2024-03-01 23:59:59.999999", "2024-03-02 00:00:01", "2024-03-04 00:00:00"):
        put(s, "a", at, "str_v", at)
    s.drain()
    s.main.run("DROP TABLE tenant.p1")
    s.drain()
    assert s.main.run("SELECT time FROM pymig.quarantine WHERE is_kept") == [
        ("2024-03-01 23:59:59.999999",)
    ]
    s.main.run(f"DELETE FROM {TABLE} WHERE str_v IS NOT NULL")
    s.drain()
    assert s.main.value("SELECT count(*) FROM pymig.quarantine") == 1
    s.main.run("CALL pymig.verify('x')")


MUTATIONS: Final = (
    ("_forget_quarantine", " AND NOT q.is_kept", "", same_key),
    ("_forget_quarantine", " AND NOT q.is_kept", "", same_bucket),
    ("_quarantine_differences_sql", " AND NOT q.is_kept", "", verified),
    ("_swap_promoted", " AND NOT q.is_kept", "", promoted),
    ("_close_range", "is_kept = true", "is_kept = false", promoted),
    ("_close_range", "is_kept = true", "is_kept = false", repaired),
)


@pytest.mark.parametrize(("routine", "old", "new", "way"), MUTATIONS)
def test_mutation_is_seen(
    db: Database, routine: str, old: str, new: str, way: Callable[[Stage], None]
) -> None:
    """Without one of the protections the copy is lost, or the ship does not verify."""
    s = Stage(db, partitioned=True)
    s.patch(routine, (old, new))
    gone(s)
    way(s)
    assert kept(s) != [PRECIOUS]


def test_mutation_begins_for_ever(db: Database) -> None:
    """Kept rows that count as drift have their column promoted again and again."""
    s = Stage(db, partitioned=True)
    s.patch("_has_drift", (" AND NOT q.is_kept", ""))
    s.patch("_begin_promotions", (" AND NOT q.is_kept", ""))
    gone(s)
    with pytest.raises(AssertionError, match=r"[2-9]"):
        promoted(s)
