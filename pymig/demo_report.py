"""What the demonstration prints at its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from rich import box
from rich.console import Console
from rich.table import Table

from pymig.server import Cluster


@dataclass(frozen=True)
class ShipFigures:
    """One ship at the end of the demonstration: sizes in bytes, times in seconds."""

    ship_id: str
    is_new: bool  # it began to send while the demonstration ran
    narrow_rows: int
    narrow_bytes: int
    wide_bytes: int | None
    moved_rows: int | None  # by the backfill
    seconds: float | None  # of the backfill; None where the worker alone filled the ship
    cells: int | None  # not NULL, compared by verify
    is_verified: bool
    lag: float | None = None  # longest time from the commit of a sample to its wide row


@dataclass(frozen=True)
class WriterFigures:
    """The live writer: sample sets and rows written, failed ticks, slowest tick in seconds."""

    ticks: int
    rows: int
    errors: int
    last_error: str
    slowest: float


@dataclass(frozen=True)
class QueryFigures:
    """The typical query in seconds: narrow before, wide after the migration."""

    narrow: float
    wide: float


def print_report(
    out: Console, ships: Sequence[ShipFigures], writer: WriterFigures, query: QueryFigures
) -> None:
    """Print a row per ship, the typical query before and after, and how the live writer fared."""
    out.print(build_table(ships))
    out.print(
        f"Typical query (hourly averages of 20 channels of one ship): narrow "
        f"{query.narrow * 1000:.1f} ms, wide {query.wide * 1000:.1f} ms: "
        f"{query.narrow / query.wide:.1f} times as fast."
    )
    out.print(
        f"Live writer: {writer.ticks} sample sets, {writer.rows:,} rows; slowest tick "
        f"{writer.slowest * 1000:.0f} ms, {writer.errors} errors."
        + (f" Last error: {writer.last_error}" if writer.errors else "")
    )


def build_table(ships: Sequence[ShipFigures]) -> Table:
    """A row per ship; fits 80 columns."""
    table = Table(
        title="Simulated fleet, migrated while it was sending",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("ship", no_wrap=True)
    for heading in ("rows", "cells", "seconds", "rows/s", "sync\nlag s", "narrow\nMB", "wide\nMB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("equal", no_wrap=True)
    for ship in ships:
        table.add_row(*format_ship(ship))
    return table


def format_ship(ship: ShipFigures) -> tuple[str, ...]:
    """The cells of one ship's row, as text; a dash where there is nothing to say."""
    rate = ship.moved_rows / ship.seconds if ship.moved_rows and ship.seconds else None
    return (
        f"{ship.ship_id} (new)" if ship.is_new else ship.ship_id,
        f"{ship.narrow_rows:,}",
        "-" if ship.cells is None else f"{ship.cells:,}",
        "-" if ship.seconds is None else f"{ship.seconds:.1f}",
        "-" if rate is None else f"{rate:,.0f}",
        "-" if ship.lag is None else f"{ship.lag:.2f}",
        format_size(ship.narrow_bytes),
        "-" if ship.wide_bytes is None else format_size(ship.wide_bytes),
        "[green]yes[/]" if ship.is_verified else "[bold red]NO[/]",
    )


def format_size(size: int) -> str:
    """Bytes as MB (millions of bytes), with more digits where it is small."""
    return f"{size / 1e6:.1f}" if size >= 1e6 else f"{size / 1e6:.2f}"


def print_guide(
    out: Console,
    info: psycopg.ConnectionInfo,
    ship: str,
    cluster: Cluster | None,
    addresses: Sequence[str] = (),
) -> None:
    """Say where the server is, what to try on it, and how to stop and remove it.

    cluster: the embedded server; None for a server of one's own. addresses: what runs beside it.
    """
    lines = [
        f"The server goes on at {info.host}, port {info.port}, database {info.dbname}. Try:",
        "  .venv/bin/pymig status",
        f"  make plan SHIP={ship}",
        *(f"  {address}" for address in addresses),
        f"  {format_psql(info, cluster)} -c 'SELECT * FROM pymig.status'",
        "Stop it with `make stop`; `make clean` removes it with all its data."
        if cluster
        else "It is your own server: `make stop` and `make clean` leave it alone.",
    ]
    out.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def format_psql(info: psycopg.ConnectionInfo, cluster: Cluster | None) -> str:
    """The psql command that reaches the server: the embedded one by its socket, no password."""
    program: str | Path = "psql"
    host = info.host
    if cluster and cluster.socket_dir:
        host = str(cluster.socket_dir)
    if cluster and (cluster.binaries.bindir / "psql").exists():
        program = cluster.binaries.bindir / "psql"
    return f"{program} -h {host} -p {info.port} -U {info.user} {info.dbname}"
