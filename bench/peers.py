"""Ways to make the wide table outside pymig, each in its best form; into bench.wide_<name>."""

import csv
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl

from bench.server import connect, execute, render


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
        names = ("ship", "types", "channels", "cells", "columns")
        fields = {k: getattr(self, k) for k in names}
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


def case_per_column(job: Job) -> None:
    """One statement as dbt's pivot macro makes it, an aggregate over a CASE per column."""
    _execute(job, "case")


def copy_python_copy(job: Job) -> None:
    """COPY out, dictionaries in Python, COPY in: the owners' old way."""
    wide: dict[str, dict[str, str]] = {}
    with connect(job.url) as connection, connection.cursor() as cursor:
        with cursor.copy(job.sql("copy_out", csv=False)) as out:
            for line in _lines(out):
                time, channel, cell = line.split("\t")
                row = wide.get(time)
                if row is None:
                    row = wide[time] = {}
                row[channel] = cell
        names = [c["channel"] for c in job.channels]
        with cursor.copy(job.sql("copy_in", name="copy_python", csv=False)) as into:
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


def upsert_rows(job: Job) -> None:
    """Fetch all rows, upsert each cell by itself, pipelined. Channel by channel, so that each
    statement is planned once; each in a transaction, or dead versions would never get out of the
    way."""
    with connect(job.url) as connection, connection.cursor() as cursor:
        cursor.execute(job.sql("rows"))
        cells: dict[str, list[tuple[Any, Any]]] = {}
        for time, channel, cell in cursor:
            cells.setdefault(channel, []).append((time, cell))
        for channel, rows in cells.items():
            cursor.executemany(job.sql("upsert_cell", channel=channel), rows)


def pandas_pivot(job: Job) -> None:
    """COPY CSV into pandas, pivot, CSV back through COPY."""
    with connect(job.url, parallel=True) as connection:
        frame = pd.read_csv(
            io.BytesIO(_csv(job, connection)),
            header=None,
            names=["created_time", "c", "v"],
            dtype=str,
            keep_default_na=False,
        ).pivot(index="created_time", columns="c", values="v")
        _copy_csv(job, connection, "pandas", frame.to_csv().encode())


def polars_pivot(job: Job) -> None:
    """COPY CSV into polars, pivot, CSV back through COPY."""
    with connect(job.url, parallel=True) as connection:
        names = ["created_time", "c", "v"]
        frame = pl.read_csv(
            _csv(job, connection), has_header=False, infer_schema=False, new_columns=names
        ).pivot(on="c", index="created_time", values="v")
        target = io.BytesIO()
        frame.write_csv(target)
        _copy_csv(job, connection, "polars", target.getvalue())


def duckdb_csv(job: Job) -> None:
    """COPY CSV to a file, DuckDB's PIVOT, CSV back through COPY."""
    with tempfile.TemporaryDirectory() as folder, connect(job.url, parallel=True) as connection:
        source, target = Path(folder, "narrow.csv"), Path(folder, "wide.csv")
        source.write_bytes(_csv(job, connection))
        with duckdb.connect() as duck:
            execute(duck, job.sql("duckdb_csv", source=source, target=target))
        _copy_csv(job, connection, "duckdb_csv", target.read_bytes())


def duckdb_postgres(job: Job) -> None:
    """DuckDB with its postgres extension on all cores, reading and writing."""
    spec = find_spec("duckdb_extension_postgres_scanner")
    assert spec and spec.origin, "pip install duckdb-extension-postgres-scanner"
    extension = next(Path(spec.origin).parent.glob("extensions/*/postgres_scanner.*"))
    texts = [c for c in job.channels if c["type"] == "text"]
    numbers = [c for c in job.channels if c["type"] != "text"]
    kinds = [k for k in (("number", numbers), ("string", texts)) if k[1]]
    with duckdb.connect() as duck:
        execute(duck, job.sql("duckdb_attach", extension=extension, url=job.url))
        execute(duck, job.sql("duckdb_postgres", kinds=kinds))


PEERS = {
    "crosstab": crosstab,
    "filter": filter_per_column,
    "case": case_per_column,
    "copy_python": copy_python_copy,
    "executemany": fetch_executemany,
    "upserts": upsert_rows,
    "pandas": pandas_pivot,
    "polars": polars_pivot,
    "duckdb_csv": duckdb_csv,
    "duckdb_postgres": duckdb_postgres,
}


def _execute(job: Job, name: str) -> None:
    with connect(job.url) as connection:
        execute(connection, job.sql(name))


def _lines(out: Any) -> Iterator[str]:
    rest = ""
    for block in out:
        lines = (rest + bytes(block).decode()).split("\n")
        rest = lines.pop()
        yield from lines


def _csv(job: Job, connection: Any) -> bytes:
    """The ship's rows (time, channel, cell) as CSV."""
    with connection.cursor() as cursor, cursor.copy(job.sql("copy_out", csv=True)) as out:
        return b"".join(bytes(block) for block in out)


def _copy_csv(job: Job, connection: Any, name: str, data: bytes) -> None:
    """COPY a CSV with a header: its column order counts."""
    header = next(csv.reader([data[: data.index(b"\n")].decode()]))
    columns = ", ".join(f'"{h}"' for h in header)
    copy = job.sql("copy_in", name=name, columns=columns, csv=True)
    with connection.cursor() as cursor, cursor.copy(copy) as into:
        into.write(data)
