"""T9: arming and uninstalling behind a long SELECT and a long writer; ingest hardly notices."""

from __future__ import annotations

import pytest

from pymig.install import install
from tests import arming
from tests.conftest import Database
from tests.races.interleave import patch_routine

HELD = 2.0
BOUND = 0.8  # seconds: lock_timeout is 0.2; the rest is for a busy machine


@pytest.fixture
def url(empty_db: Database) -> str:
    """A database with pymig and an unarmed source."""
    with empty_db.connect() as conn:
        conn.execute(arming.CREATE)
    install(empty_db.url)
    return empty_db.url


def test_ingest_never_waits_longer_than_the_lock_timeout(url: str) -> None:
    """Both end by themselves when the long sessions have ended."""
    for what, waits in arming.both(url, HELD).items():
        assert waits.longest < BOUND, f"{what}: {waits}"
        assert waits.statements > 50, f"{what}: {waits}"


def test_without_the_timeout_ingest_waits(empty_db: Database, url: str) -> None:
    """The mutation: then every writer stands behind us until the long ones have ended."""
    with empty_db.connect() as conn:
        patch_routine(conn, "_arm_source", ("interval := '200 ms'", "interval := '1 minute'"))
    assert arming.measure(url, arming.arm, HELD).longest > BOUND
    assert arming.measure(url, arming.disarm, HELD).longest > BOUND
