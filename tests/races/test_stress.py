"""T1: random load, random migration, thirty seeds; and T5, the load alone.

A failing seed prints how to run it again; thread timing is not repeated, so run it a few times.
"""

from __future__ import annotations

import pytest

from tests.conftest import Database
from tests.stress import STRATEGIES, Config, run_stress

SEEDS = range(1, 31)
SECONDS = 2.0


@pytest.mark.repetition
@pytest.mark.parametrize("seed", SEEDS)
def test_wide_equals_the_oracle_after_the_stress(db: Database, seed: int) -> None:
    """Half of the seeds text, half native; every strategy; a third without a unique key."""
    config = Config(
        db.url,
        seed,
        SECONDS,
        column_types=("text", "native")[seed % 2],
        strategy=STRATEGIES[seed // 2 % len(STRATEGIES)],
        duplicates=seed % 3 == 0,
        kill=seed % 5 != 0,
    )
    counts = run_stress(config)
    assert counts["starts"] and counts["sync passes"], counts


@pytest.mark.parametrize("duplicates", [False, True])
def test_load_without_pymig_has_only_its_own_errors(empty_db: Database, duplicates: bool) -> None:
    """The control: what the writers call their own fault happens without pymig too."""
    counts = run_stress(Config(empty_db.url, 1, 2.0, duplicates=duplicates, control=True))
    assert not [name for name in counts if name.startswith("FOREIGN")]
