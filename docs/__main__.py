"""`python -m docs` (`make docs`): writes docs/reference anew.

Routines, tables and views come from COMMENT ON in a database with pymig in it, commands from the
command line itself, settings from pymig/settings.py, errors from pymig/errors.py and the RAISE
statements of sql/. A test compares what is written here with what these say now.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import typer
from psycopg.rows import dict_row

from docs.scratch import scratch_server
from pymig import errors, settings
from pymig.cli import app
from pymig.install import install
from pymig.render import CORE_FOLDERS, render_folder

HERE: Final = Path(__file__).resolve().parent
REFERENCE: Final = HERE / "reference"
WIDTH: Final = 80
NOTE: Final = "<!-- Written by `make docs`; change the source it names instead. -->\n\n"

Row = dict[str, Any]

#: Variables that are no field of Settings: libpq's, and where to find PostgreSQL.
OTHER_VARIABLES: Final = (
    (
        ", ".join(f"`{name}`" for name in settings.SERVER_VARIABLES),
        "libpq's variables. One of them is enough to make pymig use that server instead of the "
        "embedded one. `PGPASSWORD`, `PGSSLMODE` and the others work too, but choose no server.",
    ),
    (
        "`PG_BINDIR`",
        "Folder of `initdb`, `pg_ctl` and `postgres` for the embedded server. Unset: the wheel's, "
        "then those of `pg_config`, then the newest below `/usr/lib/postgresql`.",
    ),
)


class Raised(NamedTuple):
    """One RAISE EXCEPTION: its SQLSTATE, its message and hint with … for what varies."""

    sqlstate: str
    message: str
    hint: str


def reference(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Every generated file of docs/reference by name; conn: a database with pymig installed."""
    relations = _query(conn, "relations")
    return {
        "routines.md": routines_page(_query(conn, "routines")),
        "tables.md": relations_page("Tables", "table", relations),
        "views.md": relations_page("Views", "view", relations),
        **static_reference(),
    }


def static_reference() -> dict[str, str]:
    """Those of them that need no database."""
    return {"cli.md": cli_page(), "errors.md": errors_page(), "settings.md": settings_page()}


def routines_page(rows: list[Row]) -> str:
    """Procedures and functions with their parameters and comments."""
    text = (
        "# Routines\n\n" + NOTE + "Procedures COMMIT as they go: CALL them in autocommit, at top "
        "level, not inside a transaction. Parameters with a default may be left out. `p_source` "
        "may be left out while one source is registered. Routines whose name begins with an "
        "underscore are pymig's own; their comments stand in `sql/`.\n"
    )
    for kind, group in groupby(rows, key=lambda row: row["kind"]):
        text += f"\n## {kind.capitalize()}s\n"
        for name, overloads in groupby(group, key=lambda row: row["name"]):
            text += f"\n### {name}\n"
            for row in overloads:
                text += f"\n```sql\n{_signature(row)}\n```\n\n{_comment(row['comment'])}\n"
    return text


def relations_page(title: str, kind: str, rows: list[Row]) -> str:
    """Tables or views with their columns."""
    text = f"# {title}\n\n{NOTE}All are in schema `pymig`.\n"
    if kind == "table":
        text += (
            "\nRead them as you like; write none of them. Each registered source has objects of "
            "its own besides: see [sources.md](sources.md).\n"
        )
    for name, columns in groupby(rows, key=lambda row: row["relation"]):
        listed = list(columns)
        if listed[0]["kind"] != kind:
            continue
        text += f"\n## {name}\n\n{listed[0]['relation_comment']}\n\n"
        text += "| column | type | |\n|---|---|---|\n"
        for column in listed:
            words = _cell(column["comment"] or "")
            text += f"| `{column['name']}` | {column['type']} | {words} |\n"
    return text


def cli_page() -> str:
    """Every command's help as the terminal shows it."""
    text = (
        "# Command line\n\n"
        + NOTE
        + "`pymig` is `.venv/bin/pymig` in a checkout. `pymig --debug COMMAND …` shows tracebacks. "
        "Which server it talks to and the defaults of some options come from the environment: "
        "[settings.md](settings.md).\n\n"
        "## Exit codes\n\n| code | means |\n|---|---|\n| 0 | done |\n"
    )
    for code, meaning in sorted(_exit_codes().items()):
        text += f"| {code} | {meaning} |\n"
    for name, shown in commands():
        text += f"\n## {name}\n\n```text\n{shown}\n```\n"
    return text


def commands() -> Iterator[tuple[str, str]]:
    """Every command of the command line that does something, with its help."""
    yield from _commands(typer.main.get_command(app), "pymig")


def settings_page() -> str:
    """The environment variables, from the attribute docstrings of Settings."""
    tree = ast.parse(inspect.getsource(settings.Settings)).body[0]
    assert isinstance(tree, ast.ClassDef)
    text = (
        "# Settings\n\n"
        + NOTE
        + "All come from the environment; options of a command go first. Without `DATABASE_URL` "
        "and without one of libpq's variables pymig uses its own embedded server, and starts it "
        "when needed.\n\n| variable | default | |\n|---|---|---|\n"
    )
    for field, words in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(words, ast.Expr):
            assert isinstance(field.target, ast.Name)
            said = inspect.cleandoc(ast.literal_eval(words.value)).replace("\n", " ")
            name = settings.Settings.model_fields[field.target.id]
            variable = str(name.validation_alias or f"PYMIG_{field.target.id}".upper())
            default = "" if name.default is None else f"`{name.default}`"
            said = said.removeprefix(f"{variable}: ")
            text += f"| `{variable}` | {default} | {_cell(said)} |\n"
    for variable, said in OTHER_VARIABLES:
        text += f"| {variable} | | {said} |\n"
    return text


def errors_page() -> str:
    """The registry of SQLSTATEs with every message that can carry them."""
    meanings = dict(re.findall(r'"(\w{5})": \w+,\s+# (.+)', inspect.getsource(errors)))
    raised = sorted(raise_sites())
    text = (
        "# Errors\n\n"
        + NOTE
        + "Errors of pymig's own have a SQLSTATE that begins with PM (or one of PostgreSQL's, "
        "where applications know what to do with it), one sentence, and a hint. "
        "The command line prints both and ends with the exit code beside. `…` stands for what "
        "varies. Every other SQLSTATE is PostgreSQL's.\n\n"
        "| SQLSTATE | means | exit code |\n|---|---|---|\n"
    )
    for sqlstate, error in errors.REGISTRY.items():
        link = f"[{sqlstate}](#{sqlstate.lower()})"
        text += f"| {link} | {meanings[sqlstate]} | {error.exit_code} |\n"
    for sqlstate in errors.REGISTRY:
        text += f"\n## {sqlstate}\n\n{_sentence(meanings[sqlstate])}\n\n"
        text += "| message | hint |\n|---|---|\n"
        for site in (r for r in raised if r.sqlstate == sqlstate):
            text += f"| {_cell(site.message)} | {_cell(site.hint)} |\n"
    return text


def raise_sites() -> set[Raised]:
    """Every message the rendered SQL raises with a SQLSTATE of ours."""
    found: set[Raised] = set()
    for folder in (*CORE_FOLDERS, "demo"):
        for _, sql in render_folder(folder):
            for statement in re.findall(r"RAISE EXCEPTION ((?:'(?:[^']|'')*'|[^';])*);", sql):
                if code := re.search(r"ERRCODE = '(\w{5})'", statement):
                    hint = re.search(r"HINT = (.*)", statement, re.DOTALL)
                    said = _texts(hint[1] if hint else "", sql)
                    for message in _texts(statement.split("USING ")[0], sql):
                        found.add(Raised(code[1], message, said[0] if said else ""))
    return found


def _texts(expression: str, sql: str) -> list[str]:
    """The sentences an expression of a RAISE can give; a variable's are looked up in its file."""
    if literal := re.match(r"\s*(?:format\()?((?:'(?:[^']|'')*'\s*)+)", expression):
        if literal[1].strip() != "'%'":
            words = "".join(re.findall(r"'((?:[^']|'')*)'(?!')", literal[1]))
            goes_on = expression[literal.end() :].startswith("||")
            return [_template(words + ("%" if goes_on else ""))]
        variable = re.search(r"'%',\s*(\w+)", expression)
    else:
        variable = re.match(r"\s*(v_\w+)", expression)
    if not variable:
        return []
    values = re.search(rf"{variable[1]}(?: text)? := (.*?);\n", sql, re.DOTALL)
    if not values:
        return []
    if values[1].lstrip().startswith("CASE"):
        return [
            _template(text)
            for text in re.findall(r"THEN\s+(?:format\()?'((?:[^']|'')*)'", values[1])
            if " " in text and not re.fullmatch(r"an? [a-z ]+", text)
        ]
    return [_template(text) for text in re.findall(r"'((?:[^']|'')*)'", values[1])[:1]]


def _template(text: str) -> str:
    """A message as people read it: … for every placeholder of RAISE and format()."""
    return re.sub(r"%(?:\d+\$)?[sIL]|%", "…", text.replace("''", "'"))


def _commands(command: Any, path: str) -> Iterator[tuple[str, str]]:
    if nested := getattr(command, "commands", None):
        for name, sub in nested.items():
            yield from _commands(sub, f"{path} {name}")
        return
    context = command.context_class(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines()).strip()


def _exit_codes() -> Mapping[int, str]:
    kinds = errors.PymigError.__subclasses__()
    return {1: "Any other error."} | {kind.exit_code: _doc(kind) for kind in kinds}


def _doc(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _signature(row: Row) -> str:
    arguments = re.sub(r"::[a-z ]+(\[\])?|\bIN ", "", row["arguments"])
    one = f"pymig.{row['name']}({arguments})"
    if len(one) > WIDTH:
        one = f"pymig.{row['name']}(\n    " + ",\n    ".join(arguments.split(", ")) + ")"
    return one + (f"\nRETURNS {row['result']}" if row["result"] else "")


def _comment(comment: str) -> str:
    words, _, example = comment.partition(" Example: ")
    return words + (f"\n\n```sql\n{example};\n```" if example else "")


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _query(conn: psycopg.Connection[Any], name: str) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        text = (HERE / f"{name}.sql").read_text("utf-8")
        return cursor.execute(text.encode()).fetchall()


def main() -> None:
    """Install pymig into a server of its own that lives for a moment, and write the files."""
    with scratch_server() as url:
        install(url)
        with psycopg.connect(url, autocommit=True) as conn:
            pages = reference(conn)
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages.items():
        (REFERENCE / name).write_text(text, "utf-8")
    print(f"{len(pages)} files of docs/reference are written.")


if __name__ == "__main__":
    main()
