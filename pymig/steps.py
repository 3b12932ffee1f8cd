"""How far a command is that works on one ship: what its bar on a terminal is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from pymig import db
from pymig.errors import PymigError
from pymig.progress import waiting

Figures = tuple[float, float | None, str]


def verified(row: db.Row) -> Figures:
    """Buckets compared, of those there are."""
    done, total = row["buckets_verified"], row["buckets"]
    return done, total, f"{done:,} of {total:,} buckets"


def retired(row: db.Row) -> Figures:
    """Buckets retired, of those that are old enough."""
    done, rest = row["buckets_retired"], row["buckets_to_retire"]
    if rest is None:
        return 0, None, ""
    return done, done + rest, f"{done:,} of {done + rest:,} buckets"


class Restored:
    """Buckets brought back, of those that were retired at the first look."""

    def __init__(self) -> None:
        self._total = 0

    def __call__(self, row: db.Row) -> Figures:
        """What is retired still is to come."""
        self._total = max(self._total, row["buckets_retired"])
        done = self._total - row["buckets_retired"]
        return done, self._total or None, f"{done:,} of {self._total:,} buckets"


class Moved:
    """Bytes that were moved, of those there are where that is known."""

    def __init__(self, total: int | None = None) -> None:
        self._total: Final = total
        self._done = 0

    def note(self, done: int) -> None:
        """So many are moved now."""
        self._done = done

    def __call__(self) -> Figures:
        """How far it is."""
        return self._done, self._total, f"{self._done / 1e6:,.1f} MB"


@contextmanager
def step(
    console: Console,
    conninfo: str,
    title: str,
    ship: str,
    source: str | None,
    figures: Callable[[db.Row], Figures],
) -> Iterator[None]:
    """While a command works on a ship: a bar on a terminal, by pymig.progress(); elsewhere nothing.

    figures: what of a row of it is shown. It is read on a connection beside the one that works.
    """

    def look() -> Figures:
        try:
            rows = session.select("progress", p_entity=ship, p_source=source)
        except PymigError:
            return 0, None, ""  # whoever works says what is wrong
        return figures(rows[0]) if rows else (0, None, "")

    with db.Session(conninfo, "progress") as session, waiting(console, title, look):
        yield
