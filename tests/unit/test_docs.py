"""docs/reference says what the code says, commands show an example, links lead somewhere."""

import re
from pathlib import Path

import pytest

from docs.__main__ import REFERENCE, commands, raise_sites, reference, static_reference
from pymig.errors import REGISTRY
from pymig.paths import checkout
from tests.conftest import Database

TOP = checkout() or Path()
PAGES = sorted([TOP / "README.md", *(TOP / "docs").rglob("*.md")])
OLD = "docs/reference is not up to date: run `make docs`"


@pytest.mark.parametrize("name", sorted(static_reference()))
def test_reference_of_python_is_up_to_date(name: str) -> None:
    assert (REFERENCE / name).read_text("utf-8") == static_reference()[name], OLD


def test_reference_of_database_is_up_to_date(db: Database) -> None:
    for name, text in reference(db.connect()).items():
        assert (REFERENCE / name).read_text("utf-8") == text, f"{name}: {OLD}"


@pytest.mark.parametrize(("path", "shown"), list(commands()))
def test_help_shows_an_example(path: str, shown: str) -> None:
    assert f"Example: {path}" in shown


def test_every_sqlstate_is_raised_and_registered() -> None:
    raised = {site.sqlstate for site in raise_sites()}
    assert raised == set(REGISTRY)


def test_every_error_has_a_hint() -> None:
    assert [site for site in raise_sites() if not site.hint] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_named_routines_exist(page: Path, db: Database) -> None:
    """CALL pymig.x and pymig.x( name what is there."""
    named = set(re.findall(r"\bpymig\.([a-z_]+)\(", page.read_text("utf-8")))
    routines = "SELECT proname FROM pg_proc WHERE pronamespace = 'pymig'::regnamespace"
    assert named <= {name for (name,) in db.connect().execute(routines)}
