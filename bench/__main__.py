"""`python -m bench [SUITE] [--quick]`: see bench/README.md."""

import argparse
import dataclasses
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import (
    axes,
    backfill,
    beyond,
    chart,
    ideas,
    lag,
    queries,
    read,
    report,
    stall,
    sync,
    throttle,
    tune,
)  # fmt: skip
from bench.server import connect, load, server
from pymig.server import Cluster

QUERY_STEP = 120  # seconds: 30 days of 1,000 channels in 21.6 million rows a ship


def main() -> int:
    """Run a suite; 1 where outputs differ."""
    args = arguments()
    settings = {"shared_buffers": beyond.SHARED_BUFFERS} if args.suite == "beyond" else {}
    with server(args.pg, **settings) as (cluster, url):
        with connect(url) as connection:
            version = connection.info.server_version // 10000
        data: dict[str, Any] = {
            "suite": args.suite,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "postgresql": version,
            "cpus": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "figures": {},
        }
        size = ""
        if args.suite not in ("axes", "tune"):  # they have databases of its own
            data |= {"ships": args.ships, "channels": args.channels, "times": args.times}
            size = f"{args.ships} ships × {args.channels} channels × {args.times} times, "  # noqa: RUF001
            say(f"Loading {size}…")
            load(url, args.ships, args.channels, args.times, args.step)
        markdown = MEASURES[args.suite](args, cluster, url, data)
    title = f"PostgreSQL {version}, {size}{os.cpu_count()} cores"
    name = "-".join(filter(None, [args.suite, args.axis, str(version), args.quick and "quick"]))
    path = report.save(name, data, f"{title}\n\n{markdown}\n")
    print(f"{title}\n\n{markdown}")
    say(f"Saved {path} and .json")
    return int(args.suite == "backfill" and any(f["differing"] for f in data["figures"].values()))


def arguments() -> argparse.Namespace:
    """The command line, with what each suite takes where nothing is said."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suite", nargs="?", default="backfill", choices=MEASURES)
    parser.add_argument("--quick", action="store_true", help="a small table, for a look")
    parser.add_argument("--types", choices=["native", "text"], action="append")
    parser.add_argument("--repeats", type=int, help="default 3; of sync 10")
    parser.add_argument("--seconds", type=int, help="of lag: how long each of its phases lasts")
    parser.add_argument("--rate", type=int, default=10_000, help="of lag: rows a second")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--times", type=int)
    parser.add_argument("--ships", type=int, help="default 4; of lag 5, the last one back-filled")
    parser.add_argument("--axis", help="of axes: this one alone")
    parser.add_argument("--big", action="store_true", help="of axes: 100 million rows, 256 ships")
    parser.add_argument("--pg", type=Path, help="folder of PostgreSQL's binaries")
    args = parser.parse_args()
    args.step = QUERY_STEP * (10 if args.quick else 1) if args.suite == "queries" else 15
    times = {
        # Whole hours, which are whole buckets: workers can have equal shares.
        "backfill": 480 if args.quick else 960,
        "sync": 100,
        "lag": 200,
        "queries": 30 * 86400 // args.step,
        "read": 240 if args.quick else 5760,
        "stall": 200,
        "throttle": 8000 if args.quick else 40_000,
        "axes": 0,
        "tune": 0,
        "beyond": 2000 if args.quick else 100_000,
        "ideas": 200 if args.quick else 1000,
    }
    channels = {"throttle": 200}.get(args.suite, 1000)
    args.channels = args.channels or (100 if args.quick else channels)
    args.times = args.times or times[args.suite]
    args.repeats = args.repeats or (
        10 if args.suite == "sync" and not args.quick else 5 if args.suite == "ideas" else 3
    )
    ships = {"lag": 5, "queries": 2, "read": 2, "beyond": 1, "throttle": 1}
    args.ships = args.ships or ships.get(args.suite, 4)
    args.types = args.types or ["native", "text"]
    args.seconds = args.seconds or (10 if args.quick else 30)
    return args


def measure_backfill(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """Floors, pymig, other tools; outputs compared."""
    for types in args.types:
        done = backfill.run(url, types, args.repeats, say)
        data["figures"][types] = {
            "ratios": report.ratios(done.seconds, "read floor"),
            "seconds": {n: [round(s, 4) for s in found] for n, found in done.seconds.items()},
            "digest": done.digests["pymig auto"][0],
            "compared": sum(map(len, done.digests.values())),
            "differing": done.differing,
            "wal_bytes": done.wal_bytes,
            "dead_per_live": done.dead_per_live,
            "driver_peak_mb": {n: round(mb, 1) for n, mb in done.driver_peak_mb.items()},
        }
        say(report.backfill_table(data))
    return report.backfill_table(data)


def measure_sync(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """What the triggers cost ingest."""
    found = sync.run(url, args.ships, args.channels, args.types[0], args.repeats, say)
    for name, taken in found.items():
        data["figures"][name] = report.ratios(taken, sync.NONE)
    return report.sync_table(data)


def measure_lag(args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]) -> str:
    """How far wide is behind, and what ingest notices."""
    data["rate"], data["seconds"] = args.rate, args.seconds
    data["figures"] = lag.run(
        url, args.channels, args.types[0], args.rate, args.seconds, args.repeats, say
    )
    return report.lag_table(data)


def measure_queries(
    args: argparse.Namespace, cluster: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """What dashboards ask, of both tables."""
    days = args.times * args.step // 86400
    data["figures"] = queries.run(cluster, url, days, args.types[0], args.repeats, say)
    return report.query_table(data)


def measure_read(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """The doors for readers, beside queries by hand."""
    found = read.run(url, args.times, args.step, args.types[0], args.repeats, say)
    for title, taken in found.items():
        data["figures"][title] = {
            side: report.ratios({side: taken[side], base: taken[base]}, base)[side]
            for side, base in read.SIDES.items()
        }
    return report.read_table(data)


def measure_stall(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """What writers and readers notice of a cutover and a rollback."""
    taken = stall.run(url, args.channels, args.types[0], args.repeats, say)
    data["figures"] = {name: dataclasses.asdict(t) for name, t in taken.items()}
    for figures in data["figures"].values():
        figures["waits"] = max(figures["waits"], default=0.0)
    return stall.table(taken)


def measure_throttle(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """What the throttle does to history and to ingest; a chart beside the table."""
    taken = throttle.run(url, args.channels, args.ships, say)
    data["figures"] = {
        hold.condition: {
            "stopped_after": round(taken.stopped_after(hold), 3),
            "resumed_after": round(taken.resumed_after(hold), 3),
            "ingest_p99": round(taken.ingest_p99(hold.began, hold.ended), 5),
        }
        for hold in taken.holds
    }
    if not args.quick:
        chart.save_throttle(f"throttle-{data['postgresql']}", taken)
    return throttle.table(taken)


def measure_axes(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """How the cost of a row grows, along each axis; a chart beside the tables."""
    tables = []
    for axis in axes.axes(args.big, args.axis, args.quick):
        data["figures"][axis.name] = axes.run(url, axis, args.repeats, say)
        tables.append(axes.table(axis, data["figures"][axis.name]))
        say(tables[-1])
    curves = axes.curves(data["figures"])
    if curves and not args.quick and not args.axis:
        chart.save(f"axes-{data['postgresql']}", curves)
    return "\n\n".join(tables)


def measure_beyond(
    args: argparse.Namespace, cluster: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """A history that no memory holds."""
    data["figures"] = beyond.run(cluster, url, args.types[0], say)
    return beyond.table(data)


def measure_tune(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """Whether the tuner pays."""
    data["figures"] = tune.run(url, args.repeats, args.quick, say)
    return tune.table(data["figures"])


def measure_ideas(
    args: argparse.Namespace, _: Cluster | None, url: str, data: dict[str, Any]
) -> str:
    """What might make backfill faster, and what of it does."""
    data["figures"] = ideas.run(url, args.ships, args.times, args.repeats, say)
    return ideas.table(data["figures"])


MEASURES = {
    "backfill": measure_backfill,
    "sync": measure_sync,
    "lag": measure_lag,
    "queries": measure_queries,
    "read": measure_read,
    "stall": measure_stall,
    "throttle": measure_throttle,
    "axes": measure_axes,
    "beyond": measure_beyond,
    "tune": measure_tune,
    "ideas": measure_ideas,
}


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
