"""What runs beside the demo's server: found by its address, ended with the server."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from pymig import companions
from tests.conftest import Database


@pytest.mark.once
def test_they_run_until_they_are_stopped(db: Database, tmp_path: Path) -> None:
    """Asked for twice they are there once."""
    try:
        addresses = companions.start(tmp_path, db.url)
        assert [line.partition(": http://127.0.0.1:")[0] for line in addresses] == [
            "Console",
            "Metrics",
        ]
        for line, said in zip(addresses, (b"pymig", b"pymig_up 1.0"), strict=True):
            with urllib.request.urlopen(line.partition(": ")[2], timeout=20) as answer:
                assert said in answer.read()
        assert companions.start(tmp_path, db.url) == addresses
    finally:
        companions.stop(tmp_path)
    for line in addresses:
        with pytest.raises(OSError):
            urllib.request.urlopen(line.partition(": ")[2], timeout=5)
    companions.stop(tmp_path)
