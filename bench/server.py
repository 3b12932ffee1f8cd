"""Where the benchmark runs: an own server with the bench's settings, or DATABASE_URL."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import psycopg

from pymig.install import install
from pymig.server import Cluster, find_binaries

DATABASE = "pymig_bench"
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}

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


def connect(url: str, *, parallel: bool = False) -> psycopg.Connection[Any]:
    """One autocommit session; without parallel query unless asked: figures are per session."""
    connection = psycopg.connect(url, autocommit=True)
    if not parallel:
        connection.execute("SET max_parallel_workers_per_gather = 0")
    return connection


@contextmanager
def database(bindir: Path | None = None) -> Iterator[str]:
    """The URL of an empty database of our own, dropped afterwards."""
    if given := os.environ.get("DATABASE_URL"):
        yield from _fresh(given, lambda name: psycopg.conninfo.make_conninfo(given, dbname=name))
        return
    folder = Path(tempfile.mkdtemp(prefix="pymig-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    cluster = Cluster(folder / "server", settings=SETTINGS, binaries=find_binaries(bindir))
    try:
        cluster.start()
        yield from _fresh(cluster.url(), cluster.url)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _fresh(admin: str, url: Any) -> Iterator[str]:
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        connection.execute(f"CREATE DATABASE {DATABASE}")
        try:
            yield url(DATABASE)
        finally:
            connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def load(url: str, ships: int, channels: int, times: int) -> None:
    """Make the narrow table of the default source and install pymig."""
    with connect(url) as connection:
        script = render("narrow", ships=ships, channels=channels, times=times)
        for statement in script.split(";\n"):
            connection.execute(statement)
        connection.execute("CREATE SCHEMA bench")
    install(url)
