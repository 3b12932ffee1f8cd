"""What commands say: sentences, tables, bars, and how they end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from rich.console import Console

from pymig import db, logs
from pymig.errors import OutputClosed, PymigError
from pymig.progress import Progress, for_console
from pymig.settings import LogFormat, Settings

STOPPING: Final = "Stopping after the current chunks; once more to stop at once."


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """End without a word: there is nobody to read it."""
        end_quietly()


OUT: Final = _Console(soft_wrap=True)
ERR: Final = _Console(stderr=True, soft_wrap=True)
_OFF: Final = ("", "0", "false", "no", "off", "f", "n")


def fail(error: PymigError) -> NoReturn:
    """End with an error's sentence, its hint and its exit code."""
    if logs.is_json():
        logs.fail(error)
        sys.exit(error.exit_code)
    ERR.print(f"pymig: {error.message}", markup=False, highlight=False)
    if error.hint:
        ERR.print(error.hint, markup=False, highlight=False)
    if os.environ.get("PYMIG_DEBUG", "").lower() not in _OFF:
        ERR.print_exception()
    sys.exit(error.exit_code)


def end_quietly() -> NoReturn:
    """End where nobody reads the output any more."""
    # What is still in Python's buffers would raise once more at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    sys.exit(OutputClosed.exit_code)


def begin_log(log_format: LogFormat | None) -> None:
    """From here on what is said is a line for people or a record, as asked or as set."""
    logs.begin(log_format or Settings.load().log_format, say)


def progress_of(source: str | None) -> Progress:
    """Bars on a terminal, lines elsewhere, records for programs."""
    return logs.LogProgress(source) if logs.is_json() else for_console(OUT)


def say(sentence: str) -> None:
    """A sentence on standard output, as it is."""
    OUT.print(sentence, markup=False, highlight=False)


@contextmanager
def stoppable(said: str = STOPPING) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
    stop = threading.Event()

    def ask(signum: int, _frame: object) -> None:
        if stop.is_set():
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        stop.set()
        if logs.is_json():
            logs.say(said)
        else:
            ERR.print(said)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show_rows(rows: list[db.Row], as_json: bool, table: Callable[[list[db.Row]], Any]) -> None:
    """Rows as JSON, or as the table that is made of them."""
    if as_json:
        OUT.print(
            json.dumps(rows, default=str, indent=2, ensure_ascii=False),
            markup=False,
            highlight=False,
        )
    else:
        OUT.print(table(rows))
