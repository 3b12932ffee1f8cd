"""Rows of the archive table moved to a compressed file, and back: CSV with a header, gzip."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from psycopg import sql

from pymig.db import Connection
from pymig.errors import UsageError

_LEVEL: Final = 6  # of gzip: level 9 takes twice as long for a few percent
_OUT: Final = sql.SQL(
    "COPY (DELETE FROM {archive} AS a WHERE a.{entity_column} = {entity} RETURNING a.*)"
    " TO STDOUT WITH (FORMAT csv, HEADER)"
)
_IN: Final = sql.SQL("COPY {archive} FROM STDIN WITH (FORMAT csv, HEADER match)")
_WHERE: Final = """
SELECT s.archive_table, s.entity_column FROM pymig.source AS s
WHERE s.source = coalesce(%s, s.source) AND to_regclass(s.archive_table) IS NOT NULL
"""
_BLOCK: Final = 1 << 20  # bytes

Note = Callable[[int], None]


def _unnoted(_: int) -> None:
    """Nobody asked how far it is."""


def export(
    conn: Connection, source: str | None, ship: str, path: Path, note: Note = _unnoted
) -> int:
    """Move a ship's rows from the archive table into a new file; return how many.

    note is told again and again how many bytes the file has.
    The rows are deleted by the statement that reads them, and that is committed when the file is
    safely on disk under its name: whatever dies on the way, they are in one of the two at least.
    Raises UsageError where the file exists or there is nothing to move.
    """
    archive, entity_column = _archive(conn, source)
    part = path.with_name(path.name + ".part")
    statement = _OUT.format(
        archive=archive, entity_column=sql.Identifier(entity_column), entity=sql.Literal(ship)
    )
    try:
        with conn.transaction(), conn.cursor() as cursor:
            with part.open("wb") as file:
                with gzip.open(file, "wb", _LEVEL) as packed, cursor.copy(statement) as rows:
                    for block in rows:
                        packed.write(block)
                        note(file.tell())
                os.fsync(file.fileno())
            if not cursor.rowcount:
                raise UsageError(
                    f"The archive has no rows of {ship!r}.", "See pymig.retired_bucket."
                )
            os.link(part, path)  # fails where there is such a file, as a rename would not
            _sync_folder(path.parent)
            return cursor.rowcount
    except FileExistsError as error:
        raise UsageError(f"{path} exists.", "Name a new file: none is overwritten.") from error
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.", "Nothing moved.") from error
    finally:
        part.unlink(missing_ok=True)


def bring_in(conn: Connection, source: str | None, path: Path, note: Note = _unnoted) -> int:
    """Put the rows of a file back into the archive table, all or none; return how many.

    note is told again and again how many bytes of the file were read.
    Raises UsageError for a file that can't be read to its end.
    """
    archive, _ = _archive(conn, source)
    try:
        with (
            path.open("rb") as file,
            gzip.open(file, "rb") as packed,
            conn.transaction(),
            conn.cursor() as cursor,
        ):
            with cursor.copy(_IN.format(archive=archive)) as rows:
                while block := packed.read(_BLOCK):
                    rows.write(block)
                    note(file.tell())
            return cursor.rowcount
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} can't be read: {error}.", "Nothing was brought in.") from error


def _archive(conn: Connection, source: str | None) -> tuple[sql.SQL, str]:
    found = conn.execute(_WHERE, [source]).fetchall()
    if len(found) != 1:
        raise UsageError(
            "There are several archive tables." if found else "There is no archive table.",
            "Name one with --source." if found else "pymig finalize makes it.",
        )
    # The catalog has it quoted.
    return sql.SQL(found[0]["archive_table"]), found[0]["entity_column"]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
