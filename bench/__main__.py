"""`python -m bench [backfill|sync] [--quick]`: see bench/README.md."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import backfill, report, sync
from bench.server import connect, database, load


def main() -> int:
    """Run a suite; 1 where outputs differ."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "suite", nargs="?", default="backfill", choices=["backfill", "sync", "drive"]
    )
    parser.add_argument("--quick", action="store_true", help="a small table, for a look")
    parser.add_argument("--types", choices=["native", "text"], action="append")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--channels", type=int)
    parser.add_argument("--times", type=int)
    parser.add_argument("--ships", type=int, default=4)
    parser.add_argument("--pg", type=Path, help="folder of PostgreSQL's binaries")
    args = parser.parse_args()
    if args.suite == "drive":
        backfill.drive()
        return 0
    channels = args.channels or (100 if args.quick else 1000)
    times = args.times or (500 if args.quick else 1000)
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
        }
        title = f"PostgreSQL {version}, {args.ships} ships × {channels} channels × {times} times"  # noqa: RUF001
        if args.suite == "sync":
            return finish(
                f"sync-{version}", data, sync_report(url, data, args.repeats, title), True
            )
        return backfill_report(url, data, args.types or ["native", "text"], args.repeats, title)


def sync_report(url: str, data: dict[str, Any], repeats: int, title: str) -> str:
    """Ingest with each kind of trigger."""
    markdown = ""
    data["figures"] = {}
    for load_name, seconds in sync.run(url, repeats, say).items():
        figures = report.ratios(seconds, "no trigger")
        data["figures"][load_name] = figures
        markdown += report.table(f"Ingest, {load_name}: {title}", "no trigger", figures)
    return markdown


def backfill_report(
    url: str, data: dict[str, Any], kinds: list[str], repeats: int, title: str
) -> int:
    """Floors, pymig, other tools."""
    markdown, equal = "", True
    data["figures"] = {}
    for types in kinds:
        done = backfill.run(url, types, repeats, say)
        figures = report.ratios(done.seconds, "read floor")
        data["figures"][types] = {
            "ratios": figures,
            "seconds": done.seconds,
            "digests": done.digests,
            "driver_peak_mb": done.driver_peak_mb,
        }
        wrong = [n for n, d in done.digests.items() if d != done.digests["pymig auto"]]
        equal = equal and not wrong
        markdown += report.table(f"Backfill, {types} columns: {title}", "read floor", figures)
        markdown += f"\nPeak memory of the driver: {done.driver_peak_mb:.0f} MB. Outputs: "
        markdown += (
            f"{', '.join(wrong)} differ.\n\n" if wrong else f"all {len(done.digests)} equal.\n\n"
        )
    return finish(f"backfill-{data['postgresql']}", data, markdown, equal)


def finish(name: str, data: dict[str, Any], markdown: str, equal: bool) -> int:
    """Save and print."""
    path = report.save(name, data, markdown)
    print(markdown)
    say(f"Saved {path} and .json")
    return 0 if equal else 1


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
