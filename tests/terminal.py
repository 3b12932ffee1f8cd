"""The command line on a pseudo-terminal: what a person sees, keys they press, what is left over."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SECONDS = 20.0


class Terminal:
    """A process whose standard input and output are a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int, theirs: int) -> None:
        self.process = process
        self.seen = ""
        self._ours = ours
        self._theirs = theirs

    def until(self, *words: str) -> str:
        """Read on until each of these has come; return all that came since the last time."""
        end = time.monotonic() + SECONDS
        while not all(word in self.seen for word in words):
            assert time.monotonic() < end, f"{words} did not come: {self.seen[-3000:]!r}"
            self._read(0.1)
        seen, self.seen = self.seen, ""
        return seen

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._ours, keys.encode())

    def end(self) -> tuple[int, str]:
        """Read until the process ends; its exit code and what it said at last."""
        end = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.seen[-3000:]!r}"
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode, self.seen

    def settings(self) -> list[Any]:
        """How the terminal treats keys and echo just now."""
        return termios.tcgetattr(self._theirs)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        with suppress(OSError):
            self.seen += os.read(self._ours, 1 << 16).decode(errors="replace")
        return True


@contextmanager
def running(url: str, *arguments: str, columns: int = 100, lines: int = 30) -> Iterator[Terminal]:
    """`pymig …` on a terminal of this size; killed where it has not ended by itself."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "DATABASE_URL": url, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", "from pymig.cli import main; main()", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    try:
        yield Terminal(process, ours, theirs)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
