"""What a person sees while something runs: bars on a terminal, single lines elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_LOOK_SECONDS: Final = 0.5

#: How much is done, how much there is in all (None: not known), and a word about it.
Look = Callable[[], tuple[float, float | None, str]]


class Task(Protocol):
    """One thing that is under way."""

    def show(self, done: int | None, total: int | None, percent: float | None) -> None:
        """Show how far it is: done of total, and the percentage to draw."""


class Progress(Protocol):
    """Where tasks are shown."""

    def task(self, title: str, ship: str | None = None) -> AbstractContextManager[Task]:
        """Begin a task; ship: whom it is about."""

    def waiting(self, title: str) -> AbstractContextManager[None]:
        """Begin something of which nobody knows how long it takes."""

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Say something that stays on the screen."""


class _NoTask:
    def show(self, done: int | None, total: int | None, percent: float | None) -> None:
        """Show nothing."""


class QuietProgress:
    """Shows nothing: for code that calls code."""

    @contextmanager
    def task(self, title: str, ship: str | None = None) -> Iterator[Task]:
        """Begin a task that nobody sees."""
        yield _NoTask()

    def waiting(self, title: str) -> AbstractContextManager[None]:
        """Begin something that nobody sees."""
        return nullcontext()

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Say nothing."""


class LineProgress(QuietProgress):
    """One line when a task ends: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, title: str, ship: str | None = None) -> Iterator[Task]:
        """Begin a task; a line says that it is done."""
        yield _NoTask()
        self._console.print(f"{title}: done", markup=False, highlight=False)

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Print the sentence."""
        self._console.print(sentence, markup=False, highlight=False)


class BarProgress(QuietProgress):
    """Bars with share, elapsed and remaining time."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, title: str, ship: str | None = None) -> Iterator[Task]:
        """Begin a task with a bar of its own."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f}%"),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self._console) as bars:
            task = _BarTask(bars, title)
            yield task
            task.finish()

    def waiting(self, title: str) -> AbstractContextManager[None]:
        """Begin something with a bar that swings, and goes when it ends."""
        return waiting(self._console, title)

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Print the sentence."""
        self._console.print(sentence, markup=False, highlight=False)


class _BarTask:
    def __init__(self, bars: RichProgress, title: str) -> None:
        self._bars = bars
        self._id = bars.add_task(title, total=100.0, detail="")

    def show(self, done: int | None, total: int | None, percent: float | None) -> None:
        """Move the bar."""
        self._bars.update(
            self._id, completed=float(percent or 0), detail=f"{done:,}" if done else ""
        )

    def finish(self) -> None:
        """Fill the bar."""
        self._bars.update(self._id, completed=100.0)


def for_console(console: Console) -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return BarProgress(console) if console.is_terminal else LineProgress(console)


@contextmanager
def waiting(console: Console, title: str, look: Look | None = None) -> Iterator[None]:
    """While something runs: a bar on a terminal, gone when it ends; elsewhere nothing.

    What ends within half a second has none. The bar swings where it is not known how much there is
    to do. look is asked twice a second, in a thread of its own.
    """
    if not console.is_terminal:
        yield
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
    )
    ended = threading.Event()
    bars = RichProgress(*columns, console=console, transient=True)
    task = bars.add_task(title, total=None, detail="")

    def show() -> None:
        if ended.wait(_LOOK_SECONDS):
            return
        bars.start()
        while look and not ended.is_set():
            done, total, detail = look()
            bars.update(task, completed=done, total=total, detail=detail)
            ended.wait(_LOOK_SECONDS)

    looking = threading.Thread(target=show, name="pymig progress", daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join(_LOOK_SECONDS)
        bars.stop()
