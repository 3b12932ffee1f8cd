"""`python -m pymig.freeze`: writes what `sql/` renders to into the head revision's frozen folder.

Done once when a revision is made, and while it is not released. A test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pymig.paths import alembic_folder
from pymig.render import as_script, render_core

HEAD: Final = "0001"

#: SQL functions may name routines that come later in the script.
PREAMBLE: Final = "SET LOCAL check_function_bodies = off;\n\n"


def frozen_file() -> Path:
    """Return the file that holds the head revision's routines and views."""
    return alembic_folder() / "frozen" / HEAD / "core.sql"


def frozen_text() -> str:
    """Return what it should hold: the rendered `sql/`."""
    return PREAMBLE + as_script(render_core())


if __name__ == "__main__":
    frozen_file().parent.mkdir(parents=True, exist_ok=True)
    frozen_file().write_text(frozen_text(), "utf-8")
