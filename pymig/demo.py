"""The demonstration: a simulated fleet is migrated while its live writer goes on."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, LiteralString

import psycopg
from psycopg.rows import class_row
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pymig.demo_report import (
    QueryFigures,
    ShipFigures,
    WriterFigures,
    print_guide,
    print_report,
)
from pymig.demo_threads import LiveWriter, SyncWorker
from pymig.errors import explain, is_lost_connection
from pymig.fleet import about
from pymig.install import install
from pymig.migrate import Options, migrate_ships
from pymig.progress import for_console
from pymig.render import render_folder
from pymig.server import Cluster

SHIPS: Final = 4
ROWS: Final = 2_000_000
WORKERS: Final = 2
NEWCOMER_TICK: Final = 12  # by this tick the new channel and the new ship have sent for a while
LAG_TICKS: Final = 5  # ticks after the migration over which the sync lag is watched
PATIENCE: Final = 30.0  # seconds to wait for the new channel and the new ship to be picked up
POLL: Final = 0.02  # seconds between two looks at the wide tables
QUERY_RUNS: Final = 3  # the typical query counts with its fastest of so many runs

Lags = dict[str, float]  # ship -> longest sync lag in seconds


def run_demo(
    url: str,
    *,
    ships: int = SHIPS,
    rows: int = ROWS,
    workers: int = WORKERS,
    cluster: Cluster | None = None,
    console: Console | None = None,
) -> int:
    """Create the fleet if absent, migrate it while it sends, verify every cell, print a table.

    url: connection string of the server; rows: narrow rows of history, about; workers: connections
    of the migration; cluster: the embedded server behind url, None for a server of one's own (the
    closing advice differs). Returns the exit code: 0 if every ship is verified and the live writer
    never failed, else 1. Raises psycopg.Error with SQLSTATE PM090 where the narrow table has rows
    of someone else, and PymigError as install and migrate do.
    """
    out = console or Console()
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True, application_name="pymig demo") as conn:
        create_fleet(conn, ships, rows, out)
        install(url)
        conn.execute("CALL pymig.set_new_entities(p_policy => 'auto')")
        ship = first_ship(conn)
        narrow = time_query(conn, "SELECT demo_fleet.typical_query_narrow(%s)", ship)
        out.print("The live writer starts: a sample set a second. The migration starts too.")
        lags, writer = migrate_live(conn, url, workers, out)
        verify_all(conn, out)
        wide = time_query(conn, "SELECT demo_fleet.typical_query_wide(%s)", ship)
        figures = read_figures(conn, lags)
        print_report(out, figures, writer, QueryFigures(narrow, wide))
        good = writer.errors == 0 and all(figure.is_verified for figure in figures)
        out.print(
            f"{'Every ship is verified' if good else '[bold red]The demonstration failed[/]'} "
            f"after {time.monotonic() - began:.0f} s."
        )
        print_guide(out, conn.info, ship, cluster)
    return 0 if good else 1


def create_fleet(conn: psycopg.Connection, ships: int, rows: int, out: Console) -> None:
    """Apply sql/demo and load the history, or what is missing of it, under a progress bar."""
    conn.execute("SET client_min_messages = warning")
    conn.execute("SET check_function_bodies = off")  # a routine may come before one it calls
    for _, sql in render_folder("demo"):
        conn.execute(sql.encode())
    conn.execute("SET check_function_bodies = on")
    conn.execute("SELECT demo_fleet.create_fleet(p_ships => %s, p_rows => %s)", [ships, rows])
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        task = progress.add_task(f"history of {ships} ships, {rows:,} rows", total=1.0)
        done = 0.0
        while done < 1.0:
            done = select_float(conn, "SELECT demo_fleet.write_history_slice()")
            progress.update(task, completed=done)


def migrate_live(
    conn: psycopg.Connection, url: str, workers: int, out: Console
) -> tuple[Lags, WriterFigures]:
    """Migrate all ships as `pymig migrate --ship all` does while writer and sync worker run.

    Stays until the new channel and the new ship are picked up, then stops the writer and drains.
    Returns the sync lags and the writer's figures.
    """
    conn.execute("SELECT demo_fleet.start_run()")
    with live_fleet(url) as (writer, worker):
        migrate_ships(url, options=Options(workers=workers), progress=for_console(out))
        lags = watch_sync(conn, writer, out)
    conn.execute("CALL pymig.sync_pending()")
    if worker.errors:
        out.print(f"The sync worker failed {worker.errors} times, last: {worker.last_error}")
    figures = WriterFigures(
        writer.turns, writer.rows, writer.errors, writer.last_error, writer.slowest
    )
    return lags, figures


@contextmanager
def live_fleet(url: str) -> Iterator[tuple[LiveWriter, SyncWorker]]:
    """Run the live writer and a sync worker; at the end stop the writer first."""
    writer, worker = LiveWriter(url), SyncWorker(url)
    try:
        writer.start()
        worker.start()
        yield writer, worker
    finally:
        writer.stop()
        worker.stop()


def watch_sync(conn: psycopg.Connection, writer: LiveWriter, out: Console) -> Lags:
    """Measure the sync lag until the newcomers are in and LAG_TICKS ticks have passed.

    A lag runs from the commit of a tick to the moment a look at the wide table shows it. Gives up
    on the newcomers after PATIENCE seconds and says so; verification then tells the truth.
    """
    lags: Lags = defaultdict(float)
    seen: dict[str, int] = {}
    first = writer.turns + 1
    deadline = time.monotonic() + PATIENCE
    with out.status("waiting for the new channel and the new ship"):
        while not is_caught_up(conn, writer, first + LAG_TICKS):
            note_lags(conn, writer, first, seen, lags)
            if time.monotonic() > deadline:
                out.print(f"[red]Not all new channels were picked up in {PATIENCE:.0f} s.[/]")
                break
            time.sleep(POLL)
    return dict(lags)


def is_caught_up(conn: psycopg.Connection, writer: LiveWriter, last_tick: int) -> bool:
    """Whether the writer is past its newcomers and last_tick, and every channel has a column."""
    return (
        writer.turns >= max(NEWCOMER_TICK, last_tick)
        and select_float(conn, "SELECT demo_fleet.count_missing_channels()") == 0
    )


def note_lags(
    conn: psycopg.Connection, writer: LiveWriter, first: int, seen: dict[str, int], lags: Lags
) -> None:
    """Look once at the newest tick (from first on) of every wide table; raise seen and lags."""
    rows = conn.execute("SELECT ship_id, tick FROM demo_fleet.read_newest_ticks()").fetchall()
    now = time.monotonic()
    for ship, newest in rows:
        ticks = range(max(seen.get(ship, 0) + 1, first), (newest or 0) + 1)
        # the ship's own first tick counts from its adoption on: start with the second look
        if ship in seen:
            for tick in ticks:
                lags[ship] = max(lags.get(ship, 0.0), now - writer.committed_at.get(tick, now))
        seen[ship] = max(seen.get(ship, 0), newest or 0)


def verify_all(conn: psycopg.Connection, out: Console) -> None:
    """Compare every cell of every ship; the results are in pymig.verification.

    Says what is wrong with a ship that does not verify; the report will count it as not equal.
    """
    ships = conn.execute("SELECT ship_id FROM demo_fleet.measure_ships()").fetchall()
    with out.status("comparing every cell") as status:
        for (ship,) in ships:
            status.update(f"comparing every cell of {ship}")
            try:
                conn.execute("CALL pymig.verify(%s)", [ship])
            except psycopg.Error as error:
                if is_lost_connection(error):
                    raise
                said = explain(error)
                out.print(f"{about(ship, said)} {said.hint}", markup=False, style="red")


def read_figures(conn: psycopg.Connection, lags: Lags) -> list[ShipFigures]:
    """The figures of every ship, in the fleet's order."""
    with conn.cursor(row_factory=class_row(ShipFigures)) as cursor:
        figures = cursor.execute("SELECT * FROM demo_fleet.measure_ships()").fetchall()
    return [replace(figure, lag=lags.get(figure.ship_id)) for figure in figures]


def first_ship(conn: psycopg.Connection) -> str:
    """The ship that the typical query asks for."""
    row = conn.execute("SELECT demo_fleet._name_ship(1)").fetchone()
    return str(row[0]) if row else ""


def time_query(conn: psycopg.Connection, select_text: LiteralString, ship: str) -> float:
    """Seconds that the query takes whose text select_text gives for ship: fastest of QUERY_RUNS.

    NaN where there is no such query (the ship has no wide table).
    """
    row = conn.execute(select_text, [ship]).fetchone()
    if row is None or row[0] is None:
        return float("nan")
    query = str(row[0]).encode()
    times: list[float] = []
    for _ in range(QUERY_RUNS):
        began = time.perf_counter()
        conn.execute(query).fetchall()
        times.append(time.perf_counter() - began)
    return min(times)


def select_float(conn: psycopg.Connection, select: LiteralString) -> float:
    """The one number that select gives."""
    row = conn.execute(select).fetchone()
    return float(row[0]) if row else 0.0
