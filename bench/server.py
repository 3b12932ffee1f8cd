"""Where the benchmark runs: an own server with the bench's settings, or the environment's."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jinja2
import psycopg

from pymig.install import install
from pymig.server import Cluster, find_binaries
from pymig.settings import Settings

# All in shared_buffers: with less, a sequential scan of a table above a quarter of it reads through
# a small ring, and the floor would be measured too slow. Nothing runs beside what is measured.
SETTINGS = {
    "shared_buffers": "4GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}

_STATEMENT = re.compile(r"(?:\$\$.*?\$\$|.)+?(?:;\n|\Z)", re.DOTALL)

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "sql"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)


def render(name: str, /, **values: Any) -> str:
    """The SQL of bench/sql/<name>.sql.j2."""
    return _templates.get_template(f"{name}.sql.j2").render(**values).strip()


def execute(connection: Any, script: str) -> None:
    """Each statement of a script in a transaction of its own (VACUUM needs it)."""
    for statement in _STATEMENT.findall(script):
        connection.execute(statement)


def connect(url: str, *, parallel: bool = False) -> psycopg.Connection[Any]:
    """One autocommit session; without parallel query unless asked: figures are per session."""
    connection = psycopg.connect(url, autocommit=True)
    if not parallel:
        connection.execute("SET max_parallel_workers_per_gather = 0")
    return connection


def tidy(url: str) -> None:
    """The same start for every figure: catalog vacuumed, nothing left to be written out."""
    with connect(url) as connection:
        execute(connection, render("tidy"))
        with suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute("CHECKPOINT")


@contextmanager
def database(bindir: Path | None = None) -> Iterator[str]:
    """The URL of an empty database of our own, dropped afterwards."""
    with server(bindir) as (_, url):
        yield url


@contextmanager
def server(bindir: Path | None = None, **changed: str) -> Iterator[tuple[Cluster | None, str]]:
    """The same, with the server where it is our own; settings that differ from the bench's."""
    settings = Settings.load()
    if bindir is None and not settings.uses_embedded_server:
        given = settings.conninfo
        with _fresh(given, lambda name: psycopg.conninfo.make_conninfo(given, dbname=name)) as url:
            yield None, url
        return
    folder = Path(tempfile.mkdtemp(prefix="pymig-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    cluster = Cluster(
        folder / "server", settings=SETTINGS | changed, binaries=find_binaries(bindir)
    )
    try:
        cluster.start()
        with _fresh(cluster.url(), cluster.url) as url:
            yield cluster, url
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def another_database(url: str, suffix: str) -> Iterator[str]:
    """The URL of one more empty database on the same server, dropped afterwards."""

    def named(name: str) -> str:
        return psycopg.conninfo.make_conninfo(url, dbname=name)

    with _fresh(url, named, f"_{suffix}") as one_more:
        yield one_more


@contextmanager
def _fresh(admin: str, url: Callable[[str], str], suffix: str = "") -> Iterator[str]:
    name = f"pymig_bench_{os.getpid()}{suffix}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(render("create_database", name=name))
    try:
        yield url(name)
    finally:
        # Another session: the server may have been started anew.
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(render("drop_database", name=name))


def load(url: str, ships: int, channels: int, times: int, step: int = 15, fill: int = 100) -> None:
    """Make the narrow table of the default source, `step` seconds between times; install pymig.

    Each time has rows of `fill` percent of the channels.
    """
    with connect(url) as connection:
        execute(
            connection,
            render("narrow", ships=ships, channels=channels, times=times, step=step, fill=fill),
        )
    install(url)
