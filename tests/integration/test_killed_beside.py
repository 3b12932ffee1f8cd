"""kill -9 of what only looks on while a migration runs: it ends as if nothing had been."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import IO

import pytest

from pymig.migrate import MigrationReport, Options, migrate_ships
from tests.conftest import Database
from tests.console_site import make_fleet
from tests.waiting import until


def _ask(said: IO[str], path: str) -> None:
    """Look at the address it says it serves."""
    found = re.search(r"http://127\.0\.0\.1:\d+", said.readline())
    assert found
    urllib.request.urlopen(found[0] + path, timeout=30).close()


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "path", "role"),
    [
        ("console --port 0", "/", "console"),
        ("metrics --port 0", "/metrics", "metrics"),
        ("notify --config {config}", None, "notify"),
        ("status --watch", None, "watch"),
    ],
)
def test_it_takes_nothing_with_it(
    db: Database, tmp_path: Path, arguments: str, path: str | None, role: str
) -> None:
    """Killed while it is connected and the migration is under way."""
    conn = make_fleet(db)
    conn.execute("CALL pymig.roll_back('X')")
    config = tmp_path / "alerts.cfg"
    config.write_text("info=json://127.0.0.1:1\n")
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from pymig.cli import main; main()"]
        + [word.format(config=config) for word in arguments.split()],
        env={**os.environ, "DATABASE_URL": db.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        if path:
            _ask(process.stdout, path)
        connected = "SELECT FROM pg_stat_activity WHERE application_name = %s"
        name = f"pymig {role}"
        until(lambda: conn.execute(connected, [name]).fetchone() is not None, "it looks at nothing")
        conn.execute("CALL pymig.pause()")
        done: list[MigrationReport] = []
        options = Options(source="n")
        thread = threading.Thread(
            target=lambda: done.append(migrate_ships(db.url, options=options)), daemon=True
        )
        thread.start()
        moving = "SELECT FROM pg_stat_activity WHERE application_name = 'pymig backfill 1'"
        until(lambda: conn.execute(moving).fetchone() is not None, "the migration does not run")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        conn.execute("CALL pymig.resume()")
        thread.join(60)
        assert not done[0].failed
        states = {state for (state,) in conn.execute("SELECT state FROM pymig.status")}
        assert states == {"verified"}
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
