"""What runs beside the demo's server until that is stopped: the console, and metrics.

Each is a pymig command in a process of its own. Where it is found again stands in a file in the
server's folder.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from typing import Final

_HOST: Final = "127.0.0.1"
_SECONDS: Final = 15.0
#: Command -> the port it likes best, and a package it needs.
_COMMANDS: Final = {"console": (8808, "django"), "metrics": (9188, "prometheus_client")}


@dataclass(frozen=True)
class _Running:
    pid: int
    said: str
    """The line with its address."""

    def is_alive(self, name: str) -> bool:
        try:
            argv = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"pymig.cli" in argv and name.encode() in argv


def start(folder: Path, url: str) -> list[str]:
    """Start what is installed and does not run yet; returns a line with the address of each.

    folder: the server's, in which they are noted; url: of the database.
    """
    return [
        said
        for name, (port, package) in _COMMANDS.items()
        if find_spec(package) and (said := _start(folder, name, port, url))
    ]


def stop(folder: Path) -> None:
    """End them; nothing to do where none runs."""
    for name in _COMMANDS:
        running = _read(folder, name)
        if running and running.is_alive(name):
            _end(running, name)
        _file(folder, name).unlink(missing_ok=True)


def _start(root: Path, name: str, port: int, url: str) -> str | None:
    running = _read(root, name)
    if running and running.is_alive(name):
        return running.said
    log = root / f"{name}.log"
    log.unlink(missing_ok=True)
    log.touch(mode=0o600)
    chosen = port if _is_free(port) else 0
    argv = [sys.executable, "-u", "-m", "pymig.cli", name, "--port", str(chosen)]
    pid = os.posix_spawn(
        sys.executable,
        argv,
        {**os.environ, "DATABASE_URL": url},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    running = _Running(pid, _address(log, pid))
    _file(root, name).write_text(json.dumps(asdict(running)), "utf-8")
    return running.said or None


def _address(log: Path, pid: int) -> str:
    """The first line that names an address; empty where the process ends or says none."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and os.waitpid(pid, os.WNOHANG)[0] == 0:
        if found := re.search(r"^\w+: http://\S+$", log.read_text("utf-8"), re.MULTILINE):
            return found[0]
        time.sleep(0.05)
    return ""


def _end(running: _Running, name: str) -> None:
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    end = time.monotonic() + _SECONDS
    while running.is_alive(name):
        if time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(running.pid, os.WNOHANG)
        time.sleep(0.05)


def _file(root: Path, name: str) -> Path:
    return root / f"{name}.json"


def _read(root: Path, name: str) -> _Running | None:
    try:
        return _Running(**json.loads(_file(root, name).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_free(port: int) -> bool:
    with socket() as probe:
        probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
