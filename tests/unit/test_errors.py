"""pymig.errors: what PostgreSQL says becomes a sentence, a hint and an exit code."""

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from pymig import errors
from pymig.errors import PymigError
from pymig.paths import checkout

FIELDS = ("message_primary", "message_detail", "message_hint")


def raised(kind: type[psycopg.Error], message: str, sqlstate: str = "", **fields: str) -> Any:
    """An error as psycopg raises it; the real one's diagnosis cannot be made by hand."""
    diagnosis = SimpleNamespace(**dict.fromkeys(FIELDS))
    vars(diagnosis).update({f"message_{name}": text for name, text in fields.items()})
    error: Any = type(kind.__name__, (kind,), {"diag": diagnosis})(message)
    if sqlstate:
        diagnosis.message_primary = message
        error.sqlstate = sqlstate
    return error


def test_detail_and_hint_are_two_sentences() -> None:
    error = raised(
        psycopg.DatabaseError, "no lock", "PM005", detail="Held by 1, 2", hint="Wait for them."
    )
    assert errors.explain(error).hint == "Held by 1, 2. Wait for them."


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("'X' does not verify: 1 differences in 1 buckets", "1 difference in 1 bucket."),
        ("'X' does not verify: 21 differences in 11 buckets", "21 differences in 11 buckets."),
        ("'X' does not verify: 1,001 differences in 2.1 buckets", "1,001 differences in 2.1"),
        ("no lock in 1 attempts", "no lock in 1 attempt."),
    ],
)
def test_one_is_singular(said: str, expected: str) -> None:
    message = errors.explain(raised(psycopg.DatabaseError, said, "PM013")).message
    assert expected in message


@pytest.mark.parametrize(("sqlstate", "kind"), errors.REGISTRY.items())
def test_our_own_states(sqlstate: str, kind: type[PymigError]) -> None:
    found = errors.explain(raised(psycopg.DatabaseError, "no", sqlstate, hint="Do."))
    assert (type(found), found.message, found.hint) == (kind, "no.", "Do.")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            'connection failed: connection to server at "h", port 1 failed: Connection refused',
            'The server can\'t be reached: connection to server at "h", port 1 failed: '
            "Connection refused.",
        ),
        (
            'connection failed: connection to server at "h" failed: FATAL:  database "x" does '
            "not exist",
            'The server refuses the connection: database "x" does not exist.',
        ),
        (
            "failed to resolve host 'h': [Errno -2]\nmore",
            "The server can't be reached: failed to resolve host 'h': [Errno -2].",
        ),
    ],
)
def test_no_connection(message: str, sentence: str) -> None:
    found = errors.explain(raised(psycopg.OperationalError, message))
    assert (type(found), found.message) == (errors.ServerError, sentence)


@pytest.mark.parametrize(
    "said",
    [
        'relation "pymig.status" does not exist',
        'schema "pymig" does not exist',
        "function pymig.plan(p_entity => unknown) does not exist",
        "procedure pymig.start_sync(p_entity => unknown) does not exist",
    ],
)
@pytest.mark.parametrize("kind", [pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedFunction])
def test_not_installed(kind: type[psycopg.Error], said: str) -> None:
    found = errors.explain(raised(kind, said, str(kind.sqlstate)))
    assert isinstance(found, errors.NotInstalledError)
    assert "pymig install" in found.hint


def test_a_table_that_is_called_like_pymig() -> None:
    said = 'relation "pymig_plant.samples" does not exist'
    found = errors.explain(raised(pg.UndefinedTable, said, "42P01"))
    assert (type(found), found.message) == (errors.UsageError, f"{said}.")


@pytest.mark.parametrize(
    ("said", "grant"),
    [
        ("permission denied for schema pymig", "GRANT USAGE ON SCHEMA pymig"),
        ("permission denied for schema plant", "GRANT CREATE ON SCHEMA plant"),
        ("permission denied for database fleet", "GRANT CREATE ON DATABASE fleet"),
        ("permission denied for table samples", "as the owner of samples"),
        ("must be owner of table samples", "as the owner"),
    ],
)
def test_what_to_grant(said: str, grant: str) -> None:
    found = errors.explain(raised(pg.InsufficientPrivilege, said, "42501"))
    assert isinstance(found, errors.PrivilegeError)
    assert grant in found.hint
    page = found.hint.split()[-6]
    assert ((checkout() or pytest.skip("no checkout")) / page).is_file()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (ValueError("bad.\nmore"), "Something unexpected went wrong: ValueError: bad."),
        (KeyError(), "Something unexpected went wrong: KeyError."),
        (errors.UsageError("No."), "No."),
        (psycopg.ProgrammingError('missing "="'), 'missing "=".'),
        (raised(pg.DivisionByZero, "zero", "22012"), "zero (SQLSTATE 22012)."),
    ],
)
def test_anything_is_one_sentence(given: Exception, sentence: str) -> None:
    assert errors.unexpected(given).message == sentence


def test_exit_codes_tell_kinds_apart() -> None:
    codes = [kind.exit_code for kind in PymigError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert not {0, 1} & set(codes)
