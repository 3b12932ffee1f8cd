"""Ingest time with pymig's trigger, without one, and with a plain trigger that upserts per row."""

import time
from collections.abc import Callable
from typing import Any

from bench.backfill import job_of
from bench.server import connect, render

LOADS = (
    "16,000-row batch",
    "4,000-row batch",
    "1,000 single rows, one transaction",
    "1,000 single rows, autocommit",
)
START = "2027-01-01"  # after all history: deleted again after each figure

Seconds = dict[str, dict[str, list[float]]]


def run(url: str, repeats: int, say: Callable[[str], None]) -> Seconds:
    """Each load under each trigger, in turn."""
    job = job_of(url, "SHIP1", "text")
    taken: Seconds = {load: {} for load in LOADS}
    with connect(url) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(job.sql("wide_table", name="wide_trigger", key=True))
        connection.execute(render("plain_trigger"))
        for n in range(repeats):
            for name, arm, disarm in _triggers():
                for statement in arm:
                    connection.execute(statement)
                for load in LOADS:
                    started = time.perf_counter()
                    _ingest(connection, [c["channel"] for c in job.channels], load)
                    taken[load].setdefault(name, []).append(time.perf_counter() - started)
                    _clean(connection)
                for statement in disarm:
                    connection.execute(statement)
            say(f"sync: repetition {n + 1} of {repeats}")
    return taken


def _triggers() -> tuple[tuple[str, list[str], list[str]], ...]:
    def pymig(call: str) -> str:
        return render("pymig", call=call, ship="SHIP1", types="text", strategy="auto")

    table = "tenant.tbl_data_timeseries"
    return (
        ("no trigger", [], []),
        ("pymig", [pymig("start_sync")], [pymig("roll_back")]),
        (
            "plain per-row upsert",
            [
                f"CREATE TRIGGER plain AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION bench.upsert_cell()"  # noqa: E501
            ],
            [f"DROP TRIGGER plain ON {table}"],
        ),
    )


def _ingest(connection: Any, channels: list[str], load: str) -> None:
    batch = render("batch", start=START)
    if load.endswith("batch"):
        rows = int(load.split("-")[0].replace(",", ""))
        used = channels[: min(1000, len(channels))]
        connection.execute(batch, [used, max(1, rows // len(used))])
        return
    singles = [([channels[i % len(channels)]], 1) for i in range(1000)]
    single = batch.replace(START, "2027-01-01 %s")
    statements = [
        (
            single.replace(
                "%s' +", f"{i // len(channels) // 60:02}:{i // len(channels) % 60:02}:00' +", 1
            ),
            p,
        )
        for i, p in enumerate(singles)
    ]
    if load.endswith("transaction"):
        with connection.transaction():
            for statement, parameters in statements:
                connection.execute(statement, parameters)
    else:
        for statement, parameters in statements:
            connection.execute(statement, parameters)


def _clean(connection: Any) -> None:
    connection.execute("SET session_replication_role = replica")
    connection.execute(f"DELETE FROM tenant.tbl_data_timeseries WHERE created_time >= '{START}'")
    connection.execute("RESET session_replication_role")
    connection.execute("TRUNCATE bench.wide_trigger")
    connection.execute("TRUNCATE pymig.tbl_data_timeseries_pending")
