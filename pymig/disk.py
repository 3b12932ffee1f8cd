"""How full a server's disk is, where it is on this machine: SQL can't see it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from pymig.db import Connection

#: The server writes postmaster.pid a moment before it notes its own start.
_TOLERANCE: Final = 10  # seconds
_WHERE: Final = """
SELECT s.setting AS folder, extract(epoch FROM pg_postmaster_start_time())::float8 AS started
FROM pg_catalog.pg_settings AS s WHERE s.name = 'data_directory'
"""
_REPORT: Final = "SELECT pymig.report_throttle('disk used', %s)"


def free_bytes(conn: Connection) -> int | None:
    """Free bytes on the disk of the data directory.

    None where that is not on this machine, which postmaster.pid tells, or may not be looked at.
    """
    folder = _data_directory(conn)
    return shutil.disk_usage(folder).free if folder else None


def report(conn: Connection) -> None:
    """Tell pymig.throttle how full that disk is, in percent; nothing where it is elsewhere."""
    if folder := _data_directory(conn):
        usage = shutil.disk_usage(folder)
        conn.execute(_REPORT, [100 * (1 - usage.free / usage.total)])


def _data_directory(conn: Connection) -> Path | None:
    row = conn.execute(_WHERE).fetchone()
    if row is None:  # hidden from roles without pg_read_all_settings
        return None
    folder = Path(row["folder"])
    try:
        started = int((folder / "postmaster.pid").read_text("utf-8").split("\n")[2])
    except (OSError, ValueError, IndexError):
        return None
    return folder if abs(started - row["started"]) < _TOLERANCE else None
