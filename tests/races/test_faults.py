"""Five kinds of fault while a fleet is migrated; `make faults` strikes a hundred times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pymig.server import Cluster
from tests.fault_site import Site, site
from tests.faults import strike
from tests.waiting import until

# The rest is struck by `make faults`; killed clients and crashes by test_kill.py too.
KINDS = ("backend killed", "worker killed", "network frozen", "disk full", "lock held")


@pytest.fixture(scope="module")
def fleet(server_folder: Path, cluster: Cluster) -> Iterator[Site]:
    """A server of the faults' own."""
    own = Cluster(server_folder / "faults", fast=True, binaries=cluster.binaries)
    with site(server_folder, 3, 0.6, own) as found:
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_recovered_from(fleet: Site, kind: str) -> None:
    """The migration ends by itself, nothing is lost, and the fault did hit something."""
    if kind == "disk full" and fleet.disk is None:
        pytest.skip("it takes root and the right to mount a small file system")
    hit, _ = strike(fleet, kind)
    assert hit or kind in ("backend killed", "client killed", "lock held"), "nothing was hit"


def test_a_lost_row_is_noticed(fleet: Site) -> None:
    """A row that vanishes behind everybody's back: the ledger says so."""
    application = fleet.applications[0]
    until(lambda: any(application.committed.copy().values()), "nothing is written")
    with application.paused(), fleet.connect() as conn:
        key = next(k for k, v in application.committed.items() if v is not None)
        value = application.committed.pop(key)
        assert len(application.lost_rows(conn)) == 1
        application.committed[key] = -1.0
        assert len(application.lost_rows(conn)) == 1
        application.committed[key] = value
        assert application.lost_rows(conn) == []
