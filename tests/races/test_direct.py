"""Direct writes: what they do, what they leave to the worker, that they wait for nobody; and each protection taken away."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.conftest import Database
from tests.races.interleave import SOURCE, TABLE, WIDE, Session, Stage, damage_without, times
from tests.races.scenarios import SYNC

A, B, C, D = times(4)
PAUSED = f"SELECT coalesce(pg_sequence_last_value('pymig.{SOURCE}_paused'), 0) > 0"
RECOMPUTE = "SELECT pymig._recompute_todo(s, 'x', ARRAY[%s::int8]) FROM pymig.source AS s"
ROWS = (
    f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
    " SELECT 'x', c.c, timestamp '2024-03-02 11:00:00' + t * interval '1 second', t, 'Integer'"
    " FROM unnest(ARRAY['a', 'b']) AS c (c), generate_series(1, %s) AS t"
)


def direct(s: Stage, *ships: str) -> Stage:
    """Ships with channels a and b, in sync and direct."""
    for ship in ships or ("x",):
        for channel in ("a", "b"):
            s.insert(ship, channel, A, 1)
        s.migrate(ship)
        s.main.run("CALL pymig.set_sync(%s, 'direct', p_budget => interval '10 s')", ship)
    s.drain()
    return s


def seen(s: Stage, by: Session, at: str) -> tuple[object, ...] | None:
    """What a session sees of the wide row of x at a time: values of a and b."""
    rows = by.run(f"SELECT a, b FROM {WIDE}x WHERE created_time = %s", at)
    return rows[0] if rows else None


# --- what is written ------------------------------------------------------------------------------


def test_reads_what_it_wrote(db: Database) -> None:
    """INSERT and UPDATE are in the wide table before the commit, in one row, and gone with a rollback."""
    s = direct(Stage(db))
    writer = s.session("writer")
    writer.begin()
    s.insert("x", "a", B, 5, writer)
    assert seen(s, writer, B) == ("5", None)
    s.insert("x", "b", B, 6, writer)
    s.update("x", "a", A, 7, writer)
    assert (seen(s, writer, B), seen(s, writer, A)) == (("5", "6"), ("7", "1"))
    writer.run("SAVEPOINT s")
    s.update("x", "a", B, 9, writer)
    assert seen(s, writer, B) == ("9", "6")
    writer.run("ROLLBACK TO s")
    assert seen(s, writer, B) == ("5", "6")
    assert seen(s, s.main, B) is None
    writer.run("COMMIT")
    assert s.pending() == 0
    assert seen(s, s.main, B) == ("5", "6")
    writer.begin()
    s.insert("x", "a", C, 5, writer)
    writer.run("ROLLBACK")
    assert seen(s, s.main, C) is None
    assert s.damage("x") == []


@pytest.mark.parametrize("column_types", ["text", "native"])
@pytest.mark.parametrize("channels", [3, 70, 1700])
def test_many_channels_and_parts(db: Database, channels: int, column_types: str) -> None:
    """Of every type and in every part; some columns by name, many through the row type."""
    s = Stage(db)
    insert = (
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, bool_v, str_v, long_v, double_v, value_format)"
        " SELECT 'x', 'c' || g, %s::timestamp, CASE g %% 4 WHEN 0 THEN true END, CASE g %% 4 WHEN 1 THEN 'é\"' || g END,"
        " CASE g %% 4 WHEN 2 THEN -9223372036854775808 + g END, CASE g %% 4 WHEN 3 THEN 0.1 + g END,"
        " (ARRAY['Boolean', 'String', 'Integer', 'Decimal'])[1 + g %% 4] FROM generate_series(1, %s) AS g"
    )
    s.main.run(insert, A, channels)
    s.main.run("CALL pymig.start_sync('x', p_column_types => %s)", column_types)
    s.main.run("CALL pymig.backfill('x')")
    s.main.run("CALL pymig.set_sync('x', 'direct', p_budget => interval '20 s')")
    s.drain()
    s.main.run(insert, B, channels)
    s.main.run(insert, C, 2)
    s.main.run(
        f"UPDATE {TABLE} SET long_v = 7 WHERE value_format = 'Integer' AND created_time IN (%s::timestamp, %s::timestamp)",
        A,
        B,
    )
    assert s.pending() == 0
    assert s.damage("x") == []


def test_statements_of_many_kinds(db: Database) -> None:
    """COPY, ON CONFLICT, MERGE and an UPDATE that exchanges the keys of two rows."""
    s = direct(Stage(db))
    with (
        s.main.conn.cursor() as cursor,
        cursor.copy(
            f"COPY {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format) FROM STDIN"
        ) as copy,
    ):
        for at in (B, C):
            copy.write_row(("x", "a", at, 3, "Integer"))
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format) VALUES ('x', 'a', %s, 4, 'Integer'), ('x', 'b', %s, 4, 'Integer')"
        " ON CONFLICT (ship_id, data_channel_id, created_time) DO UPDATE SET long_v = excluded.long_v",
        B,
        B,
    )
    if s.main.conn.info.server_version >= 150000:
        s.main.run(
            f"MERGE INTO {TABLE} AS t USING (VALUES ('a', 8), ('b', 9)) AS v (c, n) ON t.ship_id = 'x' AND t.data_channel_id = v.c AND t.created_time = '{C}'"
            f" WHEN MATCHED THEN UPDATE SET long_v = v.n WHEN NOT MATCHED THEN INSERT (ship_id, data_channel_id, created_time, long_v, value_format) VALUES ('x', v.c, '{C}', v.n, 'Integer')"
        )
    s.main.run(
        f"ALTER TABLE {TABLE} DROP CONSTRAINT tbl_data_timeseries_pkey, ADD PRIMARY KEY (ship_id, data_channel_id, created_time) DEFERRABLE"
    )
    s.main.run(
        f"UPDATE {TABLE} SET data_channel_id = CASE data_channel_id WHEN 'a' THEN 'b' ELSE 'a' END WHERE created_time = %s",
        C,
    )
    assert s.pending() == 0
    assert s.damage("x") == []


SCHEMA = '"o\'n %I"'
OTHER = f'{SCHEMA}."na""me$b$"'


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        (
            "timestamptz",
            ("2024-03-31 02:30+01", "2024-10-27 02:30:00.123456+02", "4000-01-01 00:00+00 BC"),
        ),
        ("bigint", ("1711848600", "-5", "0")),
        ("date", ("2024-02-29", "1999-12-31", "0044-03-15 BC")),
    ],
)
def test_other_types_and_names(db: Database, kind: str, times: tuple[str, ...]) -> None:
    """uuid ships, integer channels with a dictionary, typed value columns, names that need quotes; a session that prints in its own way."""
    conn = db.connect()
    ship = "5e1f1c2a-0000-4000-8000-00000000000f"
    conn.execute(
        "SET TimeZone = 'Asia/Seoul'; SET extra_float_digits = -5; SET DateStyle = 'German';"
        f'CREATE SCHEMA {SCHEMA}; CREATE TABLE {OTHER} ("sh ip" uuid, "ch%s" int, "at\'" {kind}, "val$f$" float8,'
        ' t text, PRIMARY KEY ("sh ip", "ch%s", "at\'"));'
        f"CREATE TABLE {SCHEMA}.dictionary (id int PRIMARY KEY, name text);"
        f"INSERT INTO {SCHEMA}.dictionary SELECT g, 'na''me ' || g FROM generate_series(1, 5) AS g"
    )
    conn.execute(
        "CALL pymig.register_source('other', %s, 'sh ip', 'ch%%s', 'at''', ARRAY['val$f$', 't'], p_dictionary => %s,"
        " p_dictionary_key => 'id', p_dictionary_name => 'name', p_column_types => 'native', p_time_unit => %s)",
        [OTHER, f"{SCHEMA}.dictionary", "s" if kind == "bigint" else None],
    )

    def insert(at: str) -> None:
        conn.execute(
            f"INSERT INTO {OTHER} SELECT '{ship}', g, '{at}', CASE g % 2 WHEN 0 THEN 0.1::float8 + 0.2 END,"
            " CASE g % 2 WHEN 1 THEN 'x' || g END FROM generate_series(1, 4) AS g"
        )

    insert(times[0])
    conn.execute("CALL pymig.migrate(%s)", [ship])
    conn.execute("CALL pymig.set_sync(%s, 'direct', p_budget => interval '10 s')", [ship.upper()])
    conn.execute("CALL pymig.sync_pending()")
    for at in times[1:]:
        insert(at)
    conn.execute(f'UPDATE {OTHER} SET "val$f$" = "val$f$" / 3 WHERE "val$f$" IS NOT NULL')
    assert conn.execute("SELECT count(*) FROM pymig.pending").fetchone() == (0,)
    found = conn.execute("SELECT wide_table FROM pymig.status").fetchone()
    assert found is not None
    assert conn.execute(f"SELECT count(*) FROM {found[0]}").fetchone() == (3,)
    conn.execute("CALL pymig.verify(%s)", [ship])


# --- what is left to the worker -------------------------------------------------------------------


def at_isolation(level: str) -> Callable[[Stage], None]:
    """A writer of a higher level."""

    def change(s: Stage) -> None:
        writer = s.session("writer")
        writer.begin(level)
        s.insert("x", "a", B, 5, writer)
        writer.run("COMMIT")

    change.__name__ = level.lower().replace(" ", "_")
    return change


def a_null(s: Stage) -> None:
    """NULL takes a value out of a cell, which an upsert does not."""
    s.update("x", "a", A, None)


def a_fault(s: Stage) -> None:
    """A format nobody knows goes to quarantine."""
    s.main.run(f"UPDATE {TABLE} SET value_format = 'what' WHERE data_channel_id = 'a'")


def out_of_quarantine(s: Stage) -> None:
    """A row of the bucket is in quarantine, and is not to stay there when it is mended."""
    a_fault(s)
    s.drain()
    s.main.run(f"UPDATE {TABLE} SET value_format = 'Integer', long_v = 6")


def new_channel(s: Stage) -> None:
    """A column is the worker's to add."""
    s.insert("x", "new", A, 5)


def a_delete(s: Stage) -> None:
    """DELETE clears a cell, or the last of a row."""
    s.delete("x", "a", A)


def another_key(s: Stage) -> None:
    """UPDATE moves a row to another time."""
    s.main.run(f"UPDATE {TABLE} SET created_time = %s WHERE data_channel_id = 'a'", D)


def infinite(s: Stage) -> None:
    """A row at infinity, and one long before everything."""
    s.insert("x", "a", "infinity", 5)
    s.insert("x", "a", "4000-01-01 BC", 5)
    s.delete("x", "a", A)


def not_all_are_direct(s: Stage) -> None:
    """A statement has rows of a ship that is not."""
    s.insert("y", "a", A, 1)
    s.migrate("y")
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format) VALUES ('x', 'a', %s, 2, 'Integer'), ('y', 'a', %s, 3, 'Integer')",
        B,
        B,
    )


def many_keys(s: Stage) -> None:
    """A transaction writes 60 times at most, each of which is a lock."""
    with s.main.conn.transaction():
        for minute in range(10):
            s.main.run(ROWS.replace("11:00", f"{11 + minute}:00"), 9)


def many_statements(s: Stage) -> None:
    """And 60 statements at most, each of which is a subtransaction."""
    with s.main.conn.transaction():
        for value in range(80):
            s.update("x", "a", A, value)


def someone_renamed_a_column(s: Stage) -> None:
    """The column the catalog names is not there; a value for it would be passed over."""
    s.main.run(f"ALTER TABLE {WIDE}x RENAME a TO mine")
    s.main.run(ROWS, 3)


def altered_row_type(s: Stage) -> None:
    """The same through the row type, which has no column to miss."""
    s.patch("_merge_part", ("c_few constant int := 60", "c_few constant int := 0"))
    someone_renamed_a_column(s)


def default_of_somebodys(s: Stage) -> None:
    """A default would fill a cell nobody sent."""
    s.main.run(f"ALTER TABLE {WIDE}x ALTER b SET DEFAULT '0'")
    s.insert("x", "a", B, 5)


def deferred_constraint(s: Stage) -> None:
    """It would fail at the application's commit."""
    s.main.run("CREATE TABLE allowed (a text PRIMARY KEY); INSERT INTO allowed VALUES ('1')")
    s.main.run(
        f"ALTER TABLE {WIDE}x ADD FOREIGN KEY (a) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED"
    )
    s.insert("x", "a", B, 5)
    assert s.pending() == 1
    s.main.run("INSERT INTO allowed VALUES ('5')")


def written_again_inside(s: Stage) -> None:
    """A function in RETURNING changes the row, before the trigger of its statement is told of what it was."""
    s.main.run(
        "CREATE FUNCTION again(p_id bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN"
        f" UPDATE {TABLE} SET long_v = 99 WHERE id = p_id; RETURN p_id; END $$"
    )
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
        f" VALUES ('x', 'a', '{B}', 5, 'Integer') RETURNING again(id)"
    )


def trigger_of_the_application(s: Stage) -> None:
    """It changes the row after our transition table was filled."""
    s.main.run(
        "CREATE FUNCTION fix() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" UPDATE {TABLE} SET long_v = 99 WHERE id = NEW.id; RETURN NULL; END $$"
    )
    s.main.run(
        f"CREATE TRIGGER fix AFTER INSERT ON {TABLE} FOR EACH ROW WHEN (NEW.long_v = 5) EXECUTE FUNCTION fix()"
    )
    s.insert("x", "a", B, 5)


DOUBTS = [
    at_isolation("REPEATABLE READ"),
    at_isolation("SERIALIZABLE"),
    a_null,
    a_fault,
    out_of_quarantine,
    new_channel,
    a_delete,
    another_key,
    infinite,
    not_all_are_direct,
    many_keys,
    many_statements,
    someone_renamed_a_column,
    altered_row_type,
    default_of_somebodys,
    deferred_constraint,
    written_again_inside,
    trigger_of_the_application,
]


def doubt(change: Callable[[Stage], None]) -> Callable[[Stage], list[str]]:
    """The scenario of a doubt: the worker has something to do, and does it."""

    def scenario(s: Stage) -> list[str]:
        direct(s)
        change(s)
        left, paused = s.pending(), s.main.value(PAUSED)
        damage = s.damage()
        return (
            ["it was all written directly"] * (left == 0)
            + ["an error made it pause"] * paused
            + damage
        )

    scenario.__name__ = change.__name__
    return scenario


@pytest.mark.parametrize("change", DOUBTS, ids=lambda f: f.__name__)
def test_left_to_the_worker(db: Database, change: Callable[[Stage], None]) -> None:
    """Its keys are pending, and after a pass of the worker wide is equal."""
    assert doubt(change)(Stage(db)) == []


def promoted_meanwhile(s: Stage) -> list[str]:
    """The column gets a wider type: what is written meanwhile must be in both columns."""
    insert = f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, {{}}, value_format) VALUES ('x', 'c', %s, %s, %s)"
    s.main.run(insert.format("long_v"), A, 1, "Integer")
    s.main.run("CALL pymig.start_sync('x', p_column_types => 'native')")
    s.main.run("CALL pymig.backfill('x')")
    s.main.run("CALL pymig.set_type_drift('x', 'promote')")
    s.main.run("CALL pymig.set_sync('x', 'direct', p_budget => interval '10 s')")
    s.main.run(insert.format("double_v"), "2024-03-05 10:00:00", 0.5, "Decimal")
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    s.main.run(RECOMPUTE, s.bucket("2024-03-05 10:00:00"))
    while s.main.value("SELECT count(*) FROM pymig.promotion WHERE next_bucket IS NULL") == 0:
        s.main.run("SELECT pymig._promote_step(s, 'x') FROM pymig.source AS s")
    s.main.run(insert.format("long_v"), B, 7, "Integer")
    for _ in range(4):
        s.main.run(SYNC)
    kind = s.main.value("SELECT column_type FROM pymig.channel_map WHERE channel = 'c'")
    return s.damage("x") + [f"the column is {kind}"] * (kind != "float8")


# --- nobody waits ---------------------------------------------------------------------------------


def same_row(s: Stage) -> list[str]:
    """Two writers meet in one wide row: the second one leaves its key to the worker."""
    direct(s)
    first, second = s.session("first"), s.session("second")
    first.begin()
    s.insert("x", "a", B, 5, first)
    second.run("SET lock_timeout = '5s'")
    second.start(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format) VALUES ('x', 'b', '{B}', 6, 'Integer')"
    )
    waits = s.stopped_or_done(second)
    first.run("COMMIT")
    second.finish()
    left = s.pending()
    return (
        ["it waits"] * waits
        + ["nothing is pending"] * (left == 0)
        + ["it pauses"] * s.main.value(PAUSED)
        + s.damage("x")
    )


def recompute_in_flight(s: Stage) -> list[str]:
    """A recompute has read the bucket and writes it: who changes a row meanwhile does not wait for it, and is not lost."""
    direct(s)
    s.delete("x", "b", A)
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    s.point(f"{WIDE}x", "BEFORE INSERT", "write")
    worker, writer = s.session("worker"), s.session("writer")
    with s.held("worker", "write"):
        worker.start(RECOMPUTE, s.bucket(A))
        s.stopped(worker)
        writer.start(f"UPDATE {TABLE} SET long_v = 8 WHERE data_channel_id = 'a'")
        waits = s.stopped_or_done(writer)
    worker.finish()
    writer.finish()
    return ["it waits"] * waits + s.damage("x")


def open_writer(s: Stage) -> list[str]:
    """A writer is open: no recompute of its bucket writes what it has read without it, nor fails because of it."""
    direct(s)
    s.patch("_recompute_todo", ("'20ms'", "'20s'"))
    other, worker, writer = (s.session(n) for n in ("other", "worker", "writer"))
    other.begin("REPEATABLE READ")
    s.insert("x", "b", B, 3, other)
    other.run("COMMIT")
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    writer.begin()
    s.insert("x", "a", B, 8, writer)
    worker.start(RECOMPUTE, s.bucket(B))
    s.stopped(worker)
    writer.run("COMMIT")
    worker.finish()
    return s.damage("x")


def hot_bucket(s: Stage) -> list[str]:
    """Writers take turns in a bucket and always one holds it: the worker gets in all the same."""
    direct(s)
    s.patch("_recompute_todo", ("'20ms'", "'20s'"))
    s.delete("x", "b", A)
    s.main.run("SELECT pymig._collect_pending(s) FROM pymig.source AS s")
    worker, first, second = (s.session(n) for n in ("worker", "first", "second"))
    first.begin()
    s.insert("x", "a", B, 8, first)
    worker.start(RECOMPUTE, s.bucket(A))
    if not s.stopped_or_done(worker):
        worker.finish()
        return ["the worker gives up"]
    second.begin()
    s.insert("x", "a", C, 8, second)
    first.run("COMMIT")
    worker.finish()
    left = s.main.value(f"SELECT count(*) FROM pymig.{SOURCE}_todo")
    second.run("COMMIT")
    return [f"{left} keys are left"] * (left > 0) + s.damage("x")


def altered_by_hand(s: Stage) -> list[str]:
    """Somebody holds the wide table, or waits for it behind a reader."""
    direct(s)
    other, reader, writer = s.session("other"), s.session("reader"), s.session("writer")
    reader.begin()
    reader.run(f"SELECT count(*) FROM {WIDE}x")
    other.start(f"ALTER TABLE {WIDE}x ADD COLUMN mine text")
    s.stopped(other)
    writer.start(ROWS.replace("%s", "3"))
    waits = s.stopped_or_done(writer)
    reader.run("COMMIT")
    other.finish()
    writer.finish()
    return ["it waits"] * waits + s.damage("x")


def columns_held(s: Stage) -> list[str]:
    """The worker adds a column, behind a reader: writers do not wait with it."""
    direct(s)
    reader, worker, writer = s.session("reader"), s.session("worker"), s.session("writer")
    reader.begin()
    reader.run(f"SELECT count(*) FROM {WIDE}x")
    s.insert("x", "new", B, 1)
    worker.start(SYNC)
    s.stopped(worker)
    writer.start(ROWS.replace("%s", "3"))
    waits = s.stopped_or_done(writer)
    reader.run("COMMIT")
    worker.finish()
    writer.finish()
    return ["it waits"] * waits + s.damage("x")


def long_writer(s: Stage) -> list[str]:
    """A writer stays open for long: the worker passes its bucket and its columns over, and serves the others."""
    direct(s, "x", "y")
    writer = s.session("writer")
    writer.begin()
    s.insert("x", "a", B, 8, writer)
    s.insert("x", "new", A, 1)
    s.insert("y", "new", A, 1)
    s.main.run("SET statement_timeout = '5s'")
    for _ in range(2):
        s.main.run(SYNC)
    s.main.run("SET statement_timeout = '15s'")
    late = s.main.run("SELECT entity FROM pymig.pending WHERE entity <> 'x'")
    writer.run("COMMIT")
    return [f"{row} is late" for row in late] + s.damage("x", "y")


# --- budget and breaker ---------------------------------------------------------------------------


def over_budget(s: Stage) -> list[str]:
    """A statement takes longer than it may: the next ones leave all to the worker, for a while."""
    direct(s)
    s.main.run("CALL pymig.set_sync('x', 'direct', p_budget => interval '1 microsecond')")
    s.insert("x", "a", B, 5)
    s.main.run("CALL pymig.set_sync('x', 'direct')")
    s.insert("x", "a", C, 5)
    wrong = [] if s.pending() == 2 else [f"{s.pending()} are pending"]
    if s.main.value("SELECT sync FROM pymig.status") != "direct, paused":
        wrong.append("the status does not say so")
    s.main.run(SYNC)
    if s.main.value("SELECT count(*) FROM pymig.event WHERE what = 'direct paused'") != 1:
        wrong.append("no event")
    s.main.run(f"SELECT setval('pymig.{SOURCE}_paused', extract(epoch FROM now())::bigint - 1)")
    s.insert("x", "a", D, 5)
    if s.pending() != 0 or s.main.value("SELECT sync FROM pymig.status") != "direct":
        wrong.append("it does not go on")
    return wrong + s.damage("x")


def wide_table_refuses(s: Stage) -> list[str]:
    """An error of the wide table never reaches ingest, and isn't met again with every statement."""
    direct(s)
    s.main.run(f"ALTER TABLE {WIDE}x ADD CONSTRAINT bad CHECK (a <> '5')")
    s.insert("x", "a", B, 5)
    s.insert("x", "a", C, 6)
    wrong = ["it does not pause"] * (not s.main.value(PAUSED) or s.pending() != 2)
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT bad")
    return wrong + s.damage("x")


def back_to_pending(s: Stage) -> list[str]:
    """The setting is taken back while a writer is open, and a session still has the old functions."""
    direct(s)
    writer = s.session("writer")
    writer.begin()
    s.insert("x", "a", B, 5, writer)
    s.main.run("CALL pymig.set_sync('x', 'pending')")
    s.insert("x", "a", C, 5, writer)
    writer.run("COMMIT")
    s.insert("x", "a", D, 5)
    left = s.pending()
    return [f"{left} pending"] * (left != 2) + s.damage("x")


def rolled_back_meanwhile(s: Stage) -> list[str]:
    """Roll-back waits for an open writer in short attempts, and what is direct afterwards has no table."""
    direct(s, "x", "y")
    writer, other = s.session("writer"), s.session("other")
    writer.begin()
    s.insert("x", "a", B, 5, writer)
    other.start("CALL pymig.roll_back('x')")
    s.stopped(other)
    s.insert("y", "a", C, 5)
    writer.run("COMMIT")
    other.finish()
    s.insert("x", "a", C, 5)
    s.migrate("x")
    s.insert("x", "a", D, 5)
    return s.damage("x", "y")


SCENARIOS = [
    promoted_meanwhile,
    same_row,
    recompute_in_flight,
    open_writer,
    hot_bucket,
    altered_by_hand,
    columns_held,
    long_writer,
    over_budget,
    wide_table_refuses,
    back_to_pending,
    rolled_back_meanwhile,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_direct(db: Database, scenario: Callable[[Stage], list[str]]) -> None:
    """What the docstring of the scenario says, and nothing is wrong afterwards."""
    assert scenario(Stage(db)) == []


def test_a_part_without_its_key(db: Database) -> None:
    """Somebody drops the primary key of a part: no row is there twice."""
    s = Stage(db)
    s.patch("_deal_types", ("v_columns + 2 > 1600", "p_is_appended AND v_part = 1"))
    direct(s)
    s.insert("x", "c", A, 1)
    s.drain()
    s.main.run(f"ALTER TABLE {WIDE}x_2 DROP CONSTRAINT tbl_data_timeseries_x_2_pkey")
    s.update("x", "a", A, 7)
    s.insert("x", "a", B, 7)
    assert s.main.value(f"SELECT count(*) FROM {WIDE}x_2") == 1
    assert s.damage("x") == []


def test_awkward_narrow_tables(db: Database) -> None:
    """A column named like our alias, a dropped one, a rename: direct, or left to the worker, and no error."""
    s = Stage(db)
    s.main.run(f"ALTER TABLE {TABLE} ADD n text, ADD gone text")
    s.main.run(f"ALTER TABLE {TABLE} DROP gone")
    direct(s)
    s.insert("x", "a", B, 5)
    s.update("x", "a", B, 6)
    assert s.pending() == 0
    s.main.run(f"ALTER TABLE {TABLE} ADD later text DEFAULT 'x'")
    s.insert("x", "a", C, 5)
    assert s.pending() == 0
    s.main.run(f"ALTER TABLE {TABLE} RENAME TO other")
    s.main.run(
        "INSERT INTO tenant.other (ship_id, data_channel_id, created_time, long_v, value_format)"
        f" VALUES ('x', 'b', '{C}', 8, 'Integer')"
    )
    s.main.run(f"ALTER TABLE tenant.other RENAME TO {TABLE.partition('.')[2]}")
    assert s.damage("x") == []


def test_set_by_another_role(db: Database) -> None:
    """The owner of the table installs and migrates, a superuser sets it direct."""
    s = Stage(db)
    s.main.run("DROP ROLE IF EXISTS direct_owner; CREATE ROLE direct_owner")
    s.main.run(f"GRANT ALL ON DATABASE {db.name} TO direct_owner")
    s.insert("x", "a", A, 1)
    s.insert("x", "b", A, 1)
    for kind, name in s.main.run(
        "SELECT 'FUNCTION', p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'pymig'::regnamespace AND p.prokind = 'f'"
        " UNION ALL SELECT 'PROCEDURE', p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'pymig'::regnamespace AND p.prokind = 'p'"
        " UNION ALL SELECT 'TABLE', c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace IN ('pymig'::regnamespace, 'tenant'::regnamespace) AND c.relkind IN ('r', 'v')"
    ):
        s.main.run(f"ALTER {kind} {name} OWNER TO direct_owner")
    s.main.run(
        "ALTER SCHEMA pymig OWNER TO direct_owner; ALTER SCHEMA tenant OWNER TO direct_owner"
    )
    for sequence in ("turn", "lost", "paused"):
        s.main.run(f"ALTER SEQUENCE pymig.{SOURCE}_{sequence} OWNER TO direct_owner")
    s.main.run("SET ROLE direct_owner")
    s.migrate("x")
    s.main.run("RESET ROLE")
    s.main.run("CALL pymig.set_sync('x', 'direct', p_budget => interval '10 s')")
    s.insert("x", "a", B, 5)
    assert (s.pending(), s.main.value(PAUSED)) == (0, False)
    assert s.damage("x") == []
    s.main.run(
        "REASSIGN OWNED BY direct_owner TO CURRENT_USER; DROP OWNED BY direct_owner; DROP ROLE direct_owner"
    )


def test_refused_where_it_cannot_be_right(db: Database) -> None:
    """A source with duplicates, a wrong word, a ship nobody knows: one sentence each."""
    s = Stage(db, unique=False)
    s.insert("x", "a", A, 1)
    s.migrate("x")
    for call, code in (
        ("CALL pymig.set_sync('x', 'direct')", "PM030"),
        ("CALL pymig.set_sync('x', 'at once')", "PM007"),
        ("CALL pymig.set_sync('x', 'pending', p_budget => interval '0')", "PM007"),
        ("CALL pymig.set_sync('nobody', 'pending')", "PM002"),
    ):
        with pytest.raises(psycopg.Error) as error:
            s.main.run(call)
        assert error.value.sqlstate == code


# --- mutations ------------------------------------------------------------------------------------


def any_level(s: Stage) -> None:
    """Direct at every isolation level."""
    s.patch(
        "_create_trigger_functions",
        (
            "pg_catalog.current_setting(''transaction_isolation'')"
            " OPERATOR(pg_catalog.=) ''read committed''",
            "true",
        ),
    )


def keys_unchecked(s: Stage) -> None:
    """UPDATE may move a row."""
    s.patch("_create_trigger_functions", ("'{keeps_keys}', v_keeps_keys", "'{keeps_keys}', 'true'"))


def others_forgotten(s: Stage) -> None:
    """A statement with rows of others records nothing, once it has written its own."""
    s.patch(
        "_create_trigger_functions",
        ("IF NOT EXISTS (SELECT FROM new_rows AS n WHERE (%2$s) IS NOT TRUE) THEN", "IF true THEN"),
    )


def time_unlocked(s: Stage) -> None:
    """Two may write one row."""
    s.patch(
        "_lock_directly",
        ("pg_try_advisory_xact_lock(pymig._lock_key('time'", "0 < abs(pymig._lock_key('time'"),
    )
    s.patch("_create_direct_function", ("'10ms'", "'5s'"))


def bucket_unlocked(s: Stage) -> None:
    """Recomputers and direct writers do not exclude each other."""
    s.patch(
        "_lock_directly",
        (
            "pg_try_advisory_xact_lock_shared(pymig._lock_key('bucket'",
            "0 < abs(pymig._lock_key('bucket'",
        ),
    )
    s.patch("_create_direct_function", ("'10ms'", "'5s'"))


def worker_gives_way(s: Stage) -> None:
    """The worker only tries the lock of a bucket."""
    s.patch("_recompute_todo", ("IF NOT coalesce(v_is_direct, false) THEN", "IF true THEN"))


def table_waited_for(s: Stage) -> None:
    """The wide table's lock is waited for."""
    s.patch("_lock_directly", (" MODE NOWAIT", " MODE"))
    s.patch("_create_direct_function", ("'10ms'", "'5s'"))


def worker_waits_long(s: Stage) -> None:
    """The worker waits for a writer as for another worker."""
    s.patch("_lock_entity", ("'300ms'", "'10s'"))
    s.patch("_recompute_todo", ("'20ms'", "'10s'"))


def promotion_ignored(s: Stage) -> None:
    """Direct also while a column gets another type."""
    s.patch(
        "_lock_directly",
        (
            "AND NOT EXISTS (SELECT FROM pymig.promotion",
            "AND (true OR EXISTS (SELECT FROM pymig.promotion",
        ),
        ("m.entity = p_entity)\n", "m.entity = p_entity))\n"),
    )


def quarantine_ignored(s: Stage) -> None:
    """Direct also where rows of the bucket are in quarantine."""
    s.patch("_lock_directly", ("q.bucket = ANY (v_buckets)", "false"))


def columns_unchecked(s: Stage) -> None:
    """The catalog's word is taken for what columns there are."""
    s.patch("_create_direct_function", ("a.attname = c.wide_column", "true"))


def null_is_a_value(s: Stage) -> None:
    """NULL is merged like a value: it leaves the old one."""
    s.patch("_create_direct_function", ("x.is_plain AND x.value IS NOT NULL", "x.is_plain"))


def keys_uncounted(s: Stage) -> None:
    """A transaction may write as many keys as it likes."""
    s.patch("_lock_directly", ("v_keys <= c_keys", "true"))


def defaults_ignored(s: Stage) -> None:
    """Defaults and deferred constraints of the wide table are not looked for."""
    s.patch(
        "_lock_directly",
        ("d.adrelid = v_part", "false"),
        ("t.tgrelid = v_part AND t.tgdeferrable", "false"),
    )


def told_is_believed(s: Stage) -> None:
    """What the transition table says is not compared with the narrow table."""
    s.patch("_create_direct_function", ("pymig._direct_keys() > 0", "false"))


def never_paused(s: Stage) -> None:
    """What went wrong is tried again with the next statement."""
    s.patch("_not_written", ("IF p_sqlstate <> 'PM031' AND", "IF false AND"))


MUTATIONS = [
    (any_level, doubt(DOUBTS[0])),
    (told_is_believed, doubt(trigger_of_the_application)),
    (keys_unchecked, doubt(another_key)),
    (others_forgotten, doubt(not_all_are_direct)),
    (null_is_a_value, doubt(a_null)),
    (quarantine_ignored, doubt(out_of_quarantine)),
    (columns_unchecked, doubt(altered_row_type)),
    (defaults_ignored, doubt(default_of_somebodys)),
    (defaults_ignored, doubt(deferred_constraint)),
    (told_is_believed, doubt(written_again_inside)),
    (keys_uncounted, doubt(many_keys)),
    (keys_uncounted, doubt(many_statements)),
    (time_unlocked, same_row),
    (bucket_unlocked, recompute_in_flight),
    (bucket_unlocked, open_writer),
    (worker_gives_way, hot_bucket),
    (table_waited_for, altered_by_hand),
    (worker_waits_long, long_writer),
    (promotion_ignored, promoted_meanwhile),
    (never_paused, over_budget),
    (never_paused, wide_table_refuses),
]


@pytest.mark.parametrize(
    ("mutate", "scenario"), MUTATIONS, ids=lambda f: getattr(f, "__name__", "")
)
def test_mutation_is_seen(
    db: Database, mutate: Callable[[Stage], None], scenario: Callable[[Stage], list[str]]
) -> None:
    """The scenario goes red without the protection."""
    assert damage_without(Stage(db), mutate, scenario)
