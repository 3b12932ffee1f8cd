"""Installs and removes pymig: `alembic upgrade head` and `alembic downgrade base` from code."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from pymig import errors
from pymig.paths import alembic_folder


def install(conninfo: str) -> None:
    """Bring the database to the newest revision.

    Registers the default source where its table exists. Does nothing where all that is so already.
    Raises PymigError.
    """
    _run(conninfo, lambda config: command.upgrade(config, "head"))


def uninstall(conninfo: str) -> None:
    """Roll everything back and remove pymig: the database is as before. Raises PymigError."""
    _run(conninfo, lambda config: command.downgrade(config, "base"))


def _run(conninfo: str, step: Callable[[Config], None]) -> None:
    config = Config()
    config.set_main_option("script_location", str(alembic_folder()).replace("%", "%%"))
    config.attributes["conninfo"] = conninfo
    try:
        step(config)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise errors.explain(error.orig) from error
        raise
    except psycopg.Error as error:
        raise errors.explain(error) from error
