"""`pymig console` as a command: what it says where something is missing or taken."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.conftest import Database

pytestmark = pytest.mark.once
#: The command line where the extra is not installed.
WITHOUT = "import sys; sys.modules['django'] = None; from pymig.cli import main; main()"
WITH = "from pymig.cli import main; main()"


def _run(code: str, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, "console", *arguments],
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_says_what_to_install() -> None:
    done = _run(WITHOUT)
    assert done.returncode == 2
    assert "The console needs more packages" in done.stderr
    assert "pip install 'pymig[console]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_says_where_a_port_is_taken(db: Database) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = _run(WITH, f"--port={taken.getsockname()[1]}", url=db.url)
    assert done.returncode == 2
    assert "Choose another --host or --port." in done.stderr
