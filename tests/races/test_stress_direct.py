"""T1 with direct ships: the writers write wide rows themselves, the oracle judges."""

from __future__ import annotations

import pytest

from tests.conftest import Database
from tests.stress import STRATEGIES, Config, run_stress

SECONDS = 2.0


@pytest.mark.repetition
@pytest.mark.parametrize("seed", range(1, 9))
def test_wide_equals_the_oracle_while_ships_are_direct(db: Database, seed: int) -> None:
    """Direct writes beside recomputes, chunks, new columns, promotions, roll-backs and kills."""
    config = Config(
        db.url,
        seed,
        SECONDS,
        column_types=("text", "native")[seed % 2],
        strategy=STRATEGIES[seed % len(STRATEGIES)],
        duplicates=False,
        kill=seed % 2 == 0,
        direct=True,
    )
    counts = run_stress(config)
    assert counts["starts"] and counts["direct writes"], counts
