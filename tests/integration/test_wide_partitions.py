"""Wide tables that are partitioned by month: equal, guarded, tuned, and let go month by month."""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.oracle import Narrow, difference
from tests.waiting import sync_until

TIMES: Final[dict[str, tuple[LiteralString, str | None]]] = {
    "timestamp": ("x.t", None),
    "timestamptz": ("x.t AT TIME ZONE 'UTC'", None),
    "date": ("x.t::date", None),
    "bigint": ("(extract(epoch FROM x.t) * 1000)::bigint", "ms"),
}
ODD: Final[dict[str, LiteralString]] = {
    "timestamp": "'-infinity', 'infinity', '1987-06-05', '2150-01-01', '2001-02-03 04:05'",
    "timestamptz": "'-infinity', 'infinity', '1987-06-05', '2150-01-01', '2001-02-03 04:05+00'",
    "date": "'-infinity', 'infinity', '1987-06-05', '2150-01-01', '2001-02-03'",
    "bigint": "-9223372036854775808, 9223372036854775807, 0, 5000000000000, 981173100000",
}
MONTHS: LiteralString = """
SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(%s) ORDER BY 1
"""


def _narrow(unit: str | None = None) -> Narrow:
    return Narrow("n", "n", "ship", "ch", "ts", ("d",), time_unit=unit)


def _set_up(
    db: Database, times: str = "timestamp", every: str = "2 days"
) -> psycopg.Connection[Any]:
    """Three months of a ship, from December on, in a source with partitions by month."""
    conn = db.connect()
    value, unit = TIMES[times]
    conn.execute("SET TimeZone = 'UTC'")
    conn.execute(
        f"CREATE TABLE n (ship text, ch text, ts {times}, d float8, PRIMARY KEY (ship, ch, ts))".encode()
    )
    conn.execute(
        f"INSERT INTO n SELECT s, 'c' || c, {value}, extract(epoch FROM x.t) / c FROM unnest('{{X,Y}}'::text[]) AS s, generate_series(1, 6) AS c,"
        f" generate_series('2023-12-01'::timestamp, '2024-02-29', '{every}') AS x (t)".encode()
    )
    conn.execute("ANALYZE n")
    conn.execute(
        "CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}', p_time_unit => %s, p_column_types => 'native')",
        [unit],
    )
    conn.execute("CALL pymig.set_wide_partitions('month')")
    return conn


def _months(conn: psycopg.Connection[Any], table: str = "n_x") -> list[str]:
    return [name.removeprefix(f"{table}_") for (name,) in conn.execute(MONTHS, [table])]


def _equal(conn: psycopg.Connection[Any], narrow: Narrow | None = None) -> None:
    assert difference(conn, narrow or _narrow(), {"X"}) == []


def _states(conn: psycopg.Connection[Any]) -> Any:
    return conn.execute("SELECT state FROM pymig.entity WHERE entity = 'X'").fetchone()


@pytest.mark.parametrize("times", TIMES)
def test_months_of_every_type_of_time(db: Database, times: str) -> None:
    """Each row is in the partition of its month; what clocks gone wrong sent has a place, too."""
    conn = _set_up(db, times)
    conn.execute(
        f"INSERT INTO n SELECT 'X', 'odd', t.t::{times}, 1 FROM unnest(ARRAY[{ODD[times]}]::{times}[]) AS t (t)".encode()
    )
    conn.execute("CALL pymig.migrate('X')")
    assert _states(conn) == ("verified",)
    _equal(conn, _narrow(TIMES[times][1]))
    # A chunk of days goes beyond the month it begins in.
    assert {m for m in _months(conn) if not m.startswith("2001")} == {
        "2023_12",
        "2024_01",
        "2024_02",
        "after",
        "before",
    }
    counts = dict(
        conn.execute("SELECT tableoid::regclass::text, count(*) FROM n_x GROUP BY 1").fetchall()
    )
    assert counts == {
        "n_x_2001_02": 1,
        "n_x_2023_12": 16,
        "n_x_2024_01": 15,
        "n_x_2024_02": 15,
        "n_x_after": 2,
        "n_x_before": 2,
    }


@pytest.mark.parametrize("strategy", ["transpose", "crosstab", "json", "filter"])
def test_every_strategy(db: Database, strategy: str) -> None:
    """None of them knows of partitions."""
    conn = _set_up(db)
    conn.execute("CREATE EXTENSION tablefunc")
    conn.execute("CALL pymig.migrate('X', p_strategy => %s)", [strategy])
    _equal(conn)


def test_a_new_month_comes(db: Database) -> None:
    """Its partition is made with its first row, and nothing fails on the way."""
    conn = _set_up(db)
    conn.execute("CALL pymig.migrate('X')")
    conn.execute(
        "INSERT INTO n VALUES ('X', 'c1', '2024-03-31 23:59:59.999999', 1), ('X', 'new', '2024-04-01', 2)"
    )
    conn.execute("UPDATE n SET d = -1 WHERE ch = 'c2' AND ts < '2024-01-03'")
    conn.execute("CALL pymig.sync_pending()")
    _equal(conn)
    assert _months(conn)[:5] == ["2023_12", "2024_01", "2024_02", "2024_03", "2024_04"]
    assert conn.execute("SELECT count(*) FROM pymig.event WHERE level <> 'INFO'").fetchone() == (0,)
    conn.execute("CALL pymig.verify('X')")


def test_nobody_waits_for_a_month(db: Database) -> None:
    """A reader and a writer in open transactions don't hold it up."""
    conn = _set_up(db)
    conn.execute("CALL pymig.migrate('X')")
    with db.connect(autocommit=False) as other:
        other.execute("SELECT count(*) FROM n_x")
        other.execute("INSERT INTO n VALUES ('X', 'c1', '2024-02-01 12:00', 1)")
        conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-03-01', 1)")
        conn.execute("CALL pymig.sync_pending()")
        assert conn.execute("SELECT c1 FROM n_x WHERE ts = '2024-03-01'").fetchone() == (1,)
        other.execute("SELECT count(*) FROM n_x")
        other.commit()
    conn.execute("CALL pymig.sync_pending()")
    _equal(conn)


def test_parts_have_the_same_months(db: Database) -> None:
    """A part that comes later has a row for every time the first one has."""
    conn = _set_up(db, every="10 days")
    conn.execute("CALL pymig.migrate('X')")
    conn.execute(
        "INSERT INTO n SELECT 'X', 'more' || c, '2024-03-05', c FROM generate_series(1, 1700) AS c"
    )
    conn.execute("CALL pymig.sync_pending()")
    _equal(conn)
    assert sorted(_months(conn, "n_x_1")) == [
        "2024_03",
        "n_x_2023_12",
        "n_x_2024_01",
        "n_x_2024_02",
        "n_x_after",
        "n_x_before",
    ]
    assert _months(conn, "n_x_2") == ["2023_12", "2024_01", "2024_02", "2024_03", "after", "before"]
    assert conn.execute('SELECT count(*), count("more1700") FROM n_x').fetchone() == (11, 1)
    conn.execute("CALL pymig.roll_back('X')")
    assert conn.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'n\\_x%'").fetchone() == (
        0,
    )


def test_promoted_and_written_in_the_wide_shape(db: Database) -> None:
    """A column gets another type in all months; rows written to _rw get into theirs."""
    conn = _set_up(db)
    conn.execute("ALTER TABLE n ADD COLUMN i int8, ADD COLUMN f text")
    conn.execute("CALL pymig.unregister_source('n')")
    conn.execute("UPDATE n SET f = 'D' WHERE true")
    conn.execute("UPDATE n SET i = 1, d = NULL, f = 'I' WHERE ch = 'c1'")
    conn.execute(
        "CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d,i}', 'f', '{\"D\":\"d\",\"I\":\"i\"}', p_column_types => 'native')"
    )
    conn.execute("CALL pymig.set_wide_partitions('month')")
    conn.execute("CALL pymig.set_type_drift(NULL, 'promote')")
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-05-01', 1.5, NULL, 'D')")
    column_type: LiteralString = "SELECT column_type FROM pymig.channel_map WHERE channel = 'c1'"
    sync_until(conn, column_type, "float8", "c1 is not promoted")
    narrow = Narrow("n", "n", "ship", "ch", "ts", ("d", "i"), "f", {"D": "d", "I": "i"})
    _equal(conn, narrow)
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.cut_over('X')")
    conn.execute("INSERT INTO n_x_rw (ts, c1, c2) VALUES ('2024-07-01', 5, 6)")
    conn.execute("DELETE FROM n_x_rw WHERE ts < '2023-12-10'")
    conn.execute("CALL pymig.sync_pending()")
    _equal(conn, narrow)
    assert "2024_07" in _months(conn)
    for table in ("n_x", "n_x_2024_01"):
        with pytest.raises(psycopg.Error) as error:
            conn.execute(f"DELETE FROM {table}".encode())
        assert error.value.sqlstate == "PM060"


def test_a_month_somebody_dropped(db: Database) -> None:
    """Verification finds it, repair makes it again."""
    conn = _set_up(db)
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("DROP TABLE n_x_2024_01")
    conn.execute("CALL pymig.verify('X', p_repair => true)")
    _equal(conn)
    conn.execute("CALL pymig.verify('X')")


def test_another_constraint_is_no_month(db: Database) -> None:
    """A CHECK of the user's that fails is an error of its key, not a reason to try for ever."""
    conn = _set_up(db)
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("ALTER TABLE n_x ADD CHECK (c1 > 0) NOT VALID")
    conn.execute("UPDATE n SET d = -1 WHERE ship = 'X' AND ch = 'c1' AND ts = '2024-01-04'")
    conn.execute("CALL pymig.sync_pending()")
    assert conn.execute(
        "SELECT count(*) FROM pymig.n_todo WHERE error LIKE '%n_x_c1_check%'"
    ).fetchone() == (1,)


def test_a_taken_name(db: Database) -> None:
    """It is said, and goes on once the name is free."""
    conn = _set_up(db)
    conn.execute("CREATE TABLE n_x_2024_01 (a int)")
    conn.execute("CALL pymig.start_sync('X')")
    while conn.execute("SELECT outcome FROM pymig.backfill_chunk('X')").fetchone() != ("failed",):
        conn.execute("UPDATE pymig.chunk SET retry_at = NULL")  # else it is tried in 15 seconds
    with pytest.raises(psycopg.Error) as error:
        conn.execute("CALL pymig.backfill('X')")
    assert error.value.sqlstate == "PM012"
    assert "that name is taken" in (error.value.diag.message_detail or "")
    conn.execute("DROP TABLE n_x_2024_01")
    conn.execute("CALL pymig.migrate('X')")
    _equal(conn)


def test_long_names_stay_apart(db: Database) -> None:
    """Two ships whose tables differ late in their names have months of their own."""
    conn = _set_up(db)
    ships = ["a" * 56 + c for c in "12"]
    for ship in ships:
        conn.execute("INSERT INTO n SELECT %s, ch, ts, d FROM n WHERE ship = 'X'", [ship])
        conn.execute("CALL pymig.migrate(%s)", [ship])
    assert difference(conn, _narrow(), set(ships)) == []


def test_tuned_and_indexed(db: Database) -> None:
    """Every month, and those that come later."""
    conn = _set_up(db)
    conn.execute("CALL pymig.migrate('X')")
    for _ in range(2):
        conn.execute("CALL pymig.tune_wide('X')")
        for (statement,) in conn.execute(
            "SELECT pymig.index_statements('X', '{c1,c2}')"
        ).fetchall():
            conn.execute(statement)
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-08-01', 1)")
    conn.execute("CALL pymig.sync_pending()")
    months = conn.execute(
        "SELECT i.inhrelid::regclass::text, c.reloptions::text LIKE '%analyze_scale_factor=0.01%', (SELECT count(*) FROM pg_index AS x WHERE x.indrelid = c.oid AND x.indisvalid)"
        " FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = 'n_x'::regclass"
    ).fetchall()
    assert len(months) == 6
    assert {(tuned, indexes) for _, tuned, indexes in months} == {(True, 3)}
    found = conn.execute(
        "SELECT indisvalid FROM pg_index WHERE indrelid = 'n_x'::regclass"
    ).fetchall()
    assert found == [(True,)] * 3
    for (statement,) in conn.execute("SELECT pymig.index_statements('X')").fetchall():
        conn.execute(statement)
    _equal(conn)


def test_old_months_go(db: Database) -> None:
    """Once their narrow rows are retired and they are old enough; what is left stays verified, and can be restored."""
    conn = _set_up(db)
    conn.execute("CALL pymig.set_wide_partitions('month', '40 days')")
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.cut_over('X')")
    conn.execute("CALL pymig.retire()")
    assert _months(conn) == ["2023_12", "2024_01", "2024_02", "after", "before"]
    conn.execute("CALL pymig.finalize('X', '70 days')")  # the newest row is of 2024-02-29
    conn.execute("CALL pymig.retire()")
    assert _months(conn) == ["2023_12", "2024_01", "2024_02", "after", "before"], (
        "December is not all retired"
    )
    conn.execute("CALL pymig.finalize('X', '20 days')")
    reader = db.connect(autocommit=False)
    reader.execute("SELECT count(*) FROM n_x")
    conn.execute("CALL pymig.retire()")
    assert conn.execute(
        "SELECT count(*) FROM pymig.event WHERE what = 'months not dropped'"
    ).fetchone() == (1,)
    reader.close()
    conn.execute("CALL pymig.retire()")
    assert _months(conn) == ["2024_01", "2024_02", "after", "before"], (
        "January ended 29 days before the newest row"
    )
    assert conn.execute("SELECT min(ts)::text FROM n_x").fetchone() == ("2024-01-02 00:00:00",)
    conn.execute("CALL pymig.verify('X')")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2023-12-07', 1)")
    conn.execute("CALL pymig.sync_pending()")
    assert conn.execute("SELECT reason FROM pymig.quarantine").fetchone() == ("closed_range",)
    assert "2023_12" not in _months(conn)
    conn.execute("CALL pymig.restore_narrow('X')")
    conn.execute("CALL pymig.sync_pending()")
    assert conn.execute(
        "SELECT min(ts)::text, count(DISTINCT ts) FROM n WHERE ship = 'X' AND ts > '2023-12-07'"
    ).fetchone() == ("2024-01-02 00:00:00", 30)
    _equal(conn)
    conn.execute("CALL pymig.verify('X')")
    conn.execute("CALL pymig.roll_back('X')")


def test_direct_is_refused(db: Database) -> None:
    """A month without a partition would stop the statement."""
    conn = _set_up(db)
    conn.execute("CALL pymig.migrate('X')")
    with pytest.raises(psycopg.Error, match="partitioned") as error:
        conn.execute("CALL pymig.set_sync('X', 'direct')")
    assert error.value.sqlstate == "PM030"


def test_direct_from_before_goes_by_the_queue(db: Database) -> None:
    """A ship that was direct, rolled back and migrated with months writes nothing itself, and breaks nothing."""
    conn = _set_up(db)
    conn.execute("CALL pymig.set_wide_partitions('none')")
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("CALL pymig.set_sync('X', 'direct')")
    conn.execute("CALL pymig.roll_back('X')")
    conn.execute("CALL pymig.set_wide_partitions('month')")
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2024-02-10 12:00', 1)")
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2030-01-01', 1)")
    assert conn.execute("SELECT count(*) FROM pymig.n_pending").fetchone() == (2,)
    conn.execute("CALL pymig.sync_pending()")
    _equal(conn)


@pytest.mark.parametrize("call", ["'week'", "NULL", "'none', '1 year'", "'month', '-1 day'"])
def test_wrong_settings(db: Database, call: LiteralString) -> None:
    """One sentence, and nothing is set."""
    conn = _set_up(db)
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"CALL pymig.set_wide_partitions({call})")
    assert error.value.sqlstate == "PM007"
    assert conn.execute("SELECT wide_partitions, keep_wide FROM pymig.source").fetchone() == (
        "month",
        None,
    )


def test_what_is_there_stays_as_it_is(db: Database) -> None:
    """The setting is for ships migrated from now on; sizes are those of all partitions."""
    conn = _set_up(db)
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("CALL pymig.set_wide_partitions('none')")
    conn.execute("CALL pymig.migrate('Y')")
    assert _months(conn, "n_y") == []
    conn.execute("INSERT INTO n VALUES ('X', 'c1', '2030-01-01', 1)")
    conn.execute("CALL pymig.sync_pending()")
    assert "2030_01" in _months(conn)
    row = conn.execute(
        "SELECT pymig._table_bytes('n_x') > pymig._table_bytes('n_y'), pymig._table_bytes('n_y') = pg_total_relation_size('n_y'), pymig._table_bytes(NULL) IS NULL"
    ).fetchone()
    assert row == (True, True, True)
