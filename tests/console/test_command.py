"""`pymig console` as a command: what it says where something is missing or taken."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pymig.console.serve import listening
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


def _answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def _ask_until_closed(port: int, answers: list[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        while True:
            connection.request("GET", "/")
            answers.append(len(connection.getresponse().read()))
    except (OSError, http.client.HTTPException):
        connection.close()


def test_stops_amid_requests(caplog: pytest.LogCaptureFixture) -> None:
    """No thread of the server's fails, none is left, and whoever waits for an answer is let go."""
    for _ in range(30):
        answers: list[int] = []
        with listening(_answer, "127.0.0.1", 0) as port:
            askers = [
                threading.Thread(target=_ask_until_closed, args=(port, answers), daemon=True)
                for _ in range(4)
            ]
            for asker in askers:
                asker.start()
            while len(answers) < 20:
                askers[0].join(0.001)
        for asker in askers:
            asker.join(10)
        assert not any(asker.is_alive() for asker in askers)
        assert "pymig console" not in [thread.name for thread in threading.enumerate()]
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
