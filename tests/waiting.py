"""Wait for what happens in its own time, and fail with a sentence where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg

SECONDS = 20.0


def until(condition: Callable[[], Any], otherwise: str, seconds: float = SECONDS) -> None:
    """Ask again and again until it holds; the assertion that fails says `otherwise`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)


def sync_until(
    conn: psycopg.Connection[Any], query: LiteralString, expected: object, otherwise: str
) -> None:
    """Be the worker, pass after pass, until the query's first value is as expected.

    How many passes a promotion takes is nobody's promise: each has a tenth of a second for it, and
    goes on later where a lock is in its way.
    """

    def holds() -> bool:
        conn.execute("CALL pymig.sync_pending()")
        row = conn.execute(query).fetchone()
        return row is not None and row[0] == expected

    until(holds, otherwise)
