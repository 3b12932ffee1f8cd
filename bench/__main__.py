"""`python -m bench [backfill|sync] [--quick]`: see bench/README.md."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import backfill, report, sync
from bench.server import connect, database, load


def main() -> int:
    """Run a suite; 1 where outputs differ."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suite", nargs="?", default="backfill", choices=["backfill", "sync"])
    parser.add_argument("--quick", action="store_true", help="a small table, for a look")
    parser.add_argument("--types", choices=["native", "text"], action="append")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--channels", type=int)
    parser.add_argument("--times", type=int)
    parser.add_argument("--ships", type=int, default=4)
    parser.add_argument("--pg", type=Path, help="folder of PostgreSQL's binaries")
    args = parser.parse_args()
    channels = args.channels or (100 if args.quick else 1000)
    times = args.times or (100 if args.suite == "sync" else 500 if args.quick else 1000)
    with database(args.pg) as url:
        say(f"Loading {args.ships} ships x {channels} channels x {times} times …")
        load(url, args.ships, channels, times)
        with connect(url) as connection:
            version = connection.info.server_version // 10000
        data: dict[str, Any] = {
            "suite": args.suite,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "postgresql": version,
            "ships": args.ships,
            "channels": channels,
            "times": times,
            "cpus": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "figures": {},
        }
        if args.suite == "sync":
            wrong = False
            for name, seconds in sync.run(url, args.repeats, say).items():
                data["figures"][name] = report.ratios(seconds, sync.NONE)
            markdown = report.sync_table(data)
        else:
            wrong = measure_backfill(url, data, args.types or ["native", "text"], args.repeats)
            markdown = report.backfill_table(data)
    size = f"{args.ships} ships × {channels} channels × {times} times"  # noqa: RUF001
    title = f"PostgreSQL {version}, {size}, {os.cpu_count()} cores\n\n"
    quick = "-quick" if args.quick else ""
    path = report.save(f"{args.suite}-{version}{quick}", data, f"{title}{markdown}\n")
    print(f"{title}{markdown}")
    say(f"Saved {path} and .json")
    return int(wrong)


def measure_backfill(url: str, data: dict[str, Any], kinds: list[str], repeats: int) -> bool:
    """Floors, pymig, other tools; whether any output differs."""
    for types in kinds:
        done = backfill.run(url, types, repeats, say)
        data["figures"][types] = {
            "ratios": report.ratios(done.seconds, "read floor"),
            "seconds": {n: [round(s, 4) for s in found] for n, found in done.seconds.items()},
            "digest": done.digests["pymig auto"][0],
            "compared": sum(map(len, done.digests.values())),
            "differing": done.differing,
            "driver_peak_mb": {n: round(mb, 1) for n, mb in done.driver_peak_mb.items()},
        }
        say(report.backfill_table(data))
    return any(data["figures"][types]["differing"] for types in kinds)


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
