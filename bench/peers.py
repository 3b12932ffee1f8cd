"""Ways to make the wide table outside pymig, each in its best form. Each writes bench.wide_<name>."""  # noqa: E501

import csv
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.server import connect, render


@dataclass(frozen=True)
class Job:
    """What is to be pivoted: one ship into columns of these types."""

    url: str
    ship: str
    types: str
    channels: list[dict[str, str]]
    cells: dict[str, str]

    def sql(self, name: str, /, **more: Any) -> str:
        """A template of bench/sql with this job's names."""
        fields = {k: getattr(self, k) for k in ("ship", "types", "channels", "cells")}
        return render(name, **{**fields, **more})

    @property
    def columns(self) -> str:
        """Column list of the wide table."""
        return ", ".join(["created_time", *(f'"{c["channel"]}"' for c in self.channels)])


def crosstab(job: Job) -> None:
    """One hand-written statement over tablefunc's crosstab."""
    _execute(job, "crosstab")


def filter_per_column(job: Job) -> None:
    """One hand-written statement, an aggregate with FILTER per column."""
    _execute(job, "filter")


def copy_python_copy(job: Job) -> None:
    """COPY out, dictionaries in Python, COPY in: the owners' old way."""
    wide: dict[str, dict[str, str]] = {}
    with connect(job.url) as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY ({job.sql('rows')}) TO STDOUT") as out:
            for line in _lines(out):
                time, channel, cell = line.split("\t")
                row = wide.get(time)
                if row is None:
                    row = wide[time] = {}
                row[channel] = cell
        names = [c["channel"] for c in job.channels]
        with cursor.copy(f"COPY bench.wide_copy_python ({job.columns}) FROM STDIN") as into:
            for time, row in wide.items():
                cells = "\t".join([row.get(name, "\\N") for name in names])
                into.write(f"{time}\t{cells}\n")


def fetch_executemany(job: Job) -> None:
    """Fetch all rows, pivot in Python, upsert with executemany."""
    names = [c["channel"] for c in job.channels]
    wide: dict[Any, dict[str, Any]] = {}
    with connect(job.url) as connection, connection.cursor() as cursor:
        cursor.execute(job.sql("rows"))
        for time, channel, cell in cursor:
            wide.setdefault(time, {})[channel] = cell
        with connection.transaction():
            upsert = job.sql("upsert")
            cursor.executemany(upsert, ([t, *map(row.get, names)] for t, row in wide.items()))


def polars_pivot(job: Job) -> None:
    """COPY CSV into polars, pivot, CSV back through COPY."""
    import polars as pl

    with connect(job.url) as connection:
        data = io.BytesIO()
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY ({job.sql('rows')}) TO STDOUT (FORMAT csv)") as out,
        ):
            for block in out:
                data.write(block)
        data.seek(0)
        frame = pl.read_csv(
            data, has_header=False, infer_schema=False, new_columns=["created_time", "c", "v"]
        ).pivot(on="c", index="created_time", values="v")
        target = io.BytesIO()
        frame.write_csv(target)
        _copy_csv(job, connection, "polars", target.getvalue())


def duckdb_csv(job: Job) -> None:
    """COPY CSV to a file, DuckDB's PIVOT, CSV back through COPY."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder, connect(job.url) as connection:
        source, target = Path(folder, "narrow.csv"), Path(folder, "wide.csv")
        with (
            source.open("wb") as file,
            connection.cursor() as cursor,
            cursor.copy(f"COPY ({job.sql('rows')}) TO STDOUT (FORMAT csv)") as out,
        ):
            for block in out:
                file.write(block)
        with duckdb.connect() as duck:
            duck.execute("SET pivot_limit = 100000")
            duck.execute(job.sql("duckdb_csv", source=source, target=target))
        _copy_csv(job, connection, "duckdb_csv", target.read_bytes())


def duckdb_postgres(job: Job) -> None:
    """DuckDB with its postgres extension on all cores, reading and writing."""
    import duckdb

    spec = find_spec("duckdb_extension_postgres_scanner")
    assert spec and spec.origin, "pip install duckdb-extension-postgres-scanner"
    extension = next(Path(spec.origin).parent.glob("extensions/*/postgres_scanner.*"))
    texts = [c for c in job.channels if c["type"] == "text"]
    numbers = [c for c in job.channels if c["type"] != "text"]
    kinds = [k for k in (("number", numbers), ("string", texts)) if k[1]]
    with duckdb.connect() as duck:
        duck.execute(f"LOAD '{extension}'")
        duck.execute("SET pivot_limit = 100000")
        duck.execute("SET pg_experimental_filter_pushdown = true")
        duck.execute(f"ATTACH '{job.url}' AS pg (TYPE postgres)")
        for statement in job.sql("duckdb_postgres", kinds=kinds).split(";\n"):
            duck.execute(statement)


PEERS = {
    "crosstab": crosstab,
    "filter": filter_per_column,
    "copy_python": copy_python_copy,
    "executemany": fetch_executemany,
    "polars": polars_pivot,
    "duckdb_csv": duckdb_csv,
    "duckdb_postgres": duckdb_postgres,
}


def _execute(job: Job, name: str) -> None:
    with connect(job.url) as connection:
        connection.execute("SET jit = off")
        connection.execute("SET work_mem = '256MB'")
        connection.execute(job.sql(name))


def _lines(out: Any) -> Iterator[str]:
    rest = ""
    for block in out:
        lines = (rest + bytes(block).decode()).split("\n")
        rest = lines.pop()
        yield from lines


def _copy_csv(job: Job, connection: Any, name: str, data: bytes) -> None:
    """COPY a CSV with a header: its column order counts."""
    header = next(csv.reader([data[: data.index(b"\n")].decode()]))
    columns = ", ".join(f'"{h}"' for h in header)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY bench.wide_{name} ({columns}) FROM STDIN (FORMAT csv, HEADER)") as into,
    ):
        into.write(data)
