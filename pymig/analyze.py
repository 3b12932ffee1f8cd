"""pymig.analyze() of several ships: which ones, how long, and what was left out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pymig.db import Row, Session
from pymig.migrate import Options

#: Of more ships than so many, half of that are looked at that have most rows, and half at random.
MOST_SHIPS: Final = 50


@dataclass(frozen=True)
class Analysis:
    """What was found: all ships with their estimated rows, and the rows of pymig.analyze()."""

    ships: list[Row]
    rows: list[Row]


def analyze(
    session: Session,
    ships: str,
    options: Options,
    *,
    sample: int,
    budget: float,
    tell: Callable[[str], object] = str,
) -> Analysis:
    """Look at the data of ships (one, a comma list, or all, of which at most MOST_SHIPS).

    sample: buckets of each; budget: seconds for each; tell: is told before each. Raises PymigError.
    """
    found = session.select(
        "resolve_entities",
        p_entities=ships,
        p_source=options.source,
        p_allow_scan=options.allow_scan,
    )
    found.reverse()  # most rows first
    chosen = _chosen(found) if ships == "all" else found
    rows = [] if len(chosen) == len(found) > 0 else [_left_out(len(chosen), len(found))]
    for number, ship in enumerate(chosen, 1):
        tell(f"{ship['entity']} ({number} of {len(chosen)})")
        rows += session.select(
            "analyze",
            p_entity=ship["entity"],
            p_source=options.source,
            p_column_types=options.column_types,
            p_sample=sample,
            p_budget=f"{budget} seconds",
            p_allow_scan=options.allow_scan,
        )
    return Analysis(found, rows)


def _chosen(ships: list[Row]) -> list[Row]:
    if len(ships) <= MOST_SHIPS:
        return ships
    half = MOST_SHIPS // 2
    picked = sorted(random.sample(range(half, len(ships)), MOST_SHIPS - half))
    return ships[:half] + [ships[i] for i in picked]


def _left_out(chosen: int, ships: int) -> Row:
    value, advice = "none: the narrow table is empty", "Look again when there is data."
    if ships:
        value = f"{chosen} of {ships:,} looked at: half with most rows, half at random"
        advice = "Look at another one by its name: --ship."
    return {
        "entity": None,
        "item": "ships",
        "level": "yellow",
        "value": value,
        "advice": advice,
        "detail": {"looked_at": chosen, "ships": ships},
    }
