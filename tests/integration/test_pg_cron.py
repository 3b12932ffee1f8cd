"""pg_cron as the worker, on a server of its own. Debian: postgresql-15-cron."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from pymig.install import install
from pymig.server import Cluster
from tests.integration.test_worker import until
from tests.races.interleave import INSERT, NARROW_TABLE, REGISTER, UNIQUE

JOB: Final = "CALL pymig.run_worker(59, p_worker => 'pg_cron')"


@pytest.fixture
def cron(server_folder: Path, cluster: Cluster) -> Iterator[Cluster]:
    """A server that runs pg_cron in its database postgres, with pymig in it."""
    own = Cluster(server_folder / "cron", fast=True, binaries=cluster.binaries)
    config = [str(own.binaries.bindir / "pg_config"), "--sharedir"]
    try:
        share = subprocess.run(config, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        share = f"/usr/share/postgresql/{own.binaries.major}"
    if not Path(share, "extension/pg_cron.control").exists():
        pytest.skip("pg_cron is not installed for this server")
    settings = {
        "shared_preload_libraries": "pg_cron",
        "cron.database_name": "postgres",
        "cron.host": str(own.socket_dir),
    }
    own = Cluster(own.root, fast=True, binaries=own.binaries, settings=settings)
    own.start()
    try:
        install(own.url())
        yield own
    finally:
        own.remove()


def test_pg_cron_keeps_up(cron: Cluster) -> None:
    """The job of the how-to, begun at the start of the server instead of at the next minute."""
    with connect(cron) as conn:
        conn.execute(NARROW_TABLE)
        conn.execute(UNIQUE)
        conn.execute(REGISTER, [[], "auto"])
        conn.execute(INSERT, ["x", "a", "2024-03-02 10:00", 1])
        conn.execute("CALL pymig.migrate('x')")
        conn.execute("CREATE EXTENSION pg_cron")
        conn.execute("SELECT cron.schedule('pymig', '* * * * *', %s)", [JOB])
        conn.execute("SELECT cron.schedule('pymig now', '@reboot', %s)", [JOB])
    cron.restart()
    with connect(cron) as conn:
        for ship in ("x", "new"):
            conn.execute(INSERT, [ship, "b", "2024-03-02 11:00", 2])
        ready = "SELECT count(*) FROM pymig.status WHERE pending = 0 AND workers_alive = 1 AND state IN ('backfilled', 'verified')"  # noqa: E501
        until(lambda: conn.execute(ready).fetchone() == (2,), seconds=30)
        rows = conn.execute("SELECT b FROM tenant.tbl_data_timeseries_x ORDER BY 1").fetchall()
        assert rows == [("2",), (None,)]
        workers = conn.execute("SELECT DISTINCT w.worker FROM pymig.worker AS w").fetchall()
        assert ("pg_cron",) in workers
        failed = "SELECT d.return_message FROM cron.job_run_details AS d WHERE d.status = 'failed'"
        assert conn.execute(failed).fetchall() == []


def connect(cluster: Cluster) -> psycopg.Connection[Any]:
    """A new autocommit connection."""
    return psycopg.connect(cluster.url(), autocommit=True)
