"""The statements pymig generates for two small sources, word for word.

A change of the generators shows here as a diff to read. To accept it, run with UPDATE_GOLDEN=1 and
look at what git says. The same text on every version of PostgreSQL. Sources that are wide are
executed by other tests, not stored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import pglast
import psycopg
import pytest

from tests.conftest import SKIPS, Database

GOLDEN: Final = Path(__file__).parent / "golden"
UPDATE: Final = os.environ.get("UPDATE_GOLDEN", "") not in ("", "0")


@dataclass(frozen=True)
class Source:
    """A source with three channels of one entity."""

    name: str
    setup: LiteralString
    entity: str
    by_key: bool


PLAIN: Final = Source(
    "plain",
    """
    CREATE SCHEMA tenant;
    CREATE TABLE tenant.samples (ship_id text, channel_id text, created_time timestamp,
        double_v float8, long_v int8, str_v text, value_format varchar(50),
        PRIMARY KEY (ship_id, channel_id, created_time));
    INSERT INTO tenant.samples VALUES
        ('SHIP1', 'main/engine/rpm', '2024-01-01', 1.5, NULL, NULL, 'Decimal'),
        ('SHIP1', 'main/engine/starts', '2024-01-01', NULL, 7, NULL, 'Integer'),
        ('SHIP1', 'main/engine/state', '2024-01-01', NULL, NULL, 'running', 'String');
    CALL pymig.register_source('plain', 'tenant.samples', 'ship_id', 'channel_id', 'created_time',
        '{double_v,long_v,str_v}', 'value_format',
        '{"Decimal":"double_v","Integer":"long_v","String":"str_v"}', p_column_types => 'native');
    CREATE EXTENSION tablefunc SCHEMA public;
    """,
    "SHIP1",
    True,
)
AWKWARD: Final = Source(
    "awkward",
    '''
    CREATE SCHEMA "it's 1""";
    CREATE TABLE "it's 1"""."%I; --" (seq bigint, "select" text, "%1$s" text, "time'" bigint,
        "{v}" numeric);
    CREATE INDEX ON "it's 1"""."%I; --" ("select", "time'");
    INSERT INTO "it's 1"""."%I; --" VALUES (1, E'O''Brien\\\\', '"; DROP TABLE x; --', 0, 1),
        (2, E'O''Brien\\\\', '', 1000, 1.0), (3, E'O''Brien\\\\', repeat('é', 40), 2000, NULL);
    CALL pymig.register_source('awkward', $$"it's 1"""."%I; --"$$, 'select', '%1$s', $$time'$$,
        '{"{v}"}', p_tie_break => '{seq}', p_time_unit => 'ms', p_time_grain => '1 second',
        p_wide_schema => $$it's 1"$$);
    CREATE EXTENSION tablefunc SCHEMA "it's 1""";
    ''',
    "O'Brien\\",
    False,
)
BUCKET: LiteralString = "pymig._time_condition(s, 'n.raw_time', 10, 11)"
TRANSPOSE: LiteralString = (
    f"SELECT pymig._recompute_by_arrays_sql(s, %(entity)s, {BUCKET}, %(by_key)s)"
    " FROM pymig.source AS s"
)
STATEMENTS: Final[dict[str, LiteralString]] = {
    "cell_view": "SELECT pymig._cell_view_sql(s) FROM pymig.source AS s",
    "transpose": TRANSPOSE,
    "transpose_listed": TRANSPOSE,
    "verify": "SELECT pymig._verify_sql(s, %(entity)s, 10, 11) FROM pymig.source AS s",
    "cells_of_keys": "SELECT pymig._recompute_by_cells_sql(s, %(entity)s, 'json',"
    " pymig._time_condition(s, 'n.raw_time', 10, 10, '{}'), false) FROM pymig.source AS s",
    "trigger_functions": "SELECT string_agg(format(E'-- %%s\\n%%s', p.proname, p.prosrc), E'\\n'"
    " ORDER BY p.proname) FROM pg_proc AS p WHERE p.pronamespace = 'pymig'::regnamespace"
    " AND NOT starts_with(p.proname, '_')"
    " AND (p.prorettype = 'trigger'::regtype OR p.proname LIKE '%%\\_write\\_directly')",
    "wide_table": "SELECT format('CREATE TABLE %%I (%%s)', p.wide_table,"
    " pymig._column_definitions(p.source, p.entity, p.part)) FROM pymig.part AS p",
    **{
        strategy: "SELECT pymig._recompute_by_cells_sql(s, %(entity)s, "
        f"'{strategy}', {BUCKET}, %(by_key)s, 'true', %(by_key)s) FROM pymig.source AS s"
        for strategy in ("json", "record", "filter")
    },
    "crosstab": f"SELECT pymig._recompute_by_crosstab_sql(s, %(entity)s, {BUCKET}, %(by_key)s,"
    " 'true', %(by_key)s) FROM pymig.source AS s",
}


def _migrated(db: Database, source: Source) -> psycopg.Connection[Any]:
    conn = db.connect()
    conn.execute(source.setup)
    conn.execute("CALL pymig.migrate(%s)", [source.entity])
    if source is PLAIN:
        conn.execute("CALL pymig.set_sync(%s, 'direct')", [source.entity])
    channels = conn.execute("SELECT count(*) FROM pymig.channel_map").fetchone()
    assert channels == (3,)
    return conn


@pytest.mark.parametrize("source", [PLAIN, AWKWARD], ids=lambda source: source.name)
def test_generated_sql_is_the_golden_one(db: Database, source: Source) -> None:
    """Each statement against its file; all differing files are named at once."""
    conn = _migrated(db, source)
    wrong = []
    for name, query in STATEMENTS.items():
        # What depends on the version is set, and both ways are stored.
        conn.execute(SKIPS.format(not name.endswith("_listed")).encode())
        row = conn.execute(query, {"entity": source.entity, "by_key": source.by_key}).fetchone()
        assert row is not None and row[0]
        text = "\n".join(line.rstrip() for line in str(row[0]).strip().split("\n")) + "\n"
        file = GOLDEN / f"{source.name}_{name}.sql"
        if UPDATE:
            file.write_text(text, "utf-8")
        elif not file.is_file() or file.read_text("utf-8") != text:
            wrong.append(file.name)
    assert wrong == [], "run with UPDATE_GOLDEN=1 and read the diff"


def test_golden_files_are_those_compared() -> None:
    """No file is left of a statement that is no longer generated."""
    names = {f"{source.name}_{name}.sql" for source in (PLAIN, AWKWARD) for name in STATEMENTS}
    assert {file.name for file in GOLDEN.iterdir()} == names


@pytest.mark.parametrize("name", [n for n in STATEMENTS if n not in ("trigger_functions",)])
def test_golden_sql_is_one_statement(name: str) -> None:
    """Awkward names close no quote: what parses as one statement stays one."""
    for source in (PLAIN, AWKWARD):
        text = (GOLDEN / f"{source.name}_{name}.sql").read_text("utf-8")
        assert len(pglast.parse_sql(text)) == 1


@pytest.mark.parametrize("source", [PLAIN, AWKWARD], ids=lambda source: source.name)
def test_golden_sql_quotes_every_name(source: Source) -> None:
    """The entity stands in each statement as a literal only, the columns as identifiers only."""
    text = (GOLDEN / f"{source.name}_transpose.sql").read_text("utf-8")
    if source is AWKWARD:
        assert "E'O''Brien\\\\'" in text
        assert '"it\'s 1"""' in text
        assert '"""; DROP TABLE x; --"' in text  # doubled quote
    else:
        assert "'SHIP1'" in text and '"main/engine/rpm"' in text
