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

    def finish(self) -> None:
        """Show that it has come to its end; one that fails just goes."""


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

    def finish(self) -> None:
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
        yield _LineTask(self, title)

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Print the sentence."""
        self._console.print(sentence, markup=False, highlight=False)


class _LineTask(_NoTask):
    def __init__(self, lines: LineProgress, title: str) -> None:
        self._lines = lines
        self._title = title

    def finish(self) -> None:
        """Print the line."""
        self._lines.say(f"{self._title}: done")


class BarProgress(QuietProgress):
    """Bars with share, elapsed and remaining time, as many at once as there are tasks."""

    def __init__(self, console: Console) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f}%"),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    @contextmanager
    def task(self, title: str, ship: str | None = None) -> Iterator[Task]:
        """Begin a task with a bar of its own, which stays on the screen when it ends."""
        self._bars.start()
        task = _BarTask(self._bars, title)
        try:
            yield task
        finally:
            task.leave()
            if not self._bars.tasks:
                self._bars.stop()

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Begin something with a bar that swings, and goes when it ends."""
        self._bars.start()
        swinging = self._bars.add_task(title, total=None, detail="")
        try:
            yield
        finally:
            self._bars.remove_task(swinging)
            if not self._bars.tasks:
                self._bars.stop()

    def say(self, sentence: str, ship: str | None = None) -> None:
        """Print the sentence above the bars."""
        self._bars.console.print(sentence, markup=False, highlight=False)


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

    def leave(self) -> None:
        """Print it as it is, and make room for others."""
        task = next(task for task in self._bars.tasks if task.id == self._id)
        self._bars.console.print(self._bars.make_tasks_table([task]))
        self._bars.remove_task(self._id)


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
