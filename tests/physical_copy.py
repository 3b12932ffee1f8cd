"""A server made of another one's base backup: a standby, or one that recovers to a point."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pymig.server import SUPERUSER, Cluster


class PhysicalCopy(Cluster):
    """A physical copy of a running server, on a port of its own."""

    def follow(self, primary: Cluster) -> None:
        """Copy the primary and start as its standby."""
        self.back_up(primary, "-R", "-X", "stream")
        self.start()

    def recover(self) -> None:
        """Start, and recover to where `settings` say."""
        self._check("begin recovery", "/usr/bin/touch", self.data / "recovery.signal")
        self.start()

    def back_up(self, primary: Cluster, *options: str) -> None:
        """Take a base backup of the primary; `options` go to pg_basebackup."""
        self._make_root()
        self._run.mkdir(mode=0o700)
        self._give(self._run)
        bindir = Path(json.loads((primary.root / "state.json").read_text())["bindir"])
        url = f"postgresql://{SUPERUSER}:{primary.password}@127.0.0.1:{primary.port}"
        self._give(self.root)
        where = ("-D", self.data, "-d", url)
        self._check("copy", bindir / "pg_basebackup", *where, "-c", "fast", "--no-sync", *options)
        os.chown(self.root, os.geteuid(), os.getegid())
        # The primary's own settings come before ours in the copy, so ours win.
        include = f"include '{self.root / 'pymig.conf'}'\n"
        self._check(
            "copy", "/bin/sh", "-c", 'cat >>"$0"', self.data / "postgresql.conf", stdin=include
        )
        state = {"port": primary.port, "password": primary.password, "bindir": str(bindir)}
        (self.root / "state.json").write_text(json.dumps({**state, "ready": True}))
