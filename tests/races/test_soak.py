"""A short soak: all of T1 on one source while the server crashes and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pymig.server import Cluster
from tests.soak import show, soak


@pytest.fixture
def own(server_folder: Path, cluster: Cluster) -> Iterator[Cluster]:
    """A server that may crash."""
    own = Cluster(server_folder / "soak", fast=True, binaries=cluster.binaries)
    try:
        own.start()
        yield own
    finally:
        own.remove()


def test_everything_at_once_ends_equal(own: Cluster) -> None:
    """`make soak` runs the same for as long as one likes."""
    counts, lags = soak(own, "soak", seed=5, seconds=5.0, writers=3, every=2.0)
    assert counts["server crashes"], show(counts, lags)
    assert counts["starts"], show(counts, lags)
