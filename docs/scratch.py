"""A server of its own for whatever makes documents, gone when that is done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pymig.server import Cluster


@contextmanager
def scratch_server() -> Iterator[str]:
    """The URL of an empty one, as superuser."""
    with tempfile.TemporaryDirectory(prefix="pymig-docs-") as folder:
        Path(folder).chmod(0o755)
        cluster = Cluster(Path(folder) / "server", fast=True)
        try:
            cluster.start()
            yield cluster.url()
        finally:
            cluster.remove()
