"""A history far larger than shared_buffers: is the last tenth as fast as the first?

One ship, migrated once by the whole command with one worker, as a person would do it. Ten times a
second the private memory of every process of the server is read from /proc.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.backfill import driver, job_of, read_floor
from bench.server import connect, render
from pymig.server import Cluster

SHIP = "SHIP1"
SHARED_BUFFERS = "256MB"
LOOK_SECONDS = 0.1
# What issue 4 asks for.
LAST_TENTH, BACKEND_MB, DRIVER_MB = 0.9, 300, 120


def run(
    cluster: Cluster | None, url: str, types: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Rows and seconds of every chunk, peaks of memory in MB, bytes of both tables, a floor."""
    with _private_memory(cluster) as peak:
        options = ["--ship", SHIP, "--workers", "1", "--column-types", types]
        driver_mb, seconds = driver(url, ["migrate", *options])
    say(f"beyond: migrated in {seconds:,.0f} s")
    with connect(url) as connection:
        chunks = connection.execute(render("axes_chunks", ship=SHIP)).fetchall()
        narrow, wide = connection.execute(render("sizes", ship=SHIP)).fetchall()[0]
    return {
        "chunks": [[rows, round(taken, 4)] for rows, taken in chunks],
        "migrate_seconds": seconds,
        "read_floor_seconds": read_floor(job_of(url, SHIP, types)),
        "driver_mb": driver_mb,
        "backend_mb": peak[0] if cluster else None,
        "narrow_bytes": int(narrow),
        "wide_bytes": int(wide),
    }


@contextmanager
def _private_memory(cluster: Cluster | None) -> Iterator[list[float]]:
    """A list of one number: the most any process of the server had for itself alone, in MB."""
    peak, ended = [0.0], threading.Event()

    def look() -> None:
        while cluster and not ended.wait(LOOK_SECONDS):
            peak[0] = max([peak[0], *map(_private_mb, cluster.processes())])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _private_mb(pid: int) -> float:
    """Anonymous pages of a process, without shared_buffers; 0 of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 1024 for x in status.splitlines() if "RssAnon" in x), 0.0)


def tenths(chunks: list[list[float]]) -> list[float]:
    """Rows a second of each tenth of the chunks, in the order they were moved."""
    bounds = [round(n * len(chunks) / 10) for n in range(11)]
    parts = [chunks[a:b] for a, b in pairwise(bounds)]
    return [sum(rows for rows, _ in part) / sum(s for _, s in part) for part in parts if part]


def table(data: dict[str, Any]) -> str:
    """What was moved, how fast in each tenth, and the goals."""
    f = data["figures"]
    rows, chunk_seconds = sum(c[0] for c in f["chunks"]), sum(c[1] for c in f["chunks"])
    rates = tenths(f["chunks"])
    lines = [
        f"`shared_buffers` {SHARED_BUFFERS}; one worker; strategy `auto`.",
        "",
        "| | |",
        "|---|--:|",
        f"| narrow rows | {rows:,} |",
        f"| size of narrow with indexes | {_gb(f['narrow_bytes'])} |",
        f"| size of wide with indexes | {_gb(f['wide_bytes'])} |",
        f"| narrow ÷ wide | {f['narrow_bytes'] / f['wide_bytes']:.1f} |",
        f"| chunks, seconds of them | {len(f['chunks'])}, {chunk_seconds:,.0f} |",
        f"| `pymig migrate`, with discovery and verification | {f['migrate_seconds']:,.0f} s |",
        f"| read floor of the same rows | {f['read_floor_seconds']:,.0f} s |",
        f"| rows/s in each tenth of the chunks | {', '.join(f'{r:,.0f}' for r in rates)} |",
        "",
        f"- last tenth ÷ first: goal ≥ {LAST_TENTH}: {rates[-1] / rates[0]:.2f}, "
        f"{_met(rates[-1] >= LAST_TENTH * rates[0])}",
        f"- Python process: {f['driver_mb']:.0f} MB, "
        f"{_met(f['driver_mb'] < DRIVER_MB)} (< {DRIVER_MB})",
    ]
    if f["backend_mb"] is not None:
        lines.append(
            f"- private memory of any server process: {f['backend_mb']:.0f} MB, "
            f"{_met(f['backend_mb'] < BACKEND_MB)} (< {BACKEND_MB})"
        )
    return "\n".join(lines)


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _met(met: bool) -> str:
    return "met" if met else "**missed**"
