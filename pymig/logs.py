"""What long-running commands say while they run: sentences for people, or JSON for programs.

Text goes where each command's output goes; with --log-format json an object a line goes to standard
error: time (UTC, ISO 8601), level, message, source, ship, and what else is known.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

from pymig.errors import PymigError
from pymig.progress import QuietProgress, Task
from pymig.settings import LogFormat

_LOG: Final = logging.getLogger("pymig")
_PROGRESS_SECONDS: Final = 10.0  # between two lines of one task


class _Lines(logging.Handler):
    """Says each record's sentence."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say: Final = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say it; `line` is the sentence for people where it is another one."""
        self._say(getattr(record, "line", record.getMessage()))


def begin(log_format: LogFormat, say: Callable[[str], None]) -> None:
    """From now on what is said is JSON on standard error, or goes to say."""
    handler: logging.Handler = _Lines(say)
    if log_format == "json":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{message}{source}{ship}",
                style="{",
                timestamp="time",
                rename_fields={"levelname": "level"},
                defaults={"source": None, "ship": None},
                reserved_attrs=[*vars(logging.makeLogRecord({})), "line"],
                json_ensure_ascii=False,
            )
        )
    _LOG.handlers = [handler]
    _LOG.propagate = False
    _LOG.setLevel(logging.INFO)


def is_json() -> bool:
    """Whether a program reads what is said."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in _LOG.handlers)


def say(sentence: str, level: int = logging.INFO, **fields: Any) -> None:
    """Say something; fields: source, ship and whatever a program may want to know of it."""
    _LOG.log(level, sentence, extra=fields)


def note(sentence: str, level: int = logging.INFO, **fields: Any) -> None:
    """Say something for programs alone: people see it by other means, or need not know."""
    if is_json():
        say(sentence, level, **fields)


def fail(error: PymigError) -> None:
    """Say what a command ends with."""
    say(error.message, logging.ERROR, hint=error.hint or None, exit_code=error.exit_code)


class LogProgress(QuietProgress):
    """Tasks as records: every ten seconds how far they are, and that they are done."""

    def __init__(self, source: str | None) -> None:
        self._source: Final = source

    @contextmanager
    def task(self, title: str, ship: str | None = None) -> Iterator[Task]:
        """Begin a task."""
        yield _LogTask(self, title, ship)

    def say(self, sentence: str, ship: str | None = None, **figures: Any) -> None:
        """Say the sentence."""
        say(sentence, source=self._source, ship=ship, **figures)


class _LogTask:
    def __init__(self, progress: LogProgress, title: str, ship: str | None) -> None:
        self._progress: Final = progress
        self._title: Final = title
        self._ship: Final = ship
        self._said = time.monotonic()

    def show(self, done: int | None, total: int | None, percent: float | None) -> None:
        """Say how far it is, unless that was said a moment ago."""
        if time.monotonic() - self._said < _PROGRESS_SECONDS:
            return
        self._said = time.monotonic()
        share = None if percent is None else float(percent)
        figures: dict[str, Any] = {"done": done, "total": total, "percent": share}
        self._progress.say(f"{self._title}: {share or 0:.1f} %", self._ship, **figures)

    def finish(self) -> None:
        """Say that it is done."""
        self._progress.say(f"{self._title}: done", self._ship)
