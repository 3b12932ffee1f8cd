"""Figures as people read them: the same on every page, aligned by a fixed number of digits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django import template
from django.utils.translation import gettext as _

from pymig.console.words import noop

register: Final = template.Library()

NOTHING: Final = "\N{EN DASH}"
STATES: Final = (
    noop("known"), noop("planned"), noop("syncing"), noop("backfilled"), noop("verified"),
    noop("cut_over"), noop("finalized"), noop("failed"), noop("rolled_back"),
)  # fmt: skip


#: What else pymig.status says in a word.
WORDS: Final = (
    noop("armed"), noop("drifted"), noop("none"), noop("direct"), noop("direct, paused"),
    noop("differing"),
)  # fmt: skip


@register.filter
def number(value: Any) -> str:
    """1234567 -> 1,234,567; below ten with a decimal where there is one."""
    if value is None:
        return NOTHING
    is_small = abs(value) < 10 and value != int(value)
    return f"{value:,.1f}" if is_small else f"{value:,.0f}"


@register.filter
def plain(value: float) -> str:
    """A number as it is typed: 268435456, 0.5."""
    return f"{value:.15g}"


@register.filter
def size(value: Any) -> str:
    """Bytes with a decimal unit: 1.2 GB."""
    if value is None:
        return NOTHING
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.1f} {unit}"


@register.filter
def duration(value: Any) -> str:
    """A timedelta or seconds: 0.12 s, 45.0 s, 12 min, 3.4 h, 5 d."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


@register.filter
def moment(value: datetime | None) -> str:
    """A time of the database, in UTC, to the second."""
    if value is None:
        return NOTHING
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


@register.filter
def percent(value: Any) -> str:
    """43.2 -> 43.2 %."""
    return NOTHING if value is None else f"{value:.1f} %"


@register.filter
def as_json(value: Any) -> str:
    """A JSON value on one line."""
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


@register.filter
def word(value: Any) -> str:
    """A word of pymig's, such as a state, in the reader's language."""
    return _(str(value)).replace("_", " ") if value else NOTHING
