"""The console as tests use it: Django set up once a process, a fleet to show, roles to log in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import Client, override_settings
from psycopg import sql

from pymig.console.database import Reader
from pymig.console.sampler import Sampler
from pymig.console.serve import listening
from pymig.console.settings import configure
from pymig.console.state import Console
from pymig.paths import checkout
from tests.conftest import Database

#: A ship that is verified, with a row in quarantine, and one whose history waits to be moved.
FLEET: LiteralString = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, s text, fmt text, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c/' || c, '2024-01-01'::timestamp + t * interval '1 h', t, NULL, 'd'
FROM unnest(ARRAY['X', 'Y "<z>&/']) AS s, generate_series(1, 3) AS c, generate_series(1, 50) AS t;
INSERT INTO n VALUES ('X', 'c/1', '2024-02-01', 1, NULL, 'strange');
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d,s}', 'fmt', '{"d":"d","s":"s"}');
CALL pymig.migrate('X');
CALL pymig.start_sync('Y "<z>&/')
"""  # noqa: E501
AWKWARD: Final = 'Y "<z>&/'
PASSWORD: Final = "it's <secret>"


@contextmanager
def site(db: Database, *, require_login: bool = False) -> Iterator[Console]:
    """The console of a database, in this process."""
    reader = Reader(db.url)
    console = Console(db.url, reader, Sampler(reader), require_login)
    if not settings.configured:
        configure(console, "127.0.0.1")
    with override_settings(CONSOLE=console):
        try:
            yield console
        finally:
            console.sampler.stop()
            reader.close()


@contextmanager
def served() -> Iterator[str]:
    """The address at which the console of this process is served."""
    with listening(get_wsgi_application(), "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


def make_fleet(db: Database) -> psycopg.Connection[Any]:
    """FLEET, and a connection of its superuser."""
    conn = db.connect()
    for statement in FLEET.split(";\n"):
        conn.execute(statement.encode())
    return conn


@contextmanager
def roles(db: Database) -> Iterator[dict[str, str]]:
    """Roles with what docs/how-to/permissions.md grants to who looks and who controls."""
    names = {kind: f"{kind}_{db.name}" for kind in ("watcher", "operator")}
    top = checkout()
    assert top
    text = (top / "docs/how-to/permissions.md").read_text("utf-8")
    grants = re.findall(r"^GRANT .*? TO (?:watcher|operator);$", text, re.MULTILINE)
    assert len(grants) >= 6
    with psycopg.connect(db.url, autocommit=True) as conn:
        for name in names.values():
            conn.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(name), sql.Literal(PASSWORD)
                )
            )
        try:
            for grant in grants:
                for kind, name in names.items():
                    grant = re.sub(rf"\b{kind}\b", name, grant)
                conn.execute(grant.encode())
            yield names
        finally:
            for name in names.values():
                conn.execute(
                    sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name))
                )


def browser_of(role: str | None = None, *, csrf: bool = False) -> Client:
    """Django's test client, logged in as a role; with csrf it must send tokens as a browser."""
    client = Client(enforce_csrf_checks=csrf, SERVER_NAME="127.0.0.1")
    if role:
        answer = client.post("/login", {"role": role, "password": PASSWORD, "next": "/charts"})
        assert (answer.status_code, answer.headers.get("Location")) == (302, "/charts")
    return client
