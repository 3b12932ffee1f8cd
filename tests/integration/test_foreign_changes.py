"""Somebody alters the wide tables: noticed, followed where that is possible, never fatal."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import Database
from tests.races.interleave import TABLE, WIDE, Stage

A, B, C = "2024-03-02 10:00:00", "2024-03-02 10:15:00", "2024-03-02 13:00:00"


@pytest.fixture
def stage(db: Database) -> Stage:
    """Two ships of three channels in two buckets, verified."""
    s = Stage(db)
    for ship in ("x", "y"):
        for n, channel in enumerate("abc"):
            s.insert(ship, channel, A, n)
            s.insert(ship, channel, C, n)
        s.main.run("CALL pymig.migrate(%s, p_column_types => 'native')", ship)
    return s


def change(s: Stage) -> None:
    """What arrives afterwards, for both ships."""
    for ship in ("x", "y"):
        s.update(ship, "a", A, 10)
        s.insert(ship, "b", B, 11)
        s.insert(ship, "d", B, 12)


def check(s: Stage) -> list[str]:
    """Equal and verified; what was said."""
    assert s.damage("x", "y") == []
    s.main.run("CALL pymig.verify('x')")
    state = s.main.run("SELECT state, last_error FROM pymig.entity WHERE entity = 'x'")
    assert state == [("verified", None)]
    return said(s)


def said(s: Stage) -> list[str]:
    """Events that are no mere INFO."""
    return [
        row[0]
        for row in s.main.run("SELECT what FROM pymig.event WHERE level <> 'INFO' ORDER BY event")
    ]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_renamed_column_is_followed(stage: Stage, parts: int) -> None:
    """By its number; the map and the view have the new name."""
    if parts == 2:
        stage.patch("_deal_types", ("v_columns + 2 > 1600", "p_is_appended AND v_part = 1"))
        stage.insert("x", "e", A, 1)
        stage.drain()
    part = f"{WIDE}x" + ("_1" if parts == 2 else "")
    stage.main.run(f'ALTER TABLE {part} RENAME COLUMN b TO "fuel flow"')
    change(stage)
    assert check(stage) == ["column renamed"]
    found = stage.main.value("SELECT wide_column FROM pymig.channel_map WHERE entity = 'x' AND channel = 'b'")  # fmt: skip
    assert found == "fuel flow"
    assert stage.main.run(f'SELECT "fuel flow" FROM {WIDE}x ORDER BY created_time') == [
        (1,), (11,), (1,)
    ]  # fmt: skip
    # A channel that has the old name comes, and another rename.
    stage.insert("x", "b ", A, 3)
    stage.main.run(f'ALTER TABLE {part} RENAME COLUMN "fuel flow" TO b2')
    stage.drain()
    assert check(stage) == ["column renamed"] * 2


def test_two_columns_that_change_their_names(stage: Stage) -> None:
    """They have the right types and each other's names: verify finds it, repair mends it."""
    stage.main.run(f"ALTER TABLE {WIDE}x RENAME COLUMN a TO t")
    stage.main.run(f"ALTER TABLE {WIDE}x RENAME COLUMN b TO a")
    stage.main.run(f"ALTER TABLE {WIDE}x RENAME COLUMN t TO b")
    with pytest.raises(psycopg.Error, match="4 differences in 2 buckets"):
        stage.main.run("CALL pymig.verify('x')")
    stage.main.run("CALL pymig.verify('x', p_repair => true)")
    assert check(stage)[-1] == "repaired"


@pytest.mark.parametrize("by", ["worker", "verify"])
def test_a_dropped_column_is_made_again(stage: Stage, by: str) -> None:
    """With all its values, in every bucket; the other ship never waits."""
    stage.main.run(f"ALTER TABLE {WIDE}x DROP COLUMN a")
    if by == "worker":
        change(stage)
    else:
        stage.main.run("CALL pymig.verify('x')")
    assert check(stage) == ["columns made again"]
    assert [row[0] for row in stage.main.run(f"SELECT a FROM {WIDE}x ORDER BY created_time")] in (
        [10, None, 0],
        [0, 0],
    )


def test_a_dropped_column_during_the_backfill(stage: Stage) -> None:
    """A chunk that misses it is tried again, not failed."""
    for n in range(20):
        stage.insert("z", "a", f"2024-03-0{1 + n % 5} {n:02d}:00:00", n)
    stage.start_sync("z")
    stage.deal("z")
    stage.main.run(f"ALTER TABLE {WIDE}z DROP COLUMN a")
    assert stage.main.value("SELECT outcome FROM pymig.backfill_chunk('z')") == "retry"
    stage.main.run("CALL pymig.backfill('z')")
    assert stage.main.value("SELECT sum(attempts) FROM pymig.chunk WHERE entity = 'z'") == 0
    assert stage.damage("z") == []
    stage.main.run("CALL pymig.verify('z')")


def test_a_column_of_theirs(stage: Stage) -> None:
    """It is left alone, and no channel that has its name moves in."""
    stage.main.run(f"ALTER TABLE {WIDE}x ADD COLUMN d text DEFAULT 'theirs'")
    change(stage)
    assert check(stage) == []
    column = stage.main.value(
        "SELECT wide_column FROM pymig.channel_map WHERE entity = 'x' AND channel = 'd'"
    )
    assert column != "d" and column.startswith("d_")
    assert stage.main.run(f"SELECT DISTINCT d FROM {WIDE}x") == [("theirs",)]


def test_another_type(stage: Stage) -> None:
    """Said, not believed: the entity is no longer verified; dropped, the column is made again."""
    stage.main.run(f"ALTER TABLE {WIDE}x ALTER COLUMN a TYPE bool USING a > 0")
    change(stage)
    stage.drain(1)
    assert "column types changed" in said(stage)
    assert stage.main.value("SELECT state FROM pymig.entity WHERE entity = 'x'") == "backfilled"
    assert stage.main.value("SELECT last_error FROM pymig.status WHERE entity = 'x'") is not None
    assert stage.pending() > 0
    stage.main.run(f"ALTER TABLE {WIDE}x DROP COLUMN a")
    stage.drain()
    assert "columns made again" in check(stage)


@pytest.mark.parametrize(
    ("constraint", "undo"),
    [
        ("ALTER COLUMN c SET NOT NULL", "ALTER COLUMN c DROP NOT NULL"),
        ("ADD CONSTRAINT small CHECK (b < 10)", "DROP CONSTRAINT small"),
    ],
)
def test_a_constraint(stage: Stage, constraint: str, undo: str) -> None:
    """Its keys wait and say why; other buckets and ships go on; without it they go through."""
    stage.main.run(f"ALTER TABLE {WIDE}x {constraint}")
    change(stage)
    stage.update("x", "a", C, 5)
    stage.drain(8)
    assert stage.main.run(f"SELECT a FROM {WIDE}x WHERE created_time = '{C}'") == [(5,)]
    assert stage.main.run(f"SELECT b FROM {WIDE}y WHERE created_time = '{B}'") == [(11,)]
    error = str(stage.main.value("SELECT last_error FROM pymig.status WHERE entity = 'x'"))
    assert "constraint" in error
    assert "recompute failed" in said(stage)
    stage.main.run(f"ALTER TABLE {WIDE}x {undo}")
    stage.drain()
    stage.update("x", "a", A, 20)
    check(stage)


def test_without_a_primary_key(stage: Stage) -> None:
    """Slower, not wrong."""
    stage.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT tbl_data_timeseries_x_pkey")
    change(stage)
    assert check(stage) == []


@pytest.mark.parametrize("how", ["DROP TABLE {}", "ALTER TABLE {} RENAME TO gone", "column"])
def test_a_wide_table_is_gone(stage: Stage, how: str) -> None:
    """CRITICAL, failed, and the way out; the other ship goes on."""
    if how == "column":
        how = "ALTER TABLE {} RENAME COLUMN created_time TO gone"
    stage.main.run(how.format(f"{WIDE}x"))
    with pytest.raises(psycopg.Error, match="cannot be verified: the wide table") as error:
        stage.main.run("CALL pymig.verify('x')")
    assert error.value.sqlstate == "PM025"
    change(stage)
    stage.drain(3)
    assert said(stage)[0] == "wide table gone"
    assert said(stage).count("wide table gone") == 1
    assert stage.main.value("SELECT state FROM pymig.entity WHERE entity = 'x'") == "failed"
    assert stage.main.run(f"SELECT b FROM {WIDE}y WHERE created_time = '{B}'") == [(11,)]
    if how.startswith("DROP"):
        stage.main.run("CALL pymig.roll_back('x')")
    else:
        old, new = ("gone", "created_time") if "COLUMN" in how else ("gone", "x")
        stage.main.run(
            f"ALTER TABLE {WIDE}x RENAME COLUMN {old} TO {new}"
            if "COLUMN" in how
            else "ALTER TABLE tenant.gone RENAME TO tbl_data_timeseries_x"
        )
    stage.drain()
    stage.main.run("CALL pymig.migrate('x', p_column_types => 'native')")
    check(stage)


def test_a_wide_table_is_gone_and_the_narrow_one_truncated(stage: Stage) -> None:
    """TRUNCATE looks at every wide table: one that is gone does not stop the others' queue."""
    stage.main.run(f"DROP TABLE {WIDE}x")
    stage.main.run(f"TRUNCATE {TABLE}")
    stage.insert("y", "a", B, 1)
    stage.drain(3)
    assert stage.main.run(f"SELECT a FROM {WIDE}y") == [(1,)]
    assert said(stage) == ["wide table gone"]
    stage.main.run("CALL pymig.roll_back('x')")
    assert stage.damage("y") == []


@pytest.mark.parametrize("column", ["data_channel_id", "long_v", "value_format"])
def test_a_narrow_column_is_renamed(stage: Stage, column: str) -> None:
    """Ingest goes on; what the worker can't read it keeps, until the name is back."""
    stage.main.run(f"ALTER TABLE {TABLE} RENAME {column} TO other")
    insert = f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format) VALUES ('x', 'a', '{B}', 5, 'Integer')"
    stage.main.run(insert.replace(column, "other"))
    stage.main.run("CALL pymig.sync_pending()")
    stage.main.run(f"ALTER TABLE {TABLE} RENAME other TO {column}")
    assert stage.damage("x", "y") == []
    assert stage.main.run(f"SELECT a FROM {WIDE}x WHERE created_time = '{B}'") == [(5,)]


@pytest.mark.parametrize("direct", [False, True])
def test_the_narrow_table_is_renamed(stage: Stage, direct: bool) -> None:
    """Followed: its oid is what counts."""
    if direct:
        stage.main.run("CALL pymig.set_sync('x', 'direct')")
    stage.main.run(f"ALTER TABLE {TABLE} RENAME TO other")
    stage.main.run(
        "INSERT INTO tenant.other (ship_id, data_channel_id, created_time, long_v, value_format)"
        f" VALUES ('x', 'a', '{B}', 5, 'Integer')"
    )
    stage.drain()
    stage.main.run("CALL pymig.verify('x')")
    assert stage.main.run(f"SELECT a FROM {WIDE}x WHERE created_time = '{B}'") == [(5,)]


def test_the_view_is_gone(stage: Stage) -> None:
    """Verify makes it again."""
    stage.patch("_deal_types", ("v_columns + 2 > 1600", "p_is_appended AND v_part = 1"))
    change(stage)
    stage.drain()
    stage.main.run(f"DROP VIEW {WIDE}x")
    assert check(stage) == ["view made again"]
    assert stage.main.run(f"SELECT d FROM {WIDE}x ORDER BY created_time") == [
        (None,),
        (12,),
        (None,),
    ]


def test_while_a_column_is_promoted(stage: Stage) -> None:
    """Its old column renamed, its new one dropped: it begins again, and ends."""
    stage.main.run("CALL pymig.set_type_drift('x', 'promote')")
    stage.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, double_v, value_format)"
        f" VALUES ('x', 'a', '{B}', 0.5, 'Decimal')"
    )
    stage.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    stage.main.run(
        "SELECT pymig._recompute_todo(s, 'x', ARRAY[%s::int8]) FROM pymig.source AS s",
        stage.bucket(B),
    )
    stage.main.run("SELECT pymig._promote_step(s, 'x') FROM pymig.source AS s")
    new = stage.main.value("SELECT wide_column FROM pymig.promotion")
    stage.main.run(f"ALTER TABLE {WIDE}x RENAME COLUMN a TO a2")
    stage.main.run(f"ALTER TABLE {WIDE}x DROP COLUMN {new}")
    change(stage)
    for _ in range(5):
        stage.main.run("UPDATE pymig.entity SET promote_at = NULL")
        stage.drain()
    check(stage)
    assert stage.main.run("SELECT wide_column, column_type FROM pymig.channel_map WHERE entity = 'x' AND channel = 'a'") == [("a2", "float8")]  # fmt: skip


def test_rolled_back_before_it_is_looked_at(stage: Stage) -> None:
    """Verify has read the entity, then somebody rolls it back: nothing is wrong with its tables."""
    stage.main.run("CALL pymig.roll_back('x')")
    assert stage.main.value("SELECT pymig._mend_columns(s, 'x') FROM pymig.source AS s") is False
    assert said(stage) == []


def made_anew_meanwhile(stage: Stage) -> list[str]:
    """Its table was found gone, then somebody rolls it back and migrates it anew."""
    stage.patch(
        "_mend_columns", ("IF v_view IS NULL", "PERFORM race.pause('look'); IF v_view IS NULL")
    )
    stage.main.run(f"DROP TABLE {WIDE}x")
    verifier = stage.session("verifier")
    with stage.held("verifier", "look"):
        verifier.start("SELECT pymig._mend_columns(s, 'x') FROM pymig.source AS s")
        stage.stopped(verifier)
        stage.main.run("CALL pymig.roll_back('x')")
        stage.main.run("CALL pymig.migrate('x')")
    verifier.finish()
    return said(stage)


def test_made_anew_before_it_is_looked_at(stage: Stage) -> None:
    """What the docstring says; nothing failed."""
    assert made_anew_meanwhile(stage) == []
    check(stage)


def test_made_anew_is_seen_to_fail_without_a_second_look(stage: Stage) -> None:
    """Mutation: what was seen before the lock is believed."""
    stage.patch(
        "_mend_columns", ("v_faults := pymig._part_faults(p_source, p_entity);\n        IF", "IF")
    )
    assert made_anew_meanwhile(stage) == ["wide table gone"]


MUTATIONS = [
    ("_column_changes", "WHEN r.attnum IS NOT NULL THEN 'renamed'", "WHEN false THEN ''", "rename"),
    (
        "_mend_columns",
        "PERFORM pymig._expand_range(p_source, p_entity, -9223372036854775808, 9223372036854775807);",
        "",
        "drop",
    ),
    ("_drain_run", "v_failure IN ('42703', '42P01', '42804')", "false", "drop"),
]


@pytest.mark.parametrize(
    ("routine", "old", "new", "how"), MUTATIONS, ids=["renamed", "requeued", "noticed"]
)
def test_mutation_is_seen(stage: Stage, routine: str, old: str, new: str, how: str) -> None:
    """A rename not followed, values not filled in, a failure not looked into."""
    stage.patch(routine, (old, new))
    stage.main.run(
        f"ALTER TABLE {WIDE}x RENAME COLUMN b TO b2"
        if how == "rename"
        else f"ALTER TABLE {WIDE}x DROP COLUMN a"
    )
    change(stage)
    stage.drain()
    left = stage.main.run(f"SELECT * FROM {WIDE}x LIMIT 0")
    names = [column.name for column in stage.main.conn.execute(f"SELECT * FROM {WIDE}x").description or ()]  # fmt: skip
    damage = stage.damage("x") if "a" in names else ["no column"]
    if how == "rename" and "b" in names:
        damage = [*damage, "a column twice"]
    assert left == [] and damage
