"""A migration gone wrong is undone by recovery to the restore point that it named itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pymig.install import install
from pymig.server import Cluster
from tests.conftest import Database, _binaries
from tests.oracle import default_narrow, difference
from tests.physical_copy import PhysicalCopy
from tests.races.interleave import NARROW_TABLE, TABLE, UNIQUE
from tests.waiting import until

WRITE = f"""
INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, double_v, value_format)
SELECT s, 'main/' || c, '2024-01-01'::timestamp + %(day)s * interval '1 day' + t * interval '1 min',
    t / 7.0, 'Decimal'
FROM unnest('{{x,y}}'::text[]) AS s, generate_series(1, 20) AS c, generate_series(1, 60) AS t
"""
RESTORE_POINT = """
SELECT substring(detail FROM $$'([^']+)'$$) FROM pymig.event
WHERE what = 'restore point' AND entity = %s ORDER BY event
"""
SECONDS = 60.0


@pytest.fixture
def archive(server_folder: Path) -> Path:
    """A folder that the server's account can write WAL to."""
    folder = server_folder / "archive"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def primary(server_folder: Path, archive: Path) -> Iterator[Cluster]:
    """A server that archives its WAL."""
    settings = {
        "archive_mode": "on",
        "archive_command": f"cp %p {archive}/%f",
        "shared_buffers": "32MB",
    }
    server = Cluster(server_folder / "pit", fast=True, settings=settings, binaries=_binaries())
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _rows(conn: psycopg.Connection[Any]) -> set[Any]:
    return set(conn.execute(f"SELECT t::text FROM {TABLE} AS t").fetchall())


def _archived(conn: psycopg.Connection[Any], archive: Path) -> None:
    """Wait until the WAL written up to now is in the archive."""
    row = conn.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    assert row
    file = archive / row[0]
    until(file.exists, f"{file} is not archived", SECONDS)


def _break_archive(conn: psycopg.Connection[Any], archive: Path) -> None:
    """An archive that can't be written is red."""
    archive.chmod(0o555)
    conn.execute("SELECT pg_create_restore_point('something to archive')")
    conn.execute("SELECT pg_switch_wal()")
    until(lambda: _are(conn, "red") == {"archiving"}, "nobody says that it fails", SECONDS)
    archive.chmod(0o777)


def _are(conn: psycopg.Connection[Any], level: str) -> set[str]:
    """What precheck says is green, yellow or red."""
    rows = conn.execute("SELECT item FROM pymig.precheck() WHERE level = %s", [level])
    return {row[0] for row in rows}


def test_recovered_to_the_restore_point(
    primary: Cluster, archive: Path, server_folder: Path
) -> None:
    """Base backup, data that comes later, a migration, a disaster; recovery has all that was."""
    name = "fleet"
    with psycopg.connect(primary.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    copy = PhysicalCopy(server_folder / "recovered", fast=True, binaries=_binaries())
    try:
        with ExitStack() as cleanup:
            conn = Database(name, primary, cleanup).connect()
            conn.execute(NARROW_TABLE + UNIQUE)
            conn.execute(f"CREATE INDEX ON {TABLE} (created_time DESC)")
            conn.execute(WRITE, {"day": 0})
            install(primary.url(name))
            copy.back_up(primary, "-X", "none")
            # Files that were archived are told to all a moment later.
            backed_up = {"archiving", "base backup"}
            until(lambda: backed_up <= _are(conn, "green"), "no backup is seen", SECONDS)
            conn.execute(WRITE, {"day": 1})
            before = _rows(conn)
            conn.execute("CALL pymig.start_sync('x')")
            conn.execute("CALL pymig.backfill('x')")
            conn.execute(WRITE, {"day": 2})
            conn.execute(f"UPDATE {TABLE} SET double_v = -1")  # the disaster
            points = [row[0] for row in conn.execute(RESTORE_POINT, ["x"])]
            assert len(points) == 1
            _archived(conn, archive)
            _break_archive(conn, archive)
        primary.stop()
        settings = {
            **primary.settings,
            "archive_mode": "off",
            "restore_command": f"cp {archive}/%f %p",
            "recovery_target_name": points[0],
            "recovery_target_action": "promote",
        }
        copy = replace(copy, settings=settings)
        copy.recover()
        with ExitStack() as cleanup:
            conn = Database(name, copy, cleanup).connect()
            recovered = "SELECT NOT pg_is_in_recovery()"
            until(
                lambda: conn.execute(recovered).fetchone() == (True,),
                "recovery does not end",
                SECONDS,
            )
            assert _rows(conn) == before
            assert (
                conn.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall()
                == []
            )
            assert conn.execute(f"SELECT to_regclass('{TABLE}_x')").fetchone() == (None,)
            # What failed there can be done again here, and goes through.
            conn.execute("CALL pymig.migrate('x')")
            assert difference(conn, default_narrow(), {"x"}) == []
            assert len(conn.execute(RESTORE_POINT, ["x"]).fetchall()) == 1
    finally:
        copy.remove()
