"""What alembic/env.py and the revisions share: applying SQL files, and the steps around them.

A revision never reads `sql/`: it applies what was frozen when it was made, so that a downgrade
brings back exactly what that revision installed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import psycopg
from alembic.operations import Operations
from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from pymig.db import say_warning
from pymig.paths import alembic_folder
from pymig.settings import Settings


def connector(conninfo: str | None) -> Callable[[], psycopg.Connection[Any]]:
    """Return what opens the server's connection: the given conninfo's, else the environment's."""
    target = Settings.load().conninfo if conninfo is None else conninfo

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            target, application_name="pymig install", prepare_threshold=None
        )
        connection.add_notice_handler(say_warning)
        return connection

    return connect


def apply_ddl(op: Operations, name: str) -> None:
    """Run alembic/ddl/<name>.sql."""
    _execute(op.get_bind(), (alembic_folder() / "ddl" / f"{name}.sql").read_text("utf-8"))


def apply_frozen(op: Operations, revision: str) -> None:
    """Run what a revision froze of `sql/`: all routines and views."""
    for script in sorted((alembic_folder() / "frozen" / revision).glob("*.sql")):
        _execute(op.get_bind(), script.read_text("utf-8"))


def unregister_sources(op: Operations) -> None:
    """Roll all entities back and drop all triggers, in autocommit: the procedures commit."""
    with op.get_context().autocommit_block():
        _execute(op.get_bind(), "CALL pymig._unregister_all()")


def before_revisions(connection: Connection) -> None:
    """Make the schema Alembic's own table lives in."""
    _execute(connection, (alembic_folder() / "ddl" / "schema.up.sql").read_text("utf-8"))
    connection.commit()


def after_revisions(connection: Connection) -> None:
    """At head, register the default source where its table exists; at base, drop the schema."""
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"version_table_schema": "pymig"})
    if context.get_current_revision() is None:
        _execute(connection, (alembic_folder() / "ddl" / "schema.down.sql").read_text("utf-8"))
    else:
        definition = tomllib.loads((alembic_folder() / "default_source.toml").read_text("utf-8"))
        raw = connection.connection.cursor()
        raw.execute("CALL pymig._register_default(%s)", [Jsonb(definition)])
    connection.commit()


def _execute(connection: Connection, script: str) -> None:
    # No parameters: neither SQLAlchemy nor psycopg may look for % or : in a script.
    connection.execution_options(no_parameters=True).exec_driver_sql(script)
