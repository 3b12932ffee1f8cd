"""Where pymig's own files are: in a checkout beside the package, in a wheel inside it."""

import hashlib
import os
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """The repository's folder, or None when pymig runs from an installed wheel."""
    top = PACKAGE.parent
    return top if (top / "pyproject.toml").is_file() and (top / "sql").is_dir() else None


def sql_folder() -> Path:
    """The folder of the SQL templates."""
    top = checkout()
    return top / "sql" if top else PACKAGE / "_sql"


def alembic_folder() -> Path:
    """Alembic's script location (env.py, versions/, ddl/, frozen/)."""
    top = checkout()
    return top / "alembic" if top else PACKAGE / "_alembic"


def server_folder() -> Path:
    """The embedded demo server's folder: one per checkout and kind of user.

    As root the server runs as another account, which a checkout may be closed to, so its folder is
    under /var/tmp then. An installed wheel has no checkout: the user's own state folder serves.
    """
    top = checkout()
    if os.geteuid() == 0:
        digest = hashlib.sha256(os.fsencode(top or PACKAGE)).hexdigest()
        return Path("/var/tmp") / f"pymig-{digest[:8]}"
    if top:
        return top / ".pymig-server"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "pymig/server"
