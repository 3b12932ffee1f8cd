"""Wait for what happens in its own time, and fail with a sentence where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS = 20.0


def until(condition: Callable[[], Any], otherwise: str, seconds: float = SECONDS) -> None:
    """Ask again and again until it holds; the assertion that fails says `otherwise`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)
