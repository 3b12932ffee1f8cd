"""Every way an application writes a narrow table, each a few statements on rows of its own.

A style works on its own ten minutes of two ships and writes down what each of its statements came
to: the number of rows, the rows that RETURNING gave, or the SQLSTATE. The same style in a database
without pymig must have come to the same, and must have left the same rows: what ingest does, and
what happens to it, is not to change because somebody migrates.
"""

# ruff: noqa: E501  (texts of SQL, to be read as they stand)

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql

ROLE = "pymig_matrix_app"
MINUTES = 10  # of a style

# The application's own schema: dictionaries that cascade, triggers that change rows, views.
APPLICATION: LiteralString = """
CREATE SCHEMA app;
CREATE TABLE app.channel (channel text PRIMARY KEY);
CREATE TABLE app.voyage (voyage int PRIMARY KEY);
INSERT INTO app.channel
    SELECT unnest('{a,b,c,n,before,skip,after,after_late,deferred,stmt,stmt_del,bad,old_name,gone}'::text[]);
INSERT INTO app.voyage SELECT generate_series(1, 9);
ALTER TABLE tenant.tbl_data_timeseries
    ADD voyage int REFERENCES app.voyage ON UPDATE CASCADE ON DELETE CASCADE,
    ADD FOREIGN KEY (data_channel_id) REFERENCES app.channel ON UPDATE CASCADE ON DELETE CASCADE;
CREATE INDEX ON tenant.tbl_data_timeseries (voyage);
CREATE INDEX ON tenant.tbl_data_timeseries (data_channel_id);

CREATE FUNCTION app.before_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.data_channel_id = 'skip' THEN
        RETURN NULL;
    END IF;
    NEW.long_v := NEW.long_v + 1000;
    NEW.created_time := NEW.created_time + interval '30 seconds';
    RETURN NEW;
END $$;
CREATE TRIGGER app_before BEFORE INSERT OR UPDATE ON tenant.tbl_data_timeseries FOR EACH ROW
    WHEN (NEW.data_channel_id IN ('before', 'skip')) EXECUTE FUNCTION app.before_row();

CREATE FUNCTION app.after_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.data_channel_id = 'bad' THEN
        RAISE EXCEPTION 'the application does not want it' USING ERRCODE = 'AP001';
    END IF;
    UPDATE tenant.tbl_data_timeseries AS t SET long_v = t.long_v + 1, created_time = t.created_time + interval '20 seconds'
    WHERE (t.ship_id, t.data_channel_id, t.created_time) = (NEW.ship_id, NEW.data_channel_id, NEW.created_time);
    INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v, value_format)
    VALUES ('y', 'n', NEW.created_time + interval '4 minutes', 7, 'Integer')
    ON CONFLICT (ship_id, data_channel_id, created_time) DO UPDATE SET long_v = excluded.long_v + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER app_after AFTER INSERT ON tenant.tbl_data_timeseries FOR EACH ROW
    WHEN (NEW.data_channel_id = 'after') EXECUTE FUNCTION app.after_row();
CREATE TRIGGER zz_after AFTER INSERT ON tenant.tbl_data_timeseries FOR EACH ROW
    WHEN (NEW.data_channel_id IN ('after_late', 'bad')) EXECUTE FUNCTION app.after_row();
CREATE CONSTRAINT TRIGGER zz_deferred AFTER INSERT ON tenant.tbl_data_timeseries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.data_channel_id = 'deferred') EXECUTE FUNCTION app.after_row();

CREATE FUNCTION app.after_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tenant.tbl_data_timeseries AS t USING fresh AS f
    WHERE f.data_channel_id = 'stmt_del' AND (t.ship_id, t.data_channel_id, t.created_time) = (f.ship_id, f.data_channel_id, f.created_time);
    UPDATE tenant.tbl_data_timeseries AS t SET ship_id = 'y' FROM fresh AS f
    WHERE f.data_channel_id = 'stmt' AND t.ship_id = 'x' AND (t.ship_id, t.data_channel_id, t.created_time) = (f.ship_id, f.data_channel_id, f.created_time);
    RETURN NULL;
END $$;
CREATE TRIGGER aa_statement AFTER INSERT ON tenant.tbl_data_timeseries REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION app.after_statement();
CREATE TRIGGER zz_statement AFTER INSERT ON tenant.tbl_data_timeseries REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION app.after_statement();

CREATE VIEW app.plain AS SELECT * FROM tenant.tbl_data_timeseries WHERE ship_id = 'x';
CREATE VIEW app.triggered AS SELECT ship_id, created_time, long_v FROM tenant.tbl_data_timeseries;
CREATE FUNCTION app.instead_of() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v, value_format)
    VALUES (NEW.ship_id, 'n', NEW.created_time, NEW.long_v, 'Integer');
    RETURN NEW;
END $$;
CREATE TRIGGER instead INSTEAD OF INSERT ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.instead_of();
CREATE TABLE app.ruled (ship text, at timestamp, value int8);
CREATE RULE ruled AS ON INSERT TO app.ruled DO INSTEAD (
    INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v, value_format)
        VALUES (NEW.ship, 'n', NEW.at, NEW.value, 'Integer');
    UPDATE tenant.tbl_data_timeseries SET long_v = NEW.value
        WHERE ship_id = NEW.ship AND data_channel_id = 'b' AND created_time = NEW.at);

CREATE FUNCTION app.try_both(p_ship text, p_at timestamp) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v, value_format)
        VALUES (p_ship, 'n', p_at, 1, 'Integer'), (p_ship, 'a', p_at, 1, 'Integer');
    EXCEPTION WHEN unique_violation THEN
        UPDATE tenant.tbl_data_timeseries SET long_v = 77 WHERE ship_id = p_ship AND data_channel_id = 'a' AND created_time = p_at;
        RETURN 'updated';
    END;
    RETURN 'inserted';
END $$;
CREATE PROCEDURE app.batch(p_ship text, p_at timestamp) LANGUAGE plpgsql AS $$
BEGIN
    FOR v_i IN 0 .. 3 LOOP
        UPDATE tenant.tbl_data_timeseries SET long_v = 100 + v_i WHERE ship_id = p_ship AND data_channel_id = 'a' AND created_time = p_at + v_i * interval '1 minute';
        IF v_i = 2 THEN ROLLBACK; ELSE COMMIT; END IF;
    END LOOP;
END $$;
GRANT USAGE ON SCHEMA app, tenant TO pymig_matrix_app;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA app, tenant TO pymig_matrix_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA tenant TO pymig_matrix_app;
GRANT SET ON PARAMETER session_replication_role TO pymig_matrix_app;
"""
# What is there when a style begins: four times of three channels of x, and two of y.
HISTORY: LiteralString = """
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, long_v, value_format, voyage)
SELECT s.ship, c.channel, '2024-03-02'::timestamp + (n * %(minutes)s + i) * interval '1 minute', n, 'Integer', NULL
FROM (VALUES ('x', 3), ('y', 1)) AS s (ship, last), (VALUES ('a'), ('b'), ('c')) AS c (channel),
    generate_series(0, %(styles)s - 1) AS n, generate_series(0, s.last) AS i
"""
ROWS: LiteralString = """
SELECT ship_id, data_channel_id, created_time::text, long_v, str_v, value_format, voyage
FROM tenant.tbl_data_timeseries ORDER BY 1, 2, 3
"""
T = "tenant.tbl_data_timeseries"
INTO = f"INSERT INTO {T} (ship_id, data_channel_id, created_time, long_v, value_format) "
CONFLICT = "ON CONFLICT (ship_id, data_channel_id, created_time) DO "
KEY = "WHERE ship_id = 'x' AND data_channel_id = %s AND created_time = %s::timestamp"

Outcome = tuple[str, Any]


@dataclass
class App:
    """An application's session; `slot` is the style it is at. `single`: all styles in one transaction."""

    conn: psycopg.Connection[Any]
    single: bool
    isolation: str
    slot: int = 0
    style: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Errors that nobody expected, with their context: never to be seen."""

    def at(self, minute: int, second: int = 0) -> str:
        """A time of this style."""
        minutes = self.slot * MINUTES + minute
        return f"2024-03-02 {minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"

    def run(self, statement: str, *params: Any) -> None:
        """Run a statement, note what it came to."""
        cursor = self.conn.execute(statement, params or None)
        rows = cursor.fetchall() if cursor.description else None
        self.note(cursor.rowcount if rows is None else rows)

    def note(self, what: Any) -> None:
        """Note what came of this style."""
        self.outcomes.append((self.style, what))

    def fails(self, statement: str, *params: Any) -> None:
        """A statement that the application knows to fail, in a savepoint."""
        self.conn.execute("SAVEPOINT f")
        try:
            self.run(statement, *params)
        except psycopg.Error as error:
            self.note(error.sqlstate)
            self.conn.execute("ROLLBACK TO SAVEPOINT f")

    @contextmanager
    def transaction(self, end: str = "COMMIT") -> Iterator[None]:
        """A transaction of this style's own; a savepoint where all styles are in one."""
        if self.single:
            self.conn.execute("SAVEPOINT t")
            yield
            self.conn.execute(
                "RELEASE SAVEPOINT t" if end == "COMMIT" else "ROLLBACK TO SAVEPOINT t"
            )
        else:
            self.conn.execute(f"BEGIN ISOLATION LEVEL {self.isolation}")
            yield
            self.conn.execute(end)

    def do(self, slot: int, style: Style) -> None:
        """Act one style out; an error is noted, and ends the transaction it was in."""
        self.slot, self.style = slot, style.__name__
        if self.single:
            self.conn.execute("SAVEPOINT style")
        try:
            style(self)
        except psycopg.Error as error:
            self.note(error.sqlstate)
            self.errors.append(f"{self.style} at {self.isolation}: {error} | {error.diag.context}")
            self.conn.execute("ROLLBACK TO SAVEPOINT style" if self.single else "ROLLBACK")


Style = Callable[[App], None]
STYLES: list[Style] = []
ALONE: set[str] = set()


def style(act: Style) -> Style:
    """A style for any transaction."""
    STYLES.append(act)
    return act


def alone(act: Style) -> Style:
    """A style that begins and ends transactions itself."""
    ALONE.add(act.__name__)
    return style(act)


def slots(single: bool) -> list[tuple[int, Style]]:
    """The styles with their places in time."""
    return [(n, s) for n, s in enumerate(STYLES) if not single or s.__name__ not in ALONE]


# --- inserts ------------------------------------------------------------------------------------


@style
def single_rows(a: App) -> None:
    """One row a statement: a new cell of an old time, and a new time."""
    a.run(INTO + "VALUES ('x', 'n', %s, 1, 'Integer')", a.at(0))
    a.run(INTO + "VALUES ('x', 'a', %s, 1, 'Integer') RETURNING long_v", a.at(5))


@style
def prepared_rows(a: App) -> None:
    """A prepared statement of two rows, used often enough for a generic plan."""
    for second in range(7):
        a.conn.execute(
            INTO
            + "VALUES ('x', 'n', %s::text::timestamp, %s::int8, 'Integer'), ('y', 'n', %s::text::timestamp, 1, 'Integer')",
            [a.at(0, second), second, a.at(1, second)],
            prepare=True,
        )


@style
def pipelined(a: App) -> None:
    """executemany, which sends a pipeline."""
    with a.conn.cursor() as cursor:
        cursor.executemany(
            INTO + "VALUES ('x', %s, %s, 5, 'Integer')", [(c, a.at(6)) for c in "abc"]
        )


@style
def insert_select(a: App) -> None:
    """Rows made of the table itself."""
    a.run(
        INTO
        + f"SELECT 'y', data_channel_id, created_time + interval '5 minutes', 8, 'Integer' FROM {T}"
        " WHERE ship_id = 'x' AND created_time BETWEEN %s::timestamp AND %s::timestamp",
        a.at(0),
        a.at(3),
    )


def _copy(a: App, how: str, rows: list[tuple[Any, ...]]) -> None:
    target = f"COPY {T} (ship_id, data_channel_id, created_time, long_v, value_format) FROM STDIN"
    with a.conn.cursor() as cursor:
        with cursor.copy(f"{target} {how}") as copy:
            if "binary" in how:
                copy.set_types(["text", "text", "timestamp", "int8", "varchar"])
            for row in rows:
                if "csv" in how:
                    copy.write(",".join(map(str, row)) + "\n")
                else:
                    copy.write_row(row)
        a.note(cursor.rowcount)


@style
def copy_text(a: App) -> None:
    """COPY in text, rows of both ships, two rows of one time."""
    _copy(a, "", [("x", "n", a.at(1), 1, "Integer"), ("x", "a", a.at(7), 1, "Integer")])
    _copy(a, "", [("y", c, a.at(7), 1, "Integer") for c in "ab"])


@style
def copy_binary(a: App) -> None:
    """COPY in binary."""
    from datetime import datetime

    _copy(
        a,
        "(FORMAT binary)",
        [("x", c, datetime.fromisoformat(a.at(8)), 9, "Integer") for c in "abc"],
    )


@style
def copy_csv_where(a: App) -> None:
    """COPY that leaves rows out, in CSV."""
    rows = [("x", "n", a.at(n), n, "Integer") for n in range(6)]
    _copy(a, "(FORMAT csv) WHERE long_v % 2 = 0", rows)


@style
def upsert(a: App) -> None:
    """ON CONFLICT DO UPDATE: some rows are new, some known, one is left alone by the condition."""
    a.run(
        INTO
        + "VALUES ('x', 'a', %s, 51, 'Integer'), ('x', 'n', %s, 52, 'Integer'), ('x', 'b', %s, -1, 'Integer') "
        + CONFLICT
        + "UPDATE SET long_v = excluded.long_v WHERE excluded.long_v > 0 RETURNING long_v",
        a.at(0),
        a.at(0),
        a.at(1),
    )


@style
def upsert_that_moves(a: App) -> None:
    """ON CONFLICT DO UPDATE that changes the time of the row it meets."""
    a.run(
        INTO
        + "VALUES ('x', 'a', %s, 1, 'Integer') "
        + CONFLICT
        + "UPDATE SET created_time = excluded.created_time + interval '6 minutes'",
        a.at(1),
    )


@style
def insert_or_ignore(a: App) -> None:
    """ON CONFLICT DO NOTHING: one known, one new, and one of only known rows."""
    a.run(
        INTO
        + "VALUES ('x', 'a', %s, 61, 'Integer'), ('x', 'n', %s, 62, 'Integer') "
        + CONFLICT
        + "NOTHING",
        a.at(0),
        a.at(0),
    )
    a.run(INTO + "VALUES ('x', 'a', %s, 61, 'Integer') ON CONFLICT DO NOTHING", a.at(0))


@style
def merge(a: App) -> None:
    """MERGE that inserts, updates, deletes and does nothing."""
    a.run(
        f"MERGE INTO {T} AS t USING (VALUES ('a', %s::timestamp, 1), ('b', %s::timestamp, 2), ('c', %s::timestamp, 3), ('n', %s::timestamp, 4))"
        " AS s (channel, at, v) ON t.ship_id = 'x' AND t.data_channel_id = s.channel AND t.created_time = s.at"
        " WHEN MATCHED AND s.v = 1 THEN DELETE"
        " WHEN MATCHED AND s.v = 2 THEN UPDATE SET long_v = 71, created_time = s.at + interval '6 minutes'"
        " WHEN MATCHED THEN DO NOTHING"
        " WHEN NOT MATCHED THEN INSERT (ship_id, data_channel_id, created_time, long_v, value_format)"
        " VALUES ('x', s.channel, s.at, s.v, 'Integer')",
        *[a.at(0)] * 4,
    )


@style
def merge_by_source(a: App) -> None:
    """MERGE of PostgreSQL 17: rows that the source lacks are deleted, RETURNING."""
    if a.conn.info.server_version < 170000:
        return
    a.run(
        f"MERGE INTO {T} AS t USING (VALUES (%s::timestamp)) AS s (at)"
        " ON t.created_time = s.at AND t.ship_id = 'x'"
        " WHEN MATCHED THEN UPDATE SET long_v = 81"
        " WHEN NOT MATCHED BY SOURCE AND t.ship_id = 'x' AND t.created_time BETWEEN %s::timestamp AND %s::timestamp THEN DELETE"
        " RETURNING merge_action()",
        a.at(0),
        a.at(0),
        a.at(3),
    )


@style
def no_rows(a: App) -> None:
    """Statements that touch nothing."""
    a.run(f"DELETE FROM {T} WHERE false")
    a.run(f"UPDATE {T} SET long_v = 1 WHERE false")
    a.run(INTO + "SELECT 'x', 'a', now(), 1, 'Integer' WHERE false")


# --- updates ------------------------------------------------------------------------------------


@style
def values(a: App) -> None:
    """A value, a NULL, and a value again."""
    a.run(f"UPDATE {T} SET long_v = 5 {KEY}", "a", a.at(0))
    a.run(f"UPDATE {T} SET long_v = NULL {KEY}", "b", a.at(0))
    a.run(f"UPDATE {T} SET long_v = NULL {KEY}", "c", a.at(0))
    a.run(f"UPDATE {T} SET long_v = 6 {KEY}", "c", a.at(0))


@style
def move_in_time(a: App) -> None:
    """Times within a bucket, to another bucket, and all channels of a time at once."""
    a.run(f"UPDATE {T} SET created_time = created_time + interval '7 minutes' {KEY}", "a", a.at(0))
    a.run(f"UPDATE {T} SET created_time = created_time - interval '2 days' {KEY}", "b", a.at(0))
    a.run(
        f"UPDATE {T} SET created_time = created_time + interval '5 seconds' WHERE ship_id = 'x' AND created_time = %s::timestamp",
        a.at(2),
    )


@style
def move_to_channel(a: App) -> None:
    """Channels, to a known one and to a new one."""
    a.run(f"DELETE FROM {T} {KEY}", "b", a.at(0))
    a.run(f"UPDATE {T} SET data_channel_id = 'b' {KEY}", "a", a.at(0))
    a.run(f"UPDATE {T} SET data_channel_id = 'n' {KEY}", "a", a.at(1))


@style
def move_to_ship(a: App) -> None:
    """Ships, to one that is migrated and to one that is not, and back from it."""
    a.run(f"UPDATE {T} SET ship_id = 'y' {KEY}", "a", a.at(2))
    a.run(f"UPDATE {T} SET ship_id = 'foreign' {KEY}", "b", a.at(2))
    a.run(f"UPDATE {T} SET ship_id = 'foreign' {KEY}", "c", a.at(2))
    a.run(
        f"UPDATE {T} SET ship_id = 'x', long_v = 3 WHERE ship_id = 'foreign' AND data_channel_id = 'c' AND created_time = %s::timestamp",
        a.at(2),
    )


@style
def update_from(a: App) -> None:
    """UPDATE … FROM, one row by another."""
    a.run(
        f"UPDATE {T} AS t SET long_v = s.long_v + 9 FROM {T} AS s WHERE s.ship_id = 'y' AND t.ship_id = 'x'"
        " AND s.data_channel_id = 'a' AND t.data_channel_id = 'b' AND s.created_time = t.created_time AND t.created_time BETWEEN %s::timestamp AND %s::timestamp",
        a.at(0),
        a.at(3),
    )


@style
def many_changes_of_one_row(a: App) -> None:
    """One row is inserted, changed, moved and deleted, and is there in the end."""
    with a.transaction():
        a.run(INTO + "VALUES ('x', 'n', %s, 1, 'Integer')", a.at(0))
        for value in range(5):
            a.run(f"UPDATE {T} SET long_v = %s {KEY}", value, "n", a.at(0))
        a.run(f"UPDATE {T} SET created_time = %s {KEY}", a.at(4), "n", a.at(0))
        a.run(f"DELETE FROM {T} {KEY}", "n", a.at(4))
        a.run(INTO + "VALUES ('x', 'n', %s, 42, 'Integer')", a.at(4))


@style
def by_cursor(a: App) -> None:
    """WHERE CURRENT OF."""
    with a.transaction():
        a.conn.execute(
            f"DECLARE c CURSOR FOR SELECT * FROM {T} WHERE ship_id = 'x' AND data_channel_id = 'a'"
            f" AND created_time BETWEEN '{a.at(0)}' AND '{a.at(3)}' FOR UPDATE"
        )
        a.conn.execute("FETCH c")
        a.run(f"UPDATE {T} SET long_v = 33 WHERE CURRENT OF c")
        a.conn.execute("FETCH c")
        a.run(f"DELETE FROM {T} WHERE CURRENT OF c")
        a.conn.execute("CLOSE c")


# --- deletes ------------------------------------------------------------------------------------


@style
def delete_cells(a: App) -> None:
    """Some cells of a time, one after the other all of another."""
    a.run(f"DELETE FROM {T} {KEY}", "a", a.at(0))
    for channel in "abc":
        a.run(f"DELETE FROM {T} {KEY}", channel, a.at(1))


@style
def delete_times(a: App) -> None:
    """All rows of a time, of one ship and of all."""
    a.run(f"DELETE FROM {T} WHERE ship_id = 'x' AND created_time = %s::timestamp", a.at(1))
    a.run(f"DELETE FROM {T} WHERE created_time = %s::timestamp", a.at(0))


@style
def delete_using(a: App) -> None:
    """DELETE … USING, RETURNING."""
    a.run(
        f"DELETE FROM {T} AS t USING {T} AS s WHERE s.ship_id = 'y' AND t.ship_id = 'x' AND s.data_channel_id = t.data_channel_id"
        " AND s.created_time = t.created_time AND t.created_time = %s::timestamp AND t.data_channel_id = 'b' RETURNING t.data_channel_id",
        a.at(0),
    )


@style
def delete_and_insert(a: App) -> None:
    """Gone and there again in one transaction, with another value, as NULL, and in part."""
    with a.transaction():
        a.run(
            f"DELETE FROM {T} WHERE ship_id = 'x' AND created_time = %s::timestamp",
            a.at(3),
        )
        a.run(
            INTO + "VALUES ('x', 'a', %s, 4, 'Integer'), ('x', 'b', %s, NULL, 'Integer')",
            a.at(3),
            a.at(3),
        )


@style
def cte(a: App) -> None:
    """A statement whose parts delete, insert and update."""
    a.run(
        f"WITH d AS (DELETE FROM {T} WHERE ship_id = 'x' AND created_time = %s::timestamp RETURNING *),"
        f" u AS (UPDATE {T} SET long_v = 12 {KEY} RETURNING *), i AS ({INTO}"
        " SELECT 'y', 'n', d.created_time + interval '9 minutes', 1, 'Integer' FROM d WHERE d.data_channel_id = 'a' RETURNING *)"
        f" {INTO} SELECT d.ship_id, d.data_channel_id, d.created_time + interval '5 minutes', d.long_v, d.value_format FROM d",
        a.at(0),
        "a",
        a.at(1),
    )


@style
def cte_only_reads_at_the_end(a: App) -> None:
    """A SELECT that changes rows in its WITH."""
    a.run(
        f"WITH d AS (DELETE FROM {T} {KEY} RETURNING long_v) SELECT count(*) FROM d", "a", a.at(0)
    )


# --- what else changes rows ---------------------------------------------------------------------


@style
def cascades(a: App) -> None:
    """Foreign keys: voyages deleted and renumbered, a channel renamed, a channel deleted."""
    a.run(f"UPDATE {T} SET voyage = 1 WHERE created_time = %s::timestamp", a.at(0))
    a.run(f"UPDATE {T} SET voyage = 2 WHERE created_time = %s::timestamp", a.at(1))
    a.run(INTO + "VALUES ('x', 'old_name', %s, 5, 'Integer')", a.at(2))
    a.run(
        INTO + "VALUES ('x', 'gone', %s, 5, 'Integer'), ('x', 'gone', %s, 5, 'Integer')",
        a.at(2),
        a.at(7),
    )
    a.run("DELETE FROM app.voyage WHERE voyage = 1")
    a.run("UPDATE app.voyage SET voyage = 99 WHERE voyage = 2")
    a.run("UPDATE app.channel SET channel = 'new_name' WHERE channel = 'old_name'")
    a.run("DELETE FROM app.channel WHERE channel = 'gone'")


@style
def triggers_before(a: App) -> None:
    """A BEFORE trigger moves the row and changes its value; another leaves rows out."""
    a.run(
        INTO + "VALUES ('x', 'before', %s, 1, 'Integer'), ('x', 'skip', %s, 1, 'Integer')",
        a.at(0),
        a.at(6),
    )
    a.run(
        f"UPDATE {T} SET long_v = 2 WHERE data_channel_id = 'before' AND created_time BETWEEN %s::timestamp AND %s::timestamp",
        a.at(0),
        a.at(3),
    )
    _copy(a, "", [("x", "before", a.at(1), 1, "Integer"), ("x", "skip", a.at(1), 1, "Integer")])


@style
def triggers_after(a: App) -> None:
    """AFTER ROW triggers that change the row again, named to fire before and after pymig's."""
    a.run(INTO + "VALUES ('x', 'after', %s, 1, 'Integer')", a.at(0))
    a.run(INTO + "VALUES ('x', 'after_late', %s, 1, 'Integer')", a.at(1))
    _copy(a, "", [(s, "after", a.at(2), 1, "Integer") for s in "xy"])


@style
def triggers_deferred(a: App) -> None:
    """A trigger that changes rows at COMMIT, or when it is told to."""
    with a.transaction():
        a.run(INTO + "VALUES ('x', 'deferred', %s, 1, 'Integer')", a.at(0))
        if a.single:
            a.conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            a.conn.execute("SET CONSTRAINTS ALL DEFERRED")


@style
def triggers_of_statements(a: App) -> None:
    """Statement triggers that delete what came and move it to another ship."""
    a.run(
        INTO + "VALUES ('x', 'stmt', %s, 1, 'Integer'), ('x', 'stmt_del', %s, 1, 'Integer')",
        a.at(0),
        a.at(7),
    )
    _copy(a, "", [("x", "stmt", a.at(8), 1, "Integer"), ("y", "stmt_del", a.at(8), 1, "Integer")])


@style
def triggers_that_raise(a: App) -> None:
    """A trigger after pymig's refuses the statement."""
    with a.transaction():
        a.fails(INTO + "VALUES ('x', 'bad', %s, 1, 'Integer')", a.at(0))
        a.run(INTO + "VALUES ('x', 'n', %s, 1, 'Integer')", a.at(1))


@style
def views(a: App) -> None:
    """Through an updatable view, an INSTEAD OF trigger, and a rule."""
    a.run(
        "INSERT INTO app.plain (ship_id, data_channel_id, created_time, long_v, value_format)"
        " VALUES ('x', 'n', %s, 1, 'Integer')",
        a.at(0),
    )
    a.run("UPDATE app.plain SET long_v = 9 WHERE created_time = %s::timestamp", a.at(1))
    a.run(
        "DELETE FROM app.plain WHERE data_channel_id = 'a' AND created_time = %s::timestamp",
        a.at(2),
    )
    a.run("INSERT INTO app.triggered VALUES ('x', %s, 3)", a.at(3))
    a.run("INSERT INTO app.ruled VALUES ('x', %s, 4)", a.at(2))


@style
def exception_block(a: App) -> None:
    """A function that fails, catches it, and writes something else; and one in anonymous code."""
    a.run("SELECT app.try_both('x', %s)", a.at(0))
    a.run("SELECT app.try_both('x', %s)", a.at(5))


@style
def replica_role(a: App) -> None:
    """session_replication_role = replica, as a loader sets it: triggers and keys don't fire."""
    with a.transaction():
        a.conn.execute("SET LOCAL session_replication_role = replica")
        a.run(INTO + "VALUES ('x', 'n', %s, 1, 'Integer')", a.at(0))
        a.run(f"UPDATE {T} SET long_v = 5, created_time = %s {KEY}", a.at(6), "a", a.at(0))
        a.run(f"DELETE FROM {T} WHERE ship_id = 'x' AND created_time = %s::timestamp", a.at(1))
        _copy(a, "", [("x", "before", a.at(7), 1, "Integer")])
        a.conn.execute("SET LOCAL session_replication_role = origin")


# --- transactions -------------------------------------------------------------------------------


def _some_changes(a: App) -> None:
    a.run(INTO + "VALUES ('x', 'n', %s, 1, 'Integer')", a.at(0))
    a.run(f"UPDATE {T} SET long_v = 5, created_time = %s {KEY}", a.at(6), "a", a.at(0))
    a.run(f"DELETE FROM {T} WHERE ship_id = 'x' AND created_time = %s::timestamp", a.at(1))


@style
def rolled_back(a: App) -> None:
    """A transaction rolled back."""
    with a.transaction("ROLLBACK"):
        _some_changes(a)


@style
def savepoints(a: App) -> None:
    """Changes in savepoints that are rolled back, released, nested; the same rows again after it."""
    with a.transaction():
        a.conn.execute("SAVEPOINT one")
        _some_changes(a)
        a.conn.execute("SAVEPOINT two")
        a.run(f"UPDATE {T} SET long_v = 50 {KEY}", "b", a.at(2))
        a.conn.execute("ROLLBACK TO SAVEPOINT one")
        a.run(f"UPDATE {T} SET long_v = 51 {KEY}", "a", a.at(0))
        a.conn.execute("SAVEPOINT three")
        a.run(f"DELETE FROM {T} {KEY}", "b", a.at(0))
        a.conn.execute("RELEASE SAVEPOINT three")
        a.fails(INTO + "VALUES ('x', 'c', %s, 1, 'Integer')", a.at(0))


@style
def statement_that_fails(a: App) -> None:
    """Two rows, the second a duplicate: neither is there."""
    with a.transaction():
        a.fails(
            INTO + "VALUES ('x', 'n', %s, 1, 'Integer'), ('x', 'a', %s, 1, 'Integer')",
            a.at(5),
            a.at(0),
        )
        a.fails(
            f"UPDATE {T} SET created_time = %s WHERE ship_id = 'x' AND data_channel_id = 'a' AND created_time BETWEEN %s::timestamp AND %s::timestamp",
            a.at(9),
            a.at(0),
            a.at(3),
        )


@alone
def two_phases(a: App) -> None:
    """PREPARE TRANSACTION, ended either way."""
    for end, second in (("COMMIT", 0), ("ROLLBACK", 1)):
        a.conn.execute(f"BEGIN ISOLATION LEVEL {a.isolation}")
        a.run(INTO + "VALUES ('x', 'n', %s, 1, 'Integer')", a.at(0, second))
        a.run(f"DELETE FROM {T} WHERE ship_id = 'x' AND created_time = %s::timestamp", a.at(second))
        name = sql.Literal(f"matrix {a.conn.info.dbname} {end}")
        a.conn.execute(sql.SQL("PREPARE TRANSACTION {}").format(name))
        a.conn.execute(sql.SQL("{} PREPARED {}").format(sql.SQL(end), name))


@alone
def procedure_that_commits(a: App) -> None:
    """A procedure with COMMIT and ROLLBACK between its statements."""
    a.run("CALL app.batch('x', %s)", a.at(0))


@alone
def several_statements_at_once(a: App) -> None:
    """One message of the simple protocol with many statements: one transaction, no BEGIN."""
    a.conn.execute(
        INTO
        + f"VALUES ('x', 'n', '{a.at(0)}', 1, 'Integer'); UPDATE {T} SET long_v = 8 WHERE ship_id = 'x'"
        f" AND data_channel_id = 'a' AND created_time = '{a.at(1)}'; DELETE FROM {T} WHERE created_time = '{a.at(2)}'"
    )


@alone
def loader_session(a: App) -> None:
    """A pipeline of the client library."""
    with a.conn.pipeline():
        for second in range(4):
            a.conn.execute(INTO + "VALUES ('x', 'n', %s, 1, 'Integer')", [a.at(4, second)])
        a.conn.execute(f"DELETE FROM {T} WHERE ship_id = 'x' AND created_time = %s", [a.at(4, 2)])


def truncate_and_load(a: App) -> None:
    """TRUNCATE, and what was there comes again by COPY FREEZE in the same transaction, less a row."""
    with a.transaction():
        saved = io.BytesIO()
        with a.conn.cursor() as cursor:
            with cursor.copy(f"COPY (SELECT * FROM {T} WHERE long_v <> 3) TO STDOUT") as out:
                for block in out:
                    saved.write(block)
            a.conn.execute(f"TRUNCATE {T}")
            with cursor.copy(f"COPY {T} FROM STDIN (FREEZE)") as copy:
                copy.write(saved.getvalue())
            a.note(cursor.rowcount)
