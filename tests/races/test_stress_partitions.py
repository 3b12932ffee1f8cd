"""T1 on a partitioned table: partitions are written straight, come and go; the oracle judges."""

from __future__ import annotations

import pytest

from tests.conftest import Database
from tests.stress import PARTITION_CHANGES, STRATEGIES, Config, partition_changes, run_stress

SECONDS = 2.0


@pytest.mark.repetition
@pytest.mark.parametrize("seed", range(1, 5))
def test_wide_equals_the_oracle_while_partitions_come_and_go(db: Database, seed: int) -> None:
    """Writers through the table and past it; partitions detached, dropped, emptied and attached."""
    config = Config(
        db.url,
        seed,
        SECONDS,
        strategy=STRATEGIES[seed % len(STRATEGIES)],
        duplicates=seed % 3 == 0,
        kill=seed % 2 == 0,
        partitioned=True,
    )
    counts = run_stress(config)
    assert counts["direct inserts"] and counts["sync passes"], counts
    assert partition_changes(counts) >= PARTITION_CHANGES, counts
