"""Every error a person can meet: one tree, one registry of SQLSTATEs, one exit code each."""

from __future__ import annotations

import re
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


class OutputClosed(PymigError):  # noqa: N818 -- not an error of the program
    """Whoever read the output has gone, as `head` does; what was left to do is not done."""

    exit_code = 141


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
    "PM020": UsageError,  # sizes of the pending queue that don't fit each other
    "PM021": UsageError,  # a tablespace the queue can't be in
    "PM022": UsageError,  # the partitions of a table can't be followed, or not be kept
    "PM023": NotDoneError,  # the partitions changed while they were read
    "PM024": NotDoneError,  # a wide table has the only copy of rows
    "PM025": NotDoneError,  # a wide table is gone or lost its time column
    "PM030": UsageError,  # a source that can't be written directly
    "PM031": NotDoneError,  # rows that could not be written directly at once; never seen
    "PM032": NotDoneError,  # a direct write beyond its budget; never seen
    "PM040": DifferenceError,  # no certificate that counts
    "PM041": NotDoneError,  # a certificate can't be given
    "PM050": UsageError,  # an entity that can't be read from wide
    "PM060": UsageError,  # a direct write to a wide table that is cut over
    "PM061": NotDoneError,  # pending keys that don't drain, or a lock, hold a cutover up
    "PM062": UsageError,  # what the narrow table could not hold
    "PM063": UsageError,  # a row whose narrow rows are gone
    "PM064": NotDoneError,  # work that was cancelled
    "PM065": NotDoneError,  # narrow rows that can't be retired
    "23505": UsageError,  # a wide row is there already
    "40001": NotDoneError,  # a wide row has changed before it was written
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
    sentence = _sentence(
        diagnosis.message_primary or str(error).strip().split("\n")[0] or type(error).__name__
    )
    hint = diagnosis.message_hint or ""
    if error.sqlstate in REGISTRY:
        detail = _sentence(diagnosis.message_detail) if diagnosis.message_detail else ""
        return REGISTRY[error.sqlstate](_in_singular(sentence), f"{detail} {hint}".strip())
    if is_lost_connection(error) or _is_refused(error):
        return _explain_no_connection(error, sentence, hint)
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return UsageError(sentence, hint or "Check DATABASE_URL.")
    if isinstance(error, _ABSENT):
        if _OF_PYMIG.search(sentence):
            return NotInstalledError(
                "pymig is not installed in this database.",
                "Run `pymig install` (or `make install`).",
            )
        if not isinstance(error, pg.UndefinedFunction):
            return UsageError(sentence, hint or "Name an existing table, with its schema.")
    if isinstance(error, _MALFORMED):
        return UsageError(sentence, hint or "Give a span of time like '500 ms' or '2 days'.")
    if isinstance(error, pg.InsufficientPrivilege):
        return PrivilegeError(f"The role may not do this: {sentence}", hint or _missing(sentence))
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return PymigError(f"{sentence.rstrip('.')}{state}.", hint)


def unexpected(error: Exception) -> PymigError:
    """Turn what nobody foresaw into one sentence: it is a bug of ours, or of what we stand on."""
    if isinstance(error, PymigError):
        return error
    if isinstance(error, psycopg.Error):
        return explain(error)
    said = str(error).strip().split("\n")[0].rstrip(".")
    return PymigError(
        f"Something unexpected went wrong: {type(error).__name__}{': ' if said else ''}{said}.",
        "Run `pymig --debug …` with the same command to see where, and report it.",
    )


_ABSENT: Final = (
    pg.InvalidName,
    pg.InvalidSchemaName,
    pg.UndefinedFunction,
    pg.UndefinedTable,
)
#: What only a parameter of a person's can be: spans of time are handed on as they are.
_MALFORMED: Final = (pg.InvalidDatetimeFormat, pg.IntervalFieldOverflow)
_OF_PYMIG: Final = re.compile(r'\bpymig[."]')
_PERMISSIONS: Final = "docs/how-to/permissions.md lists what each command needs."


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _in_singular(sentence: str) -> str:
    """1 differences in 1 buckets -> 1 difference in 1 bucket."""
    return re.sub(r"(?<![\w.,])1 (attempt|bucket|difference)s\b", r"1 \1", sentence)


def _is_refused(error: psycopg.Error) -> bool:
    """Whether the server is there and does not let us in."""
    return isinstance(error, psycopg.OperationalError) and (error.sqlstate or "").startswith(
        ("28", "3D")
    )


def _explain_no_connection(error: psycopg.Error, sentence: str, hint: str) -> ServerError:
    # While a connection is made there is no SQLSTATE, only libpq's text.
    if said := re.search(r"FATAL:\s+(.*)", str(error)):
        return ServerError(
            f"The server refuses the connection: {_sentence(said[1])}",
            hint or "Check user, password and database in DATABASE_URL.",
        )
    if _is_refused(error):
        return ServerError(sentence, hint or "Check user, password and database in DATABASE_URL.")
    return ServerError(
        f"The server can't be reached: {sentence.removeprefix('connection failed: ')}",
        "Check DATABASE_URL and that the server runs.",
    )


def _missing(sentence: str) -> str:
    """What to grant where a privilege is missing; PostgreSQL's sentence names the object."""
    if "schema pymig" in sentence:
        return (
            "To look: GRANT USAGE ON SCHEMA pymig, and GRANT SELECT ON ALL TABLES and ON ALL "
            "SEQUENCES IN SCHEMA pymig. "
            "To migrate: be the owner of the narrow table, or a member of the owning role. "
            f"{_PERMISSIONS}"
        )
    if found := re.match(r"permission denied for (database|schema) (.+)\.$", sentence):
        return f"GRANT CREATE ON {found[1].upper()} {found[2]} to this role. {_PERMISSIONS}"
    if found := re.match(
        r"permission denied for (?:table|view|relation|sequence) (.+)\.$", sentence
    ):
        return f"Run this as the owner of {found[1]}, or have it granted. {_PERMISSIONS}"
    return f"Run this as the owner, or as a member of the owning role. {_PERMISSIONS}"
