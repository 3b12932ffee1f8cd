"""Renders the Jinja templates of `sql/` into plain SQL.

Jinja binds only what is fixed when pymig is installed: shared clauses and lists of types. What
belongs to a source or an entity is bound inside the database, because a DBA with psql alone must be
able to register a source.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pymig.paths import sql_folder

#: Order in which the folders are applied: a view needs the functions it calls.
CORE_FOLDERS = ("core/functions", "source", "core/procedures", "core/views")


class Rendered(NamedTuple):
    """One rendered template: its path below `sql/` without `.j2`, and its SQL."""

    name: str
    sql: str


def environment(root: Path | None = None) -> Environment:
    """Return the Jinja environment over `sql/`: strict, with the macros of `macros.sql.j2`."""
    env = Environment(
        loader=FileSystemLoader(root or sql_folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # SQL, not HTML
    )
    macros = env.get_template("macros.sql.j2").make_module()
    env.globals.update({k: v for k, v in vars(macros).items() if not k.startswith("_")})
    return env


def render_folder(folder: str) -> list[Rendered]:
    """Render every template of one folder below `sql/`, by file name."""
    env = environment()
    names = sorted(
        n for n in env.list_templates(extensions=["j2"]) if n.rpartition("/")[0] == folder
    )
    return [Rendered(name.removesuffix(".j2"), env.get_template(name).render()) for name in names]


def render_core() -> list[Rendered]:
    """Render all that is re-applied with every upgrade: routines and views, in order."""
    return [rendered for folder in CORE_FOLDERS for rendered in render_folder(folder)]


def as_script(parts: list[Rendered]) -> str:
    """Join rendered files into one SQL script, each under a line with its name."""
    blocks = (f"-- sql/{part.name}\n{part.sql.strip()}\n" for part in parts)
    return re.sub(r"[ \t]+\n", "\n", "\n".join(blocks))
