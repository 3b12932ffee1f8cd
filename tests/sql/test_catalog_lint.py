"""The installed catalog and the rendered SQL keep the house rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, LiteralString

import pglast
import psycopg
import pytest
from pglast import ast, enums
from pglast.visitors import Visitor

from pymig.errors import REGISTRY
from pymig.paths import alembic_folder, sql_folder
from pymig.render import Rendered, render_core, render_folder
from tests.conftest import Database

SOURCES: LiteralString = """
CREATE TABLE keyed (ship text, ch text, ts timestamp, d float8, s text, fmt text,
    PRIMARY KEY (ship, ch, ts));
CREATE TABLE loose (id int, ship uuid, ch int, ts bigint, v jsonb);
CREATE INDEX ON loose (ship, ts);
CALL pymig.register_source('keyed', 'keyed', 'ship', 'ch', 'ts', '{d,s}', 'fmt',
    '{"d":"d","s":"s"}');
CALL pymig.register_source('loose', 'loose', 'ship', 'ch', 'ts', '{v}', p_tie_break => '{id}',
    p_time_unit => 'ms');
"""
ROUTINES: LiteralString = """
SELECT p.oid::regprocedure::text AS name, p.prokind::text AS kind, l.lanname::text AS language,
    p.provolatile::text AS volatility, p.prosecdef AS definer, p.prosrc AS body,
    coalesce(p.proconfig, '{}') AS config, obj_description(p.oid, 'pg_proc') AS comment,
    p.prorettype = 'trigger'::regtype AS is_trigger,
    has_function_privilege('public', p.oid, 'EXECUTE') AS is_public
FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
WHERE p.pronamespace = 'pymig'::regnamespace
ORDER BY 1
"""
RELATIONS: LiteralString = """
SELECT c.relname::text, c.relkind::text, obj_description(c.oid, 'pg_class') FROM pg_class AS c
WHERE c.relnamespace = 'pymig'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
ORDER BY 1
"""
COLUMNS: LiteralString = """
SELECT c.relname::text || '.' || a.attname, col_description(c.oid, a.attnum) FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'pymig'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
ORDER BY 1
"""
NOT_OURS: Final = "alembic_version"


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """pymig as installed."""
    return db.connect()


def _routines(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    cursor = conn.execute(ROUTINES)
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    assert len(rows) > 80  # an empty list would keep every rule
    return rows


def _make_sources(conn: psycopg.Connection[Any]) -> None:
    """Two sources whose triggers have all branches: a handler for a full disk, a direct entity."""
    conn.execute(SOURCES)
    conn.execute("UPDATE pymig.source SET queue_tablespace = 'pg_default'")
    conn.execute("INSERT INTO pymig.entity (source, entity, sync) VALUES ('keyed', 'x', 'direct')")
    conn.execute("SELECT pymig._create_trigger_functions(s) FROM pymig.source AS s")


def _has_path(routine: dict[str, Any]) -> bool:
    return "search_path=pg_catalog, pg_temp" in routine["config"]


def _controls_transactions(routine: dict[str, Any]) -> bool:
    """COMMIT is not allowed under a SET clause, in the routine itself and in what it CALLs."""
    return routine["kind"] == "p" and bool(re.search(r"\bCOMMIT;|\bCALL pymig\.", routine["body"]))


def _is_inlinable(routine: dict[str, Any]) -> bool:
    """Pure SQL without a table: a SET clause would keep it from being inlined."""
    body = re.sub(r"--.*", "", routine["body"])
    body = re.sub(r"extract\s*\(\s*\w+\s+FROM\b", "", body, flags=re.IGNORECASE)
    return (
        routine["language"] == "sql"
        and routine["volatility"] in "is"
        and not routine["definer"]
        and not re.search(r"\b(FROM|JOIN|INTO|UPDATE)\b", body, flags=re.IGNORECASE)
    )


def test_every_routine_has_a_search_path(conn: psycopg.Connection[Any]) -> None:
    """By a SET clause; else SET LOCAL after each COMMIT, or nothing to look up in any schema."""
    _make_sources(conn)
    # An aggregate looks nothing up: it knows its function by number.
    routines = [r for r in _routines(conn) if r["kind"] != "a"]
    bare = [r for r in routines if not (_has_path(r) or r["definer"])]
    assert [r["name"] for r in bare if not (_controls_transactions(r) or _is_inlinable(r))] == []
    for routine in bare:
        if _controls_transactions(routine):
            commits = len(re.findall(r"\bCOMMIT;", routine["body"]))
            begins = re.findall(
                r"\bCOMMIT;\s+SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
                r"\s+SET LOCAL search_path = pg_catalog, pg_temp;",
                routine["body"],
            )
            assert len(begins) == commits, routine["name"]
            assert commits or "SELECT" not in routine["body"].upper(), routine["name"]


def _expressions(node: Any) -> Iterator[str]:
    """Expressions and statements of a parsed routine, each as SQL."""
    if isinstance(node, list):
        for item in node:
            yield from _expressions(item)
    elif isinstance(node, dict):
        if "query" in node:
            yield ("SELECT " if node.get("parseMode") == 2 else "") + node["query"]
        for item in node.values():
            yield from _expressions(item)


class _Unqualified(Visitor):
    """Collects what a search_path would have to find, and what is of somebody else's schema."""

    NAMES: Final = {
        ast.A_Expr: "name",
        ast.FuncCall: "funcname",
        ast.TypeName: "names",
        ast.SubLink: "operName",
        ast.SortBy: "useOp",
        ast.CollateClause: "collname",
    }

    def __init__(self, transition_tables: bool, row_type: str) -> None:
        self.found: list[str] = []
        # Their names go before those of any schema's tables.
        self.tables = {"new_rows", "old_rows"} if transition_tables else set()
        self.row_type = row_type

    def visit(self, _: Any, node: ast.Node) -> None:
        if attribute := self.NAMES.get(type(node)):
            self._look([str(n.sval) for n in getattr(node, attribute) or ()])
        match node:
            case ast.SubLink(subLinkType=enums.SubLinkType.ANY_SUBLINK, operName=None):
                self.found.append("IN")
            case ast.CaseExpr() if node.arg:
                self.found.append("CASE x WHEN")
            case ast.JoinExpr() if node.usingClause or node.isNatural:
                self.found.append("USING")
            case ast.RangeVar() if node.schemaname or node.relname not in self.tables:
                self._look([str(n) for n in (node.schemaname, node.relname) if n])

    def _look(self, names: list[str]) -> None:
        is_ours = len(names) > 1 and names[0] in ("pg_catalog", "pymig")
        if names and not is_ours and ".".join(names) != self.row_type:
            self.found.append(".".join(names))


def unqualified(body: str, transition_tables: bool = True, row_type: str = "") -> list[str]:
    """Operators, functions, types and tables a PL/pgSQL body leaves to the search_path."""
    parsed = pglast.parse_plpgsql(
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $_lint_${body}$_lint_$"
    )
    visitor = _Unqualified(transition_tables, row_type)
    for text in _expressions(parsed):
        visitor(pglast.parse_sql(text))
    declared = (
        d["PLpgSQL_var"] for d in parsed[0]["PLpgSQL_function"]["datums"] if "PLpgSQL_var" in d
    )
    # Types that are words of the grammar, and so can't be another's.
    visitor.found += [
        v["datatype"]["PLpgSQL_type"]["typname"]
        for v in declared
        if v["refname"].startswith("v_") and v["datatype"]["PLpgSQL_type"]["typname"] != "int8"
    ]
    return visitor.found


def test_definer_routines_are_locked_up(conn: psycopg.Connection[Any]) -> None:
    """SECURITY DEFINER only for triggers, no name left to a search_path, not for PUBLIC to call."""
    _make_sources(conn)
    definers = [r for r in _routines(conn) if r["definer"]]
    assert len(definers) >= 10  # the triggers of two sources
    for routine in definers:
        if not _has_path(routine):  # a trigger of ingest, which a SET clause would cost too much
            per_statement = not re.search(r"_(row|truncate)\(", routine["name"])
            narrow = "public." + re.findall(r"keyed|loose", routine["name"])[0]
            assert unqualified(routine["body"], per_statement, narrow) == [], routine["name"]
        assert not routine["is_public"], routine["name"]
        assert routine["is_trigger"], routine["name"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("IF v_turn = 1 THEN RETURN NULL; END IF;", ["="]),
        ("IF v_turn OPERATOR(pg_catalog.=) abs(1) THEN RETURN NULL; END IF;", ["abs"]),
        ("PERFORM 'x'::regclass;", ["regclass"]),
        ("PERFORM tenant.f(1 OPERATOR(evil.+) 1);", ["tenant.f", "evil.+"]),
        ("PERFORM 'x'::evil.text COLLATE nope;", ["nope", "evil.text"]),
        ("INSERT INTO evil.keys SELECT FROM new_rows AS n;", ["evil.keys"]),
        ("INSERT INTO keys SELECT FROM new_rows AS n;", ["keys"]),
        ("PERFORM CASE v_turn WHEN 1 THEN 2 END;", ["CASE x WHEN"]),
        ("PERFORM FROM new_rows JOIN old_rows USING (id);", ["USING"]),
        ("PERFORM 1 IN (SELECT n.id FROM new_rows AS n);", ["IN"]),
        ("PERFORM 1 IS DISTINCT FROM 2;", ["="]),
        ("DECLARE v_text text; BEGIN NULL; END;", ["text"]),
    ],
)  # fmt: skip
def test_lint_sees_what_is_not_qualified(text: str, found: list[str]) -> None:
    """The rule above can fail."""
    assert unqualified(f"DECLARE v_turn bigint; BEGIN {text} RETURN NULL; END") == found


@pytest.mark.parametrize("sources", [False, True], ids=["installed", "with_sources"])
def test_everything_has_a_comment(conn: psycopg.Connection[Any], sources: bool) -> None:
    """COMMENT ON is the reference manual: of routines, tables, views and their columns."""
    if sources:
        conn.execute(SOURCES)
    found = [(r["name"], r["comment"]) for r in _routines(conn)]
    relations = conn.execute(RELATIONS).fetchall()
    assert len(relations) > 10
    found += [(name, comment) for name, _, comment in relations if name != NOT_OURS]
    if not sources:
        columns = conn.execute(COLUMNS).fetchall()
        found += [row for row in columns if not row[0].startswith(f"{NOT_OURS}.")]
        assert len(found) > 200
    assert [name for name, comment in found if not comment or not comment.strip()] == []


def test_types_and_schema_have_a_comment(conn: psycopg.Connection[Any]) -> None:
    """Own types, and the schema itself."""
    bare = conn.execute(
        "SELECT t.typname FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid"
        " WHERE t.typnamespace = 'pymig'::regnamespace AND t.typelem = 0"
        " AND (t.typrelid = 0 OR c.relkind = 'c') AND obj_description(t.oid, 'pg_type') IS NULL"
    ).fetchall()
    assert bare == []
    row = conn.execute("SELECT obj_description('pymig'::regnamespace, 'pg_namespace')").fetchone()
    assert row and row[0]


# --- errors -------------------------------------------------------------------------------------


def _sql_texts() -> Iterator[tuple[Path, str]]:
    for folder, pattern in ((sql_folder(), "*.j2"), (alembic_folder() / "ddl", "*.sql")):
        for file in sorted(Path(folder).rglob(pattern)):
            yield file, file.read_text("utf-8")


def test_errors_raised_are_the_errors_registered() -> None:
    """One to one: no SQLSTATE without an exception and an exit code, none that is never raised."""
    raised: set[str] = set()
    caught: set[str] = set()
    for _, text in _sql_texts():
        raised |= set(re.findall(r"ERRCODE\s*=\s*'(\w{5})'", text))
        caught |= set(re.findall(r"SQLSTATE\s*'(PM\w{3})'", text))
    assert raised == set(REGISTRY)
    assert caught <= raised


def test_every_error_has_a_code_and_a_hint() -> None:
    """RAISE EXCEPTION … USING ERRCODE, HINT: a person is told what to do."""
    for file, text in _sql_texts():
        for statement in re.findall(r"RAISE EXCEPTION\b.*?;\s*\n", text, flags=re.DOTALL):
            own = re.search(r"ERRCODE = '(PM\w{3}|23505|40001)'", statement)
            assert own, f"{file}: {statement}"
            assert "HINT = " in statement, f"{file}: {statement}"


def test_settings_end_with_the_transaction() -> None:
    """The server, its roles and the session are left as they are: SET LOCAL, or a SET clause."""
    for file, text in _sql_texts():
        code = re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--.*", "", text))  # advice may say more
        assert not re.search(r"ALTER\s+(SYSTEM|DATABASE|ROLE|USER)|SET\s+SESSION", code), file
        assert not re.search(r"^\s*SET (?!LOCAL|TRANSACTION)[^\n;]*;", code, re.MULTILINE), file
        for scope in re.findall(r"set_config\(.*, (\w+)\)", code):
            assert scope == "true", file


# --- plpgsql_check ------------------------------------------------------------------------------

#: Routines that execute SQL put together by others of ours (the *_sql ones, which quote by %I and
#: %L) or from type names of the catalog; read by a person for injection. Add none without reading.
BUILT_FROM_QUOTED_PARTS: Final = frozenset(
    {
        "_add_missing_columns", "_age_tick", "_canonical_entity", "_channel_bound",
        "_channel_values", "_close_range", "_collect_pending", "_compare_buckets",
        "_count_rows", "_create_archive", "_create_compat_view", "_create_month",
        "_create_part", "_create_parts_view", "_create_rw_views", "_create_source_objects",
        "_delete_cells", "_drop_archive", "_drop_compat_view", "_drop_promotions",
        "_drop_wide_tables", "_due_todo", "_exchange_columns", "_expand_range",
        "_fill_promoted", "_follow_rename", "_give_certificate", "_grant_like_narrow",
        "_has_narrow_rows", "_has_pending", "_lock_rows", "_look_at_bucket", "_merge_part",
        "_move_cells", "_narrow_row", "_newest_tick", "_next_narrow_bucket",
        "_pending_by_entity", "_quarantine_closed", "_quarantine_rows", "_queue_partition",
        "_read_both", "_read_wide_sql", "_recompute", "_recompute_singly",
        "_record_newcomers", "_require_writable", "_restore_rows", "_retire_bucket",
        "_run_gathering", "_superseded_rows", "_swap_promoted", "_write_cells",
        "create_compat_view", "read",
    }
)  # fmt: skip
#: What runs a SELECT that the owner of pymig wrote into a table.
RUNS_A_SELECT_OF_THE_OWNERS: Final = "look_at_alerts"


def _is_tolerated(name: str, body: str, level: str, message: str, detail: str) -> bool:
    """Findings that are wrong, each kind with its reason."""
    if name == "_is_hypertable":
        return "_timescaledb_catalog" in message  # it asks first whether that is there
    if level == "security":
        if name == "look_at_throttle":
            return True  # it runs what the table's owner wrote there
        return name in BUILT_FROM_QUOTED_PARTS or name == RUNS_A_SELECT_OF_THE_OWNERS
    if message.endswith("is maybe unmodified"):
        return "RETURN QUERY" in body  # which sets the OUT columns
    if message == "target type is different type than source type":
        # Of a composite, the same one; or a literal.
        return "v_source := pymig._source(" in body or detail.startswith('cast "text" value')
    return False


def test_plpgsql_check_finds_nothing(conn: psycopg.Connection[Any]) -> None:
    """Unknown columns, wrong types, unused variables, injection: in every body, also triggers."""
    available = conn.execute(
        "SELECT count(*) FROM pg_available_extensions WHERE name = 'plpgsql_check'"
    ).fetchone()
    if available == (0,):
        pytest.skip("plpgsql_check is not installed for this server")
    conn.execute("CREATE EXTENSION plpgsql_check")
    conn.execute(SOURCES)
    # _create_entity makes this table itself.
    conn.execute("CREATE TEMPORARY TABLE _pymig_layout (ord int, part int, channel text,"
                 " wide_column text, column_type text, kind text)")  # fmt: skip
    found = conn.execute(
        """
        SELECT p.proname::text, p.prosrc, coalesce(c.lineno, 0), c.level, c.message,
            coalesce(c.detail, '')
        FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
        CROSS JOIN LATERAL plpgsql_check_function_tb(
            p.oid,
            relid => CASE WHEN p.prorettype = 'trigger'::regtype
                          THEN coalesce(to_regclass(split_part(p.proname, '_record_', 1)), 'keyed')
                          ELSE 0::oid END,
            fatal_errors => false, security_warnings => true, extra_warnings => true,
            performance_warnings => false, other_warnings => true,
            newtable => CASE WHEN p.proname ~ '_record_(insert|update)$' THEN 'new_rows' END,
            oldtable => CASE WHEN p.proname ~ '_record_(delete|update)$' THEN 'old_rows' END) AS c
        WHERE p.pronamespace = 'pymig'::regnamespace
        ORDER BY 1, 3
        """
    ).fetchall()
    real = [
        f"{name} line {line}: {level}: {message}"
        for name, body, line, level, message, detail in found
        if not _is_tolerated(name, body, level, message, detail)
    ]
    assert not real, "\n".join(real)


# --- pglast -------------------------------------------------------------------------------------

RENDERED: Final = [*render_core(), *render_folder("demo")]


@pytest.mark.parametrize("rendered", RENDERED, ids=lambda rendered: rendered.name)
def test_rendered_sql_parses(rendered: Rendered) -> None:
    """Offline, statement by statement, bodies of PL/pgSQL included; nothing is left of Jinja."""
    assert not re.search(r"\{\{|\{%|\{#", rendered.sql)
    statements = pglast.parse_sql(_without_parameters(rendered.sql))
    assert statements
    # The parser of bodies knows no schema but public; whose types they are does not matter to it.
    plain = re.sub(r"\b(pymig|demo_fleet)\.", "public.", _without_parameters(rendered.sql))
    for text in pglast.split(re.sub(r"public\.(planned_channel|partition)\[\]", "text[]", plain)):
        if re.search(r"LANGUAGE\s+plpgsql\b", text) and text.lstrip().startswith("CREATE"):
            assert pglast.parse_plpgsql(text)


def _without_parameters(text: str) -> str:
    """Statements that Python runs may have psycopg's parameters."""
    return re.sub(r"%\(\w+\)s", "NULL", text)


def test_one_routine_a_file_with_its_comment() -> None:
    """The file is named after what it makes, and says what that is."""
    for rendered in render_core():
        name = Path(rendered.name).stem
        made = re.findall(r"^CREATE OR REPLACE (?:FUNCTION|PROCEDURE|VIEW) pymig\.(\w+)",
                          rendered.sql, flags=re.MULTILINE)  # fmt: skip
        if rendered.name.endswith("views/pending.sql"):
            continue
        assert set(made) == {name}, rendered.name
        assert "COMMENT ON" in rendered.sql, rendered.name
