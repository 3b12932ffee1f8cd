"""A long soak: `make soak MINUTES=60 SEED=1` runs stress seeds one after another.

Uses a server of its own (PG_BINDIR chooses the binaries); prints a line per seed, and the whole
report of those that failed. Exit 1 if any did.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from pymig.server import Cluster
from tests.stress import Config, StressError, run_stress


def main(arguments: list[str] | None = None) -> int:
    """Run seeds until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help="of the first run (default: random)")
    parser.add_argument("--seconds", type=float, default=10.0, help="load per seed")
    parser.add_argument("--writers", type=int, default=6)
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="pymig-soak-", dir="/tmp"))
    folder.chmod(0o755)
    cluster = Cluster(folder / "s", fast=True)
    failed = 0
    try:
        cluster.start()
        print(f"PostgreSQL {cluster.server_version}, seeds from {seed}", flush=True)
        end = time.monotonic() + given.minutes * 60
        while time.monotonic() < end:
            failed += not _one(cluster, seed, given.seconds, given.writers)
            seed += 1
    finally:
        cluster.remove()
        folder.rmdir()
    print(f"{failed} seeds failed" if failed else "every seed equal to the oracle")
    return 1 if failed else 0


def _one(cluster: Cluster, seed: int, seconds: float, writers: int) -> bool:
    name = f"soak_{seed}"
    with psycopg.connect(cluster.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        start = time.monotonic()
        try:
            counts = run_stress(Config(cluster.url(name), seed, seconds, writers=writers))
        except StressError as error:
            print(error, flush=True)
            return False
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            conn.execute(drop.format(sql.Identifier(name)))
    told = ", ".join(f"{what} {times}" for what, times in sorted(counts.items()))
    print(f"seed {seed} equal, {time.monotonic() - start:.0f} s: {told}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
