"""`python -m bench [backfill|sync|lag|queries] [--quick]`: see bench/README.md."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import lag, queries, report, sync
from bench.server import connect, load, server

SUITES = ("backfill", "sync", "lag", "queries")
QUERY_STEP = 900  # seconds: 30 days of 1,000 channels in 2.9 million rows a ship


def main() -> int:
    """Run a suite; 1 where outputs differ."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suite", nargs="?", default="backfill", choices=SUITES)
    parser.add_argument("--quick", action="store_true", help="a small table, for a look")
    parser.add_argument("--types", choices=["native", "text"], action="append")
    parser.add_argument("--repeats", type=int, help="default 3; of sync 10")
    parser.add_argument("--seconds", type=int, help="of lag: how long each of its phases lasts")
    parser.add_argument("--rate", type=int, default=10_000, help="of lag: rows a second")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--times", type=int)
    parser.add_argument("--ships", type=int, help="default 4; of lag 5, the last one back-filled")
    parser.add_argument("--pg", type=Path, help="folder of PostgreSQL's binaries")
    args = parser.parse_args()
    channels = args.channels or (100 if args.quick else 1000)
    default_times = {
        "backfill": 500 if args.quick else 1000,
        "sync": 100,
        "lag": 200,
        "queries": 30 * 86400 // QUERY_STEP,
    }
    times = args.times or default_times[args.suite]
    repeats = args.repeats or (10 if args.suite == "sync" and not args.quick else 3)
    ships = args.ships or {"lag": 5, "queries": 2}.get(args.suite, 4)
    types = args.types or ["native", "text"]
    with server(args.pg) as (cluster, url):
        say(f"Loading {ships} ships x {channels} channels x {times} times …")
        step = QUERY_STEP if args.suite == "queries" else 15
        load(url, ships, channels, times, step)
        with connect(url) as connection:
            version = connection.info.server_version // 10000
        data: dict[str, Any] = {
            "suite": args.suite,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "postgresql": version,
            "ships": ships,
            "channels": channels,
            "times": times,
            "cpus": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "figures": {},
        }
        wrong = False
        if args.suite == "sync":
            found = sync.run(url, ships, channels, types[0], repeats, say)
            for name, taken in found.items():
                data["figures"][name] = report.ratios(taken, sync.NONE)
            markdown = report.sync_table(data)
        elif args.suite == "lag":
            seconds = args.seconds or (10 if args.quick else 30)
            data["rate"], data["seconds"] = args.rate, seconds
            data["figures"] = lag.run(url, channels, types[0], args.rate, seconds, repeats, say)
            markdown = report.lag_table(data)
        elif args.suite == "queries":
            days = times * step // 86400
            data["figures"] = queries.run(cluster, url, days, types[0], repeats, say)
            markdown = report.query_table(data)
        else:
            wrong = measure_backfill(url, data, types, repeats)
            markdown = report.backfill_table(data)
    size = f"{ships} ships × {channels} channels × {times} times"  # noqa: RUF001
    title = f"PostgreSQL {version}, {size}, {os.cpu_count()} cores\n\n"
    quick = "-quick" if args.quick else ""
    path = report.save(f"{args.suite}-{version}{quick}", data, f"{title}{markdown}\n")
    print(f"{title}{markdown}")
    say(f"Saved {path} and .json")
    return int(wrong)


def measure_backfill(url: str, data: dict[str, Any], kinds: list[str], repeats: int) -> bool:
    """Floors, pymig, other tools; whether any output differs."""
    from bench import backfill  # the other tools are needed for nothing else

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
