"""pymig.settings: which server, and defaults from the environment."""

from pathlib import Path

import pytest

from pymig.errors import PymigError
from pymig.settings import SERVER_VARIABLES, Settings


def test_without_anything_the_embedded_server() -> None:
    settings = Settings.load()
    assert settings.uses_embedded_server
    with pytest.raises(PymigError, match="names a server"):
        _ = settings.conninfo


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://h/db", "postgresql://h/db"),
        ("postgres://h/db", "postgres://h/db"),
        ("postgresql+psycopg://h/db", "postgresql://h/db"),
        ("host=h dbname=db", "host=h dbname=db"),
    ],
)
def test_database_url(monkeypatch: pytest.MonkeyPatch, given: str, expected: str) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    settings = Settings.load()
    assert not settings.uses_embedded_server
    assert settings.conninfo == expected


@pytest.mark.parametrize("name", SERVER_VARIABLES)
def test_libpq_variables_choose_a_server(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "5432")
    settings = Settings.load()
    assert not settings.uses_embedded_server
    assert settings.conninfo == ""


@pytest.mark.parametrize("name", ["DATABASE_URL", "PGHOST", "PYMIG_WORKERS"])
def test_empty_is_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    settings = Settings.load()
    assert settings.uses_embedded_server
    assert settings.workers == 2


def test_how_to_connect_is_not_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "x")
    monkeypatch.setenv("PG_BINDIR", "/x")
    assert Settings.load().uses_embedded_server


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PYMIG_SOURCE": "bus",
        "PYMIG_WORKERS": "4",
        "PYMIG_COLUMN_TYPES": "native",
        "PYMIG_STRATEGY": "json",
        "PYMIG_SERVER_DIR": "/x",
        "PYMIG_DEBUG": "1",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.source, settings.workers) == ("bus", 4)
    assert (settings.column_types, settings.strategy) == ("native", "json")
    assert settings.server_dir == Path("/x")
    assert settings.debug


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYMIG_WORKERS", "0"),
        ("PYMIG_WORKERS", "many"),
        ("PYMIG_STRATEGY", "magic"),
        ("PYMIG_COLUMN_TYPES", "float"),
    ],
)
def test_wrong_value_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PymigError, match=rf"^{name} is '{value}': .*\.$") as caught:
        Settings.load()
    assert name in caught.value.hint
