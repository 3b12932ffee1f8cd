"""How much room a server has left, where it is on this machine: SQL can't see it."""

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


def free_bytes(conn: Connection) -> int | None:
    """Free bytes on the disk of the data directory.

    None where that is not on this machine, which postmaster.pid tells, or may not be looked at.
    """
    row = conn.execute(_WHERE).fetchone()
    if row is None:  # hidden from roles without pg_read_all_settings
        return None
    folder = Path(row["folder"])
    try:
        started = int((folder / "postmaster.pid").read_text("utf-8").split("\n")[2])
        free = shutil.disk_usage(folder).free
    except (OSError, ValueError, IndexError):
        return None
    return free if abs(started - row["started"]) < _TOLERANCE else None
