"""T7: values that conversions are known to spoil, odd sessions, a verifier that sees each fault.

Nothing may change a cell: not the way through json or text, not the session's DateStyle, TimeZone
or extra_float_digits. And a verifier that finds nothing must have been able to find something: one
wrong cell of each type, a missing and a surplus row, a wrong quarantine are planted and must be
found.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Database
from tests.oracle import Narrow, difference

STRATEGIES: Final = ("transpose", "json", "crosstab", "filter")
CREATE: LiteralString = """
CREATE TABLE n (id bigserial, ship text NOT NULL, ch text NOT NULL, ts timestamptz NOT NULL,
    f float8, i bigint, s text, b bool, q numeric, j jsonb, fmt text);
"""
BY_KEY: LiteralString = "ALTER TABLE n ADD PRIMARY KEY (ship, ch, ts)"
BY_TIME: LiteralString = "CREATE INDEX ON n (ship, ts)"
REGISTER: LiteralString = """
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{f,i,s,b,q,j}', 'fmt',
    '{"f":"f","i":"i","s":"s","b":"b","q":"q","j":"j"}', p_tie_break => '{id}',
    p_bucket => %s::interval)
"""
NARROW: Final = Narrow(
    "n",
    "n",
    "ship",
    "ch",
    "ts",
    ("f", "i", "s", "b", "q", "j"),
    format_column="fmt",
    formats={c: c for c in "fisbqj"},
    tie_break=("id",),
)
FLOATS: Final = (
    "NaN", "Infinity", "-Infinity", "0", "-0", "5e-324", "-5e-324", "2.2250738585072014e-308",
    "1e308", "1.7976931348623157e308", "0.1", "0.30000000000000004", "3.141592653589793",
    "123456789012345680", "9007199254740993", "1e15", "1e16", "4.35",
)  # fmt: skip
INTEGERS: Final = (0, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))
TEXTS: Final = (
    "", "NULL", "null", '{"a"}', "{}", "[]", '"', "'", "\\", "\\N", "\\\\", "a\nb", "a\r\nb", "\t",
    " ", "  x ", "%s %I %%", "🚢", "\U0001d538" * 10,
    "é", "e\u0301", "\u200b", "\ufffd", "\U0010ffff",
    "\x01\x1f\x7f", "\\u0000", "\\ud83d", "NaN", "-0", "1.0", "t", "x" * 3000, "$$", "$1", "-- ;",
)  # fmt: skip
NUMERICS: Final = (
    "0", "0.00", "1.0", "1.00", "-0.0", "NaN", "Infinity", "-Infinity", "1e-100",
    "12345678901234567890", "99999999999999999999999999.000000000000000000001", "1e400",
)  # fmt: skip
JSONS: Final = (
    "null", "true", "0", "1.0", "1.00", "-0.0", "1e400", '""', '"a\\nb"', '{"a": null}',
    "[]", "{}", '["🚢", {"b": [1, 2.50]}]',
)  # fmt: skip
TIMES: Final = (
    "infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "4714-11-24 00:00:00+00 BC",
    "294276-12-31 23:59:59.999999+00", "0001-01-01 00:00:00+00", "0001-12-31 23:59:59.999999+00 BC",
    "1999-12-31 23:59:59.999999+00", "2000-01-01 00:00:00+00", "1969-12-31 23:59:59.999999+00",
    # Both ends of the hour that comes twice in Berlin, of the one that never comes, and New York's.
    "2024-10-27 00:30:00+00", "2024-10-27 01:30:00+00", "2024-10-27 00:59:59.999999+00",
    "2024-10-27 01:00:00+00", "2024-03-31 00:59:59.999999+00", "2024-03-31 01:00:00+00",
    "2024-11-03 05:30:00+00", "2024-11-03 06:30:00+00", "1890-06-01 12:34:56+00",
    "2024-02-01 03:04:05+00", "2024-01-02 03:04:05+00", "2024-12-13 00:00:00+00",
)  # fmt: skip
SETTINGS: Final[dict[str, dict[str, str]]] = {
    "plain": {},
    "german": {"DateStyle": "German, DMY", "TimeZone": "Europe/Berlin"},
    "sql_dmy": {"DateStyle": "SQL, DMY", "TimeZone": "America/New_York"},
    "postgres_ist": {"DateStyle": "Postgres, MDY", "TimeZone": "Asia/Kolkata"},
    "no_digits": {
        "extra_float_digits": "-15", "TimeZone": "Australia/Lord_Howe", "IntervalStyle": "iso_8601",
        "bytea_output": "escape", "standard_conforming_strings": "off", "search_path": "n, public",
        "enable_seqscan": "off", "xmlbinary": "hex", "array_nulls": "off",
        "escape_string_warning": "off",
    },
    "quoted": {"quote_all_identifiers": "on"},
}  # fmt: skip


def _fill(conn: psycopg.Connection[Any]) -> None:
    """Every value once per channel, every channel at its own times; and every time with a value."""
    values: list[tuple[str, str, list[Any]]] = [
        ("f", "float8", list(FLOATS)),
        ("i", "int8", list(INTEGERS)),
        ("s", "text", list(TEXTS)),
        ("b", "bool", [True, False]),
        ("q", "numeric", list(NUMERICS)),
        ("j", "jsonb", list(JSONS)),
    ]
    for column, kind, some in values:
        name, cast = sql.Identifier(column), sql.SQL(kind)
        conn.execute(
            sql.SQL(
                "INSERT INTO n (ship, ch, ts, fmt, {0}) SELECT 'x', {1} || c,"
                " '2024-01-01 00:00+00'::timestamptz + (u.i * (1 + c)) * interval '7 min', {1}, u.v"
                " FROM unnest(%s::{2}[]) WITH ORDINALITY AS u (v, i), generate_series(0, 1) AS c"
            ).format(name, sql.Literal(column), cast),
            [[*some, None]],
        )
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, i) SELECT 'x', 'times', u.t, 'i', u.i"
        " FROM unnest(%s::text[]::timestamptz[]) WITH ORDINALITY AS u (t, i)",
        [list(TIMES)],
    )
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, s, f) VALUES"
        " ('x', 'bad', '2024-01-01 01:00+00', 'what', 'a', NULL),"
        " ('x', 'bad', '2024-01-01 02:00+00', 's', NULL, 1),"
        " ('x', 'bad', '2024-01-01 03:00+00', NULL, 's', NULL),"
        " ('x', 'bad', '2024-01-01 04:00+00', 's', 'fine', NULL),"
        " ('x', 'f0', '2024-01-01 01:00+00', 'what', 'a', NULL),"
        # native: an integer beyond 2^53 among doubles does not fit and must be seen, not rounded
        " ('x', 'f1', '2024-02-01 01:00+00', 'f', NULL, 0.5)"
    )
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, i) VALUES"
        " ('x', 'f1', '2024-02-01 02:00+00', 'i', 9007199254740993),"
        " ('x', 'f1', '2024-02-01 03:00+00', 'i', 9007199254740992)"
    )


def _odd(db: Database, settings: dict[str, str]) -> psycopg.Connection[Any]:
    conn = db.connect(options="-c statement_timeout=60s")
    for name, value in settings.items():
        conn.execute("SELECT set_config(%s, %s, false)", [name, value])
    return conn


def _count(conn: psycopg.Connection[Any], query: LiteralString) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("index", [BY_KEY, BY_TIME], ids=["by_key", "by_time"])
@pytest.mark.parametrize("column_types", ["text", "native"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_value_changes(
    db: Database, strategy: str, column_types: str, index: LiteralString
) -> None:
    """Each strategy, backfill and then single keys and whole buckets by the worker."""
    conn = _odd(db, {})
    conn.execute("CREATE EXTENSION tablefunc")
    conn.execute(CREATE)
    conn.execute(index)
    conn.execute(REGISTER, ["1 hour"])
    _fill(conn)
    conn.execute(
        "CALL pymig.migrate('x', p_strategy => %s, p_column_types => %s)", [strategy, column_types]
    )
    assert difference(conn, NARROW) == []
    assert _count(conn, "SELECT count(*) FROM pymig.quarantine") >= 4
    kinds = {k for (k,) in conn.execute("SELECT DISTINCT column_type FROM pymig.channel_map")}
    assert len(kinds) == (1 if column_types == "text" else 6)
    # Every key once more, one by one for a few and by whole buckets for the rest.
    conn.execute("UPDATE n SET fmt = fmt WHERE id %% 3 = 0".replace("%%", "%"))
    conn.execute("CALL pymig.sync_pending()")
    conn.execute("UPDATE n SET ts = ts + interval '1 us' WHERE ch <> 'times'")
    conn.execute("CALL pymig.sync_pending()")
    assert _count(conn, "SELECT count(*) FROM pymig.pending") == 0
    assert difference(conn, NARROW) == []
    conn.execute("CALL pymig.verify('x')")


@pytest.mark.parametrize("index", [BY_KEY, BY_TIME], ids=["by_key", "by_time"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_odd_sessions_change_nothing(db: Database, settings: str, index: LiteralString) -> None:
    """The same cells whatever the session that migrates, ingests, drains or verifies has set."""
    conn = _odd(db, SETTINGS[settings])
    plain = _odd(db, {})
    plain.execute(CREATE)
    plain.execute(index)
    conn.execute(REGISTER, ["1 hour"])
    _fill(plain)
    conn.execute("CALL pymig.migrate('x')")
    assert difference(plain, NARROW) == []
    before = _count(plain, "SELECT count(*) FROM pymig.quarantine")
    # Drained by the odd session: keys go through text on their way.
    for _ in range(2):
        plain.execute("UPDATE n SET i = i + 1 WHERE ch = 'times'")
        plain.execute("UPDATE n SET b = NOT b, s = s || 'x', fmt = fmt WHERE fmt IN ('b', 's')")
        plain.execute("UPDATE n SET fmt = 'what' WHERE fmt = 'what'")
        conn.execute("CALL pymig.sync_pending()")
        assert _count(plain, "SELECT count(*) FROM pymig.pending") == 0
        assert difference(plain, NARROW) == []
        assert _count(plain, "SELECT count(*) FROM pymig.quarantine") == before
    # Ingested by the odd session, drained by a plain one.
    conn.execute("DELETE FROM n WHERE ch = 'times' AND i % 2 = 0")
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, f) SELECT DISTINCT 'x', 'new', ts, 'f', -0.0 FROM n"
    )
    plain.execute("CALL pymig.sync_pending()")
    assert difference(plain, NARROW) == []
    conn.execute("CALL pymig.verify('x')")
    plain.execute("CALL pymig.verify('x')")


def test_settings_of_the_role_change_nothing(db: Database) -> None:
    """As above, set where no session sees it set: ALTER DATABASE, inherited by every connection."""
    plain = db.connect()
    for name, value in {**SETTINGS["no_digits"], "DateStyle": "SQL, DMY"}.items():
        if name == "search_path":
            continue
        plain.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                sql.Identifier(db.name), sql.Identifier(name), sql.Literal(value)
            )
        )
    conn = db.connect()
    assert conn.execute("SHOW extra_float_digits").fetchone() == ("-15",)
    conn.execute(CREATE)
    conn.execute(BY_KEY)
    conn.execute(REGISTER, ["1 hour"])
    _fill(plain)
    conn.execute("CALL pymig.migrate('x', p_column_types => 'native')")
    plain.execute("UPDATE n SET f = f, i = i, q = q")
    conn.execute("CALL pymig.sync_pending()")
    conn.execute("CALL pymig.verify('x')")
    assert difference(plain, NARROW) == []


# --- planted faults -----------------------------------------------------------------------------

PLANTED: Final[dict[str, tuple[str, LiteralString]]] = {
    "-0.0 for 0.0": ("native", "UPDATE n_x SET f0 = '-0' WHERE f0 = 0"),
    "0.0 for -0.0": ("native", "UPDATE n_x SET f0 = 0 WHERE f0::text = '-0'"),
    "NaN for NULL": ("native", "UPDATE n_x SET f0 = NULL WHERE f0 = 'NaN'"),
    "double by one bit": ("native", "UPDATE n_x SET f0 = 0.3 WHERE f0 = 0.30000000000000004"),
    "denormal": ("native", "UPDATE n_x SET f0 = 0 WHERE f0 = 5e-324"),
    "value for NULL": (
        "native",
        "UPDATE n_x SET f1 = 1 WHERE ts = '2024-01-01 00:07+00' AND f1 IS NULL",
    ),
    "bigint by one": ("native", f"UPDATE n_x SET i0 = i0 + 1 WHERE i0 = {2**53}"),
    "bool": ("native", "UPDATE n_x SET b0 = NOT b0 WHERE b0"),
    "numeric scale": ("native", "UPDATE n_x SET q0 = 1.0 WHERE q0::text = '1.00'"),
    "numeric NaN": ("native", "UPDATE n_x SET q0 = 'Infinity' WHERE q0 = 'NaN'"),
    "jsonb scale": ("native", "UPDATE n_x SET j0 = '1.0' WHERE j0::text = '1.00'"),
    "jsonb null for NULL": ("native", "UPDATE n_x SET j0 = NULL WHERE j0 = 'null'"),
    "text NULL for ''": ("text", "UPDATE n_x SET s0 = NULL WHERE s0 = ''"),
    "text '' for NULL": (
        "text",
        "UPDATE n_x SET s1 = '' WHERE s1 IS NULL AND ts = '2024-01-01 00:07+00'",
    ),
    "text blank": ("text", "UPDATE n_x SET s0 = 'x' WHERE s0 = '  x '"),
    "text accent": ("text", "UPDATE n_x SET s0 = 'é' WHERE s0 = 'e' || chr(769)"),
    "text 4-byte": ("text", "UPDATE n_x SET s0 = chr(65533) WHERE s0 = '🚢'"),
    "long text": ("text", "UPDATE n_x SET s0 = s0 || 'x' WHERE length(s0) = 3000"),
    "text of a double": ("text", "UPDATE n_x SET f0 = '0' WHERE f0 = '-0'"),
    "missing row": ("both", "DELETE FROM n_x WHERE ts = '2024-01-01 00:14+00'"),
    "missing row of a NULL": (
        "text",
        "DELETE FROM n_x WHERE (SELECT count(*) FROM n WHERE n.ts = n_x.ts) = 1 AND times IS NULL"
        " AND s1 IS NULL AND ts = (SELECT max(ts) FROM n WHERE ch = 's1')",
    ),
    "surplus row": ("both", "INSERT INTO n_x (ts, f0) VALUES ('2024-01-01 00:00:01+00', 1)"),
    "empty surplus row": ("both", "INSERT INTO n_x (ts) VALUES ('2024-01-01 00:00:01+00')"),
    "surplus row far off": ("both", "INSERT INTO n_x (ts) VALUES ('2031-01-01 00:00:01+00')"),
    "surplus row before all": ("both", "INSERT INTO n_x (ts) VALUES ('4001-01-01 BC')"),
    "row at infinity": ("both", "UPDATE n_x SET times = NULL WHERE ts = 'infinity'"),
    "row at -infinity": ("both", "DELETE FROM n_x WHERE ts = '-infinity'"),
    "row at the end": ("both", "DELETE FROM n_x WHERE ts = '294276-12-31 23:59:59.999999+00'"),
    "row at the beginning": ("both", "DELETE FROM n_x WHERE ts = '4714-11-24 00:00+00 BC'"),
    "two cells swapped": ("native", "UPDATE n_x SET f0 = f1, f1 = f0 WHERE f0 <> f1"),
    "quarantine lost": ("both", "DELETE FROM pymig.quarantine WHERE channel = 'f0'"),
    "quarantine surplus": (
        "both",
        "INSERT INTO pymig.quarantine (source, entity, channel, time, bucket, reason, detail,"
        " narrow_row) SELECT source, entity, channel, time, bucket, reason, detail, narrow_row"
        " FROM pymig.quarantine WHERE channel = 'f0'",
    ),
    "quarantine of another channel": (
        "both",
        "UPDATE pymig.quarantine SET channel = 'i0' WHERE channel = 'f0'",
    ),
    "quarantine of another row": (
        "both",
        "UPDATE pymig.quarantine SET narrow_row = '{}' WHERE channel = 'f0'",
    ),
    "quarantine with another reason": (
        "both",
        "UPDATE pymig.quarantine SET reason = 'other_column' WHERE channel = 'f0'",
    ),
    "quarantine in an empty bucket": (
        "both",
        "INSERT INTO pymig.quarantine (source, entity, channel, time, bucket, reason, detail,"
        " narrow_row) SELECT source, entity, channel, '2030-01-01 00:00:00+00', pymig.bucket_of("
        "pymig.tick_of('2030-01-01 00:00:00+00'::timestamptz), 3600000000), reason, detail,"
        " narrow_row FROM pymig.quarantine WHERE channel = 'f0'",
    ),
}
READ_BACK: LiteralString = """
SELECT q.channel, q.time, q.bucket, q.reason, q.narrow_row::text FROM pymig.quarantine AS q
ORDER BY 1, 2, 3
"""


def _prepared(db: Database, index: LiteralString) -> psycopg.Connection[Any]:
    """The values above, not yet migrated; a day a bucket, so that verifying often is quick."""
    conn = _odd(db, {})
    conn.execute(CREATE)
    conn.execute(index)
    conn.execute(REGISTER, ["1 day"])
    _fill(conn)
    return conn


@pytest.fixture(params=["by_key", "by_time"])
def prepared(db: Database, request: pytest.FixtureRequest) -> psycopg.Connection[Any]:
    """Both ways a source can be read."""
    return _prepared(db, BY_KEY if request.param == "by_key" else BY_TIME)


@pytest.mark.once
@pytest.mark.parametrize(
    "column_types,index", [("text", BY_TIME), ("native", BY_KEY)], ids=("text", "native")
)
def test_every_planted_fault_is_found_and_repaired(
    db: Database, column_types: str, index: LiteralString
) -> None:
    """Each alone: PM013, the state falls back from verified, nothing is mended until asked for."""
    conn = _prepared(db, index)
    conn.execute("CALL pymig.migrate('x', p_column_types => %s)", [column_types])
    quarantine = conn.execute(READ_BACK).fetchall()
    assert difference(conn, NARROW) == []
    missed = []
    for name, (types, plant) in PLANTED.items():
        if types not in (column_types, "both"):
            continue
        assert conn.execute(plant).rowcount > 0, f"{name} planted nothing"
        if (fault := _is_found_and_repaired(conn)) is not None:
            missed.append(f"{name}: {fault}")
            conn.execute("CALL pymig.roll_back('x')")
            conn.execute("CALL pymig.migrate('x', p_column_types => %s)", [column_types])
        assert difference(conn, NARROW) == [], name
        assert conn.execute(READ_BACK).fetchall() == quarantine, name
    assert missed == []
    conn.execute("CALL pymig.verify('x')")
    assert _count(conn, "SELECT count(*) FROM pymig.verification WHERE differences > 0") == 0


def _is_found_and_repaired(conn: psycopg.Connection[Any]) -> str | None:
    """Verify, look, repair, verify: what did not happen as it should."""
    try:
        conn.execute("CALL pymig.verify('x')")
    except psycopg.Error as error:
        if error.sqlstate != "PM013":
            return f"verify failed: {error}"
    else:
        return "verify did not find it"
    if _count(conn, "SELECT count(*) FROM pymig.entity WHERE state = 'backfilled'") != 1:
        return "the state stayed verified"
    if _count(conn, "SELECT count(*) FROM pymig.entity WHERE verified_at IS NULL") != 1:
        return "verified_at stayed"
    if _count(conn, "SELECT count(*) FROM pymig.verification WHERE NOT is_equal") == 0:
        return "no row of verification says so"
    conn.execute("CALL pymig.verify('x', p_repair => true)")
    if _count(conn, "SELECT count(*) FROM pymig.verification WHERE repaired") == 0:
        return "no row of verification says it was repaired"
    if _count(conn, "SELECT count(*) FROM pymig.entity WHERE state = 'verified'") != 1:
        return "the state did not come back"
    return None


def test_the_sample_names_the_cell(prepared: psycopg.Connection[Any]) -> None:
    """Drill-down: the channel, the time and both values, so that a person can look."""
    prepared.execute("CALL pymig.migrate('x', p_column_types => 'native')")
    prepared.execute("UPDATE n_x SET f0 = '-0' WHERE f0 = 0")
    with pytest.raises(psycopg.Error) as caught:
        prepared.execute("CALL pymig.verify('x')")
    assert caught.value.sqlstate == "PM013"
    found = prepared.execute(
        "SELECT v.differences, v.sample FROM pymig.verification AS v WHERE NOT v.is_equal"
    ).fetchall()
    assert len(found) == 1
    differences, sample = found[0]
    assert differences == len(sample) == 1
    assert sample[0]["channel"] == "f0"
    assert (sample[0]["narrow_value"], sample[0]["wide_value"]) == ("0", "-0")


def test_no_time_quarantine_is_verified_too(db: Database) -> None:
    """Rows without a time have no bucket of their own, and still must be in quarantine."""
    conn = _odd(db, {})
    conn.execute(
        "CREATE TABLE t (seq int, ship text, ch text, ts timestamp, v int);"
        "CREATE INDEX ON t (ship, ts);"
        "INSERT INTO t VALUES (1, 'x', 'a', '2024-01-01', 1), (2, 'x', 'a', NULL, 2)"
    )
    conn.execute(
        "CALL pymig.register_source('t', 't', 'ship', 'ch', 'ts', '{v}', p_tie_break => '{seq}')"
    )
    conn.execute("CALL pymig.migrate('x')")
    assert _count(conn, "SELECT count(*) FROM pymig.quarantine WHERE reason = 'no_time'") == 1
    conn.execute("DELETE FROM pymig.quarantine")
    assert _is_found_and_repaired(conn) is None
    assert _count(conn, "SELECT count(*) FROM pymig.quarantine WHERE reason = 'no_time'") == 1


def test_no_false_alarm_while_keys_are_pending(prepared: psycopg.Connection[Any]) -> None:
    """A changed key is the worker's business: verify drains it, and finds nothing wrong."""
    prepared.execute("CALL pymig.migrate('x', p_column_types => 'native')")
    prepared.execute("UPDATE n SET f = 1.5 WHERE fmt = 'f'")
    buckets = [
        row[0] for row in prepared.execute("SELECT bucket FROM pymig.verification ORDER BY 1")
    ]
    assert buckets
    for bucket in buckets:  # verify_bucket alone drains nothing
        prepared.execute("SELECT pymig.verify_bucket('x', %s)", [bucket])
    assert _count(prepared, "SELECT count(*) FROM pymig.pending") > 0
    assert _count(prepared, "SELECT count(*) FROM pymig.verification WHERE NOT is_equal") == 0
    prepared.execute("CALL pymig.verify('x')")
    assert _count(prepared, "SELECT count(*) FROM pymig.pending") == 0
    assert difference(prepared, NARROW) == []
