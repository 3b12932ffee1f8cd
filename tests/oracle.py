"""The independent oracle: the narrow table pivoted in plain Python, compared with the wide tables.

Nothing here reads pymig's views, functions or SQL to find out what a wide table should hold; of
the catalog only `pymig.channel_map` (where is a cell, of which type), `pymig.entity` and
`pymig.quarantine` are read. Rows come one by one with every column as `::text`; which row wins,
which column counts, what is a fault and what a cell looks like is decided in Python.

All cells are compared exactly: floats bit for bit, text as stored, NULL is not ''.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import psycopg
from psycopg import sql

Cell = str | int | float | bool
Cells = dict[str, dict[str, dict[str, Cell]]]  # entity -> time -> channel -> value; no NULLs

MAX_LINES = 50
NO_WIDE_STATES = frozenset({"known", "planned", "rolled_back", "failed"})


class OracleError(Exception):
    """The description leaves open what the wide table should hold, so no test may rely on it."""


class Fault(Enum):
    """Why a narrow row cannot become a cell."""

    FORMAT = "unknown value format"
    OTHER_COLUMN = "value in another column than the format says"
    AMBIGUOUS = "more than one value column is set"
    MISFIT = "value does not fit the column's type"
    NO_CHANNEL = "channel is NULL"


@dataclass(frozen=True)
class Narrow:
    """How to read one narrow table; `table` is SQL text that ::regclass understands."""

    source: str
    table: str
    entity_column: str
    channel_column: str
    time_column: str
    value_columns: tuple[str, ...]
    format_column: str | None = None
    formats: Mapping[str, str] = field(default_factory=dict)
    tie_break: tuple[str, ...] = ()
    time_grain: timedelta | None = None
    time_unit: str | None = None


DEFAULT_FORMATS = {
    "Decimal": "double_v",
    "Integer": "long_v",
    "String": "str_v",
    "Boolean": "bool_v",
}


def default_narrow(
    table: str = "tenant.tbl_data_timeseries",
    source: str = "tbl_data_timeseries",
    tie_break: tuple[str, ...] = (),
) -> Narrow:
    """A table with the shape of the default source."""
    return Narrow(
        source=source,
        table=table,
        entity_column="ship_id",
        channel_column="data_channel_id",
        time_column="created_time",
        value_columns=("double_v", "long_v", "str_v", "bool_v"),
        format_column="value_format",
        formats=DEFAULT_FORMATS,
        tie_break=tie_break,
    )


@dataclass(frozen=True)
class Pivot:
    """What the narrow table says: every wide row, every cell, every row that is no cell."""

    cells: Cells
    quarantined: dict[str, Counter[str | None]]  # entity -> channel -> rows


@dataclass(frozen=True)
class Wide:
    """What the wide tables hold, and what is wrong with them before any cell is compared."""

    cells: Cells
    problems: list[str]


# --- time ---------------------------------------------------------------------------------------

_ISO = re.compile(
    r"(?P<y>\d+)-(?P<mo>\d\d)-(?P<d>\d\d)"
    r"(?: (?P<h>\d\d):(?P<mi>\d\d):(?P<s>\d\d)(?:\.(?P<f>\d{1,6}))?)?"
    r"(?P<z>\+00)?(?P<bc> BC)?"
)
_DAY = 86_400_000_000
_FOREVER = 1 << 80  # farther than any time PostgreSQL knows


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar, for any year (0 is 1 BC)."""
    year -= month <= 2
    era, yoe = divmod(year, 400)
    doy = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719_468


def _civil(days: int) -> tuple[int, int, int]:
    """The inverse of _days."""
    era, doe = divmod(days + 719_468, 146_097)
    yoe = (doe - doe // 1460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    month = mp + (3 if mp < 10 else -9)
    return yoe + era * 400 + (month <= 2), month, doy - (153 * mp + 2) // 5 + 1


def micros(text: str) -> int:
    """A date or timestamp as PostgreSQL prints it (ISO, UTC) -> microseconds since 1970-01-01."""
    if text in ("infinity", "-infinity"):
        return _FOREVER if text == "infinity" else -_FOREVER
    found = _ISO.fullmatch(text)
    if not found:
        raise OracleError(f"not a time in ISO style and UTC: {text!r}")
    year = int(found["y"])
    days = _days(1 - year if found["bc"] else year, int(found["mo"]), int(found["d"]))
    seconds = int(found["h"] or 0) * 3600 + int(found["mi"] or 0) * 60 + int(found["s"] or 0)
    return days * _DAY + seconds * 1_000_000 + int((found["f"] or "").ljust(6, "0"))


def iso(at: int, like: str) -> str:
    """Microseconds since 1970-01-01 -> text in the form (date, zone) of `like`."""
    days, rest = divmod(at, _DAY)
    year, month, day = _civil(days)
    text = f"{1 - year if year <= 0 else year:04d}-{month:02d}-{day:02d}"
    if ":" in like:
        seconds, fraction = divmod(rest, 1_000_000)
        text += f" {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        text += f".{fraction:06d}".rstrip("0") if fraction else ""
        text += "+00" if "+00" in like else ""
    return text + (" BC" if year <= 0 else "")


_UNIT = {"s": 1, "ms": 1_000, "us": 1_000_000}


def _grain(narrow: Narrow) -> Callable[[str], str] | None:
    """Raw time -> time of its wide row; grains count from midnight (epoch: from 0)."""
    if narrow.time_grain is None:
        return None
    width = round(narrow.time_grain.total_seconds() * 1_000_000)
    if narrow.time_unit:
        units = width * _UNIT[narrow.time_unit] // 1_000_000
        return lambda text: str(int(text) // units * units)
    origin = _days(2000, 1, 1) * _DAY

    def floor(text: str) -> str:
        at = micros(text)
        return text if abs(at) == _FOREVER else iso((at - origin) // width * width + origin, text)

    return floor


# --- which row wins -----------------------------------------------------------------------------

_ALIASES = {
    "double precision": "float8",
    "real": "float4",
    "bigint": "int8",
    "integer": "int4",
    "smallint": "int2",
    "boolean": "bool",
    "character varying": "text",
    "varchar": "text",
}


def type_name(name: str) -> str:
    """One short name per type, without length or precision."""
    bare = name.split("(", 1)[0].strip()
    return _ALIASES.get(bare, bare)


def _order_key(name: str) -> Callable[[str], Any]:
    """Text of a tie-break or time column -> something that sorts as the column does."""
    if name in ("int2", "int4", "int8"):
        return int
    if name in ("numeric", "float4", "float8"):
        return Decimal
    if name.startswith("timestamp") or name == "date":
        return micros
    return str


def _rank(keys: list[Callable[[str], Any]], texts: tuple[str | None, ...]) -> tuple[Any, ...]:
    """Later rows rank higher; a NULL ranks below every value."""
    return tuple(
        (0,) if text is None else (1, key(text)) for key, text in zip(keys, texts, strict=True)
    )


# --- what a row's cell is -----------------------------------------------------------------------

_INTEGERS = frozenset({"int2", "int4", "int8"})


def fit(text: str, value_type: str, column_type: str) -> Cell | Fault:
    """The value of a narrow row in a wide column of `column_type`, or MISFIT if it would change."""
    if column_type == "text":
        return text
    if column_type == value_type or (column_type == "int8" and value_type in _INTEGERS):
        return _read(text, column_type)
    if column_type == "numeric" and value_type in _INTEGERS:
        return text
    if column_type == "float8" and value_type == "float4":
        return float(struct.unpack("f", struct.pack("f", float(text)))[0])
    if column_type == "float8" and value_type in _INTEGERS:
        # Beyond 2^53 a double no longer tells an integer from its neighbours.
        return float(int(text)) if abs(int(text)) <= 2**53 else Fault.MISFIT
    return Fault.MISFIT


def _read(text: str, column_type: str) -> Cell:
    """Text of a wide column -> the value to compare."""
    if column_type == "float8":
        return float(text)
    if column_type in _INTEGERS:
        return int(text)
    if column_type == "bool":
        return {"true": True, "false": False}[text]
    return text


def _chosen(
    narrow: Narrow, fmt: str | None, values: Mapping[str, str | None]
) -> str | Fault | None:
    """The value column that counts for this row; None when the row has no value at all."""
    present = [name for name, value in values.items() if value is not None]
    if narrow.format_column is None:
        if len(present) > 1:
            return Fault.AMBIGUOUS
        return present[0] if present else None
    column = narrow.formats.get(fmt) if fmt is not None else None
    if column is None:
        return Fault.FORMAT
    if values[column] is None:
        return Fault.OTHER_COLUMN if present else None
    return column


# --- reading ------------------------------------------------------------------------------------


def column_types(conn: psycopg.Connection[Any], narrow: Narrow) -> dict[tuple[str, str], str]:
    """(entity, channel) -> type of its wide column, as pymig.channel_map says."""
    rows = conn.execute(
        "SELECT m.entity::text, m.channel::text, m.column_type::text"
        " FROM pymig.channel_map m WHERE m.source = %s",
        [narrow.source],
    )
    return {(entity, channel): type_name(kind) for entity, channel, kind in rows}


def pivot(
    conn: psycopg.Connection[Any], narrow: Narrow, types: Mapping[tuple[str, str], str]
) -> Pivot:
    """Pivot the narrow table row by row; columns not in `types` are text. One statement."""
    with _plain_session(conn):
        kinds = _narrow_types(conn, narrow)
        time_key = _order_key("int8" if narrow.time_unit else kinds[narrow.time_column])
        keys = [_order_key(kinds[name]) for name in narrow.tie_break]
        if narrow.time_grain is not None:
            keys.insert(0, time_key)
        winners, quarantined = _winners(conn, narrow, kinds, keys, types)
    cells: Cells = {}
    for entity, times in winners.items():
        rows = cells.setdefault(entity, {})
        faults = quarantined.setdefault(entity, Counter())
        for time, channels in times.items():
            row = rows.setdefault(time, {})
            for channel, (_, outcome) in channels.items():
                if isinstance(outcome, Fault):
                    faults[channel] += 1
                elif outcome is not None and channel is not None:
                    row[channel] = outcome
    return Pivot(cells, quarantined)


def expected(conn: psycopg.Connection[Any], narrow: Narrow) -> Cells:
    """entity -> time -> channel -> value, from the narrow table alone (types: channel_map)."""
    return pivot(conn, narrow, column_types(conn, narrow)).cells


_Winners = dict[str, dict[str, dict[str | None, tuple[tuple[Any, ...], Cell | Fault | None]]]]


def _winners(
    conn: psycopg.Connection[Any],
    narrow: Narrow,
    kinds: Mapping[str, str],
    keys: list[Callable[[str], Any]],
    types: Mapping[tuple[str, str], str],
) -> tuple[_Winners, dict[str, Counter[str | None]]]:
    """The row that decides each cell; beside them the rows without a time, which decide none."""
    floor = _grain(narrow)
    winners: _Winners = {}
    timeless: dict[str, Counter[str | None]] = {}
    width = len(narrow.value_columns)
    for raw in _narrow_rows(conn, narrow):
        entity, channel, time, fmt, *rest = raw
        if entity is None:
            raise OracleError(f"a row of no entity: {raw!r}")
        if time is None:
            timeless.setdefault(entity, Counter())[channel] += 1
            continue
        values = dict(zip(narrow.value_columns, rest[:width], strict=True))
        ties = tuple(rest[width:])
        if floor is not None:
            ties, time = (time, *ties), floor(time)
        rank = _rank(keys, ties)
        column = _chosen(narrow, fmt, values) if channel is not None else Fault.NO_CHANNEL
        outcome: Cell | Fault | None
        if isinstance(column, str):
            text = values[column]
            assert text is not None
            outcome = fit(text, kinds[column], types.get((entity, channel), "text"))
        else:
            outcome = column
        row = winners.setdefault(entity, {}).setdefault(time, {})
        rival = row.get(channel)
        if rival is not None and rival[0] == rank and not same(rival[1], outcome):
            raise OracleError(f"no tie-break between two rows of {entity!r} {channel!r} {time}")
        if rival is None or rival[0] < rank:
            row[channel] = (rank, outcome)
    return winners, timeless


def _narrow_rows(conn: psycopg.Connection[Any], narrow: Narrow) -> Iterator[tuple[Any, ...]]:
    def text(name: str | None) -> sql.Composable:
        return sql.SQL("n.{}::text").format(sql.Identifier(name)) if name else sql.SQL("NULL")

    names = [narrow.entity_column, narrow.channel_column, narrow.time_column, narrow.format_column]
    columns = [text(name) for name in (*names, *narrow.value_columns, *narrow.tie_break)]
    query = sql.SQL("SELECT {} FROM {} n").format(
        sql.SQL(", ").join(columns),
        sql.SQL(narrow.table),
    )
    with conn.cursor(name="oracle_narrow") as cursor:
        cursor.itersize = 20_000
        cursor.execute(query)
        yield from cursor


def _narrow_types(conn: psycopg.Connection[Any], narrow: Narrow) -> dict[str, str]:
    rows = conn.execute(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, NULL) FROM pg_catalog.pg_attribute a"
        " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped",
        [narrow.table],
    )
    return {name: type_name(kind) for name, kind in rows}


@contextmanager
def _plain_session(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """One transaction, one snapshot, and text forms that lose nothing."""
    if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        yield  # the caller's own snapshot
        return
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name, value in (
            ("datestyle", "ISO, YMD"),
            ("timezone", "UTC"),
            ("extra_float_digits", "1"),
            ("statement_timeout", "0"),
            ("row_security", "off"),
            ("jit", "off"),  # compiling 1,000 columns takes longer than reading them
        ):
            conn.execute("SELECT pg_catalog.set_config(%s, %s, true)", [name, value])
        yield


def actual(conn: psycopg.Connection[Any], narrow: Narrow) -> Wide:
    """entity -> time -> channel -> value as the wide tables hold them, all parts together."""
    with _plain_session(conn):
        tables: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
        for entity, table, channel, column, kind in conn.execute(
            "SELECT m.entity::text, format('%%I.%%I', s.nspname, c.relname), m.channel::text,"
            " m.wide_column::text, m.column_type::text"
            " FROM pymig.channel_map m"
            " JOIN pg_catalog.pg_class c ON c.oid = m.wide_table::regclass"
            " JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace"
            " WHERE m.source = %s ORDER BY 1, 2",
            [narrow.source],
        ):
            column_list = tables.setdefault((entity, table), [])
            column_list.append((channel, column, type_name(kind)))
        cells: Cells = {}
        problems: list[str] = []
        for (entity, table), columns in tables.items():
            first = entity not in cells
            rows = cells.setdefault(entity, {})
            problems += _read_part(conn, narrow, table, columns, rows, first)
    return Wide(cells, problems)


def _read_part(
    conn: psycopg.Connection[Any],
    narrow: Narrow,
    table: str,
    columns: list[tuple[str, str, str]],
    rows: dict[str, dict[str, Cell]],
    first: bool,
) -> list[str]:
    """Add one part's cells to `rows`; every part must have the times of the first one."""
    names = [narrow.time_column, *(column for _, column, _ in columns)]
    query = sql.SQL("SELECT {} FROM {} w").format(
        sql.SQL(", ").join(sql.SQL("w.{}::text").format(sql.Identifier(n)) for n in names),
        sql.SQL(table),
    )
    seen: set[str] = set()
    problems = []
    with conn.cursor(name="oracle_wide") as cursor:
        cursor.itersize = max(50, 200_000 // len(names))
        cursor.execute(query)
        for time, *texts in cursor:
            if time in seen:
                problems.append(f"{table}: two rows at {time}")
            if not first and time not in rows:
                problems.append(f"{table}: a row at {time} that another part lacks")
            seen.add(time)
            row = rows.setdefault(time, {})
            for (channel, _, kind), text in zip(columns, texts, strict=True):
                if text is not None:
                    row[channel] = _read(text, kind)
    problems += [f"{table}: no row at {time} as in another part" for time in rows.keys() - seen]
    return problems


# --- comparing ----------------------------------------------------------------------------------


def same(one: object, other: object) -> bool:
    """Identical, not merely equal: type, bits of a float, NULL against ''."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    return one == other


def difference(
    conn: psycopg.Connection[Any], narrow: Narrow, entities: set[str] | None = None
) -> list[str]:
    """Everything in which the wide tables differ from the narrow table, first 50 lines; [] = equal.

    Without `entities` all that pymig says it has migrated are compared.
    """
    with _plain_session(conn):
        types = column_types(conn, narrow)
        if entities is None:
            entities = {entity for entity, _ in types} | _migrated(conn, narrow)
        want = pivot(conn, narrow, types)
        wide = actual(conn, narrow)
        lines = list(wide.problems)
        for entity in sorted(entities):
            lines += _entity_difference(entity, want, wide)
        lines += _quarantine_difference(conn, narrow, entities, want)
    if len(lines) > MAX_LINES:
        return [*lines[:MAX_LINES], f"... {len(lines)} differences in all"]
    return lines


def _migrated(conn: psycopg.Connection[Any], narrow: Narrow) -> set[str]:
    rows = conn.execute(
        "SELECT e.entity::text, e.state::text FROM pymig.entity e WHERE e.source = %s",
        [narrow.source],
    )
    return {entity for entity, state in rows if state not in NO_WIDE_STATES}


def _entity_difference(entity: str, want: Pivot, wide: Wide) -> Iterator[str]:
    expected_rows = want.cells.get(entity, {})
    actual_rows = wide.cells.get(entity, {})
    for time in expected_rows.keys() | actual_rows.keys():
        if time not in actual_rows:
            yield f"{entity!r} {time}: no wide row (narrow has {sorted(expected_rows[time])[:5]})"
        elif time not in expected_rows:
            yield f"{entity!r} {time}: a wide row without any narrow row"
        else:
            expected_row, actual_row = expected_rows[time], actual_rows[time]
            for channel in expected_row.keys() | actual_row.keys():
                one, other = expected_row.get(channel), actual_row.get(channel)
                if not same(one, other):
                    yield f"{entity!r} {channel!r} {time}: narrow {one!r}, wide {other!r}"


def _quarantine_difference(
    conn: psycopg.Connection[Any], narrow: Narrow, entities: set[str], want: Pivot
) -> Iterator[str]:
    have: dict[str, Counter[str | None]] = {}
    for entity, channel, rows in conn.execute(
        "SELECT q.entity::text, q.channel::text, count(*) FROM pymig.quarantine q"
        " WHERE q.source = %s GROUP BY 1, 2",
        [narrow.source],
    ):
        have.setdefault(entity, Counter())[channel] = rows
    for entity in sorted(entities):
        one, other = want.quarantined.get(entity, Counter()), have.get(entity, Counter())
        for channel in sorted(one.keys() | other.keys(), key=str):
            if one[channel] != other[channel]:
                yield (
                    f"{entity!r} {channel!r}: {one[channel]} rows belong in quarantine,"
                    f" {other[channel]} are there"
                )
