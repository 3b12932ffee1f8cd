"""Every error a person can meet: one tree, one registry of SQLSTATEs, one exit code each."""

from __future__ import annotations

from typing import ClassVar, Final

import psycopg
from psycopg import errors as pg


class PymigError(Exception):
    """One clear sentence of what is wrong, and a hint of what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message: Final = message
        self.hint: Final = hint


class UsageError(PymigError):
    """A wrong ship, source, setting or definition."""

    exit_code = 2


class ServerError(PymigError):
    """No server, or the connection is gone and does not come back."""

    exit_code = 3


class NotInstalledError(PymigError):
    """The database has no schema pymig."""

    exit_code = 4


class PrivilegeError(PymigError):
    """The role lacks a privilege."""

    exit_code = 5


class NotDoneError(PymigError):
    """The work could not be finished: chunks failed, a lock was not to be had."""

    exit_code = 6


class DifferenceError(PymigError):
    """Verification found differences."""

    exit_code = 7


class InterruptedByUser(PymigError):  # noqa: N818 -- not an error of the program
    """Ctrl-C or SIGTERM; what was begun is finished, the rest goes on with the same command."""

    exit_code = 130


#: SQLSTATEs that routines of pymig raise -> exception (docs/reference/errors.md).
REGISTRY: Final[dict[str, type[PymigError]]] = {
    "PM001": UsageError,  # no such source
    "PM002": UsageError,  # no such entity
    "PM003": UsageError,  # a table can't be served as a source
    "PM004": UsageError,  # wrong state for this
    "PM005": NotDoneError,  # a lock was not to be had in time
    "PM006": UsageError,  # wrong isolation level
    "PM007": UsageError,  # wrong setting
    "PM008": PrivilegeError,  # missing privilege
    "PM009": NotDoneError,  # a channel without a column
    "PM010": UsageError,  # a long scan was not allowed
    "PM012": NotDoneError,  # chunks failed for good
    "PM013": DifferenceError,  # differences
    "PM014": UsageError,  # the wide table's name is taken
    "PM015": NotDoneError,  # something depends on a wide table
    "PM090": UsageError,  # the demo meets rows that are not its own
}

#: Worth another try: serialization failure, deadlock, lock not available.
RETRYABLE: Final = ("40001", "40P01", "55P03")


def is_lost_connection(error: psycopg.Error) -> bool:
    """Whether the server or the network went away, rather than the statement being wrong."""
    if isinstance(
        error, (pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow, pg.IdleSessionTimeout)
    ):
        return True
    return (
        isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        and error.sqlstate is None
    )


def explain(error: psycopg.Error) -> PymigError:
    """Turn an error of psycopg's into one of ours, keeping the database's sentence and hint."""
    diagnosis = error.diag
    sentence = (
        diagnosis.message_primary or str(error).strip().split("\n")[0] or type(error).__name__
    ).rstrip(".")
    hint = diagnosis.message_hint or ""
    if error.sqlstate in REGISTRY:
        detail = f"{diagnosis.message_detail} " if diagnosis.message_detail else ""
        return REGISTRY[error.sqlstate](sentence + ".", detail + hint)
    if is_lost_connection(error):
        return ServerError(
            f"The server can't be reached: {sentence}.",
            "Check DATABASE_URL and that the server runs.",
        )
    if (
        isinstance(error, psycopg.OperationalError)
        and error.sqlstate
        and error.sqlstate.startswith(("28", "3D"))
    ):
        return ServerError(
            sentence + ".", hint or "Check user, password and database in DATABASE_URL."
        )
    if (
        isinstance(error, (pg.InvalidSchemaName, pg.UndefinedFunction, pg.UndefinedTable))
        and "pymig" in sentence
    ):
        return NotInstalledError(
            "pymig is not installed in this database.", "Run `pymig install` (or `make install`)."
        )
    if isinstance(error, (pg.UndefinedTable, pg.InvalidSchemaName)):
        return UsageError(sentence + ".", hint or "Name an existing table, with its schema.")
    if isinstance(error, pg.InsufficientPrivilege):
        return PrivilegeError(
            f"The role may not do this: {sentence}.",
            hint or "Ask the owner of the table, or a superuser.",
        )
    return PymigError(f"{sentence} (SQLSTATE {error.sqlstate}).", hint)
