"""What one console is made of; Django's settings hold it as CONSOLE."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from pymig.console.database import Reader
from pymig.console.sampler import Sampler


@dataclass(frozen=True)
class Console:
    """Where it reads, what it has measured so far, and whom it shows that."""

    conninfo: str
    reader: Reader
    sampler: Sampler
    require_login: bool = False


def console() -> Console:
    """The console that serves this request."""
    found: Console = settings.CONSOLE
    return found
