"""Many seeds of the oracle stress, some at once: `make stress SEEDS=1-100`.

Each seed has a database of its own on a server of this run's own (PG_BINDIR chooses the binaries).
Prints a line per seed, the whole report of those that failed, and the sums. Exit 1 if any failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import psycopg
from psycopg import sql

from pymig.server import Cluster
from tests.stress import Config, StressError, run_stress
from tests.stress_cut_over import compare_doors, cut_over, settle


def one(cluster: Cluster, seed: int, seconds: float, cut: bool) -> dict[str, int] | str:
    """Run a seed in a database of its own: what happened, or the report of what went wrong."""
    name = f"seed_{seed}"
    with psycopg.connect(cluster.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            config = Config(cluster.url(name), seed, seconds)
            return (
                run_stress(config, cut_over, settle, compare_doors) if cut else run_stress(config)
            )
        except StressError as error:
            return str(error)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def tell(counts: Counter[str]) -> str:
    """Counts in words: errors first, then the statements of the writers, then the rest."""

    def rank(name: str) -> tuple[int, str]:
        return (0 if "error" in name else 1 if name.startswith("op ") else 2, name)

    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=rank))


def main(arguments: list[str] | None = None) -> int:
    """Run all seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.seeds", description=__doc__)
    parser.add_argument("--seeds", default="1-100", help="a number, or first-last")
    parser.add_argument("--seconds", type=float, default=2.0, help="load per seed")
    parser.add_argument("--cut-over", action="store_true", help="with all that follows a cutover")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at once")
    given = parser.parse_args(arguments)
    first, _, last = given.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    folder = Path(tempfile.mkdtemp(prefix="pymig-seeds-", dir="/tmp"))
    folder.chmod(0o755)
    cluster = Cluster(folder / "s", fast=True)
    failed, sums, began = 0, Counter[str](), time.monotonic()
    try:
        cluster.start()
        print(f"PostgreSQL {cluster.server_version}, {given.jobs} seeds at once", flush=True)
        with ProcessPoolExecutor(given.jobs) as pool:
            jobs = {
                pool.submit(one, cluster, seed, given.seconds, given.cut_over): seed
                for seed in seeds
            }
            for job in as_completed(jobs):
                result = job.result()
                if isinstance(result, str):
                    failed += 1
                    print(result, flush=True)
                    continue
                slowest = max(sums["slowest ms"], result["slowest ms"])
                sums.update(result)
                sums["slowest ms"] = slowest
                print(f"seed {jobs[job]} equal", flush=True)
    finally:
        cluster.remove()
        folder.rmdir()
    print(tell(sums))
    print(
        f"{len(seeds) - failed} of {len(seeds)} seeds equal to the oracle,"
        f" {time.monotonic() - began:.0f} s"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
