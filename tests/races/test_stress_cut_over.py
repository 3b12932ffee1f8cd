"""T1 with ships that are cut over, written in both shapes, retired and brought back."""

from __future__ import annotations

import pytest

from tests.conftest import Database
from tests.stress import STRATEGIES, Config, run_stress
from tests.stress_cut_over import compare_doors, cut_over, settle

SECONDS = 3.0


@pytest.mark.repetition
@pytest.mark.parametrize("seed", range(1, 5))
def test_wide_equals_the_oracle_after_cutover(db: Database, seed: int) -> None:
    """Reads by every door, writes in both shapes, and everything a DBA may do to a ship."""
    config = Config(
        db.url,
        seed,
        SECONDS,
        column_types=("text", "native")[seed % 2],
        strategy=STRATEGIES[seed % len(STRATEGIES)],
        kill=seed % 2 == 0,
    )
    counts = run_stress(config, cut_over, settle, compare_doors)
    assert counts["calls of cut_over"], counts
