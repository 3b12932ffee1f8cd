"""Each alert, and each event that a person has to look at, has its page in docs/alerts."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from pymig.paths import alembic_folder, checkout
from pymig.render import CORE_FOLDERS, render_folder
from tests.conftest import Database

TOP: Final = checkout() or Path()
FOLDER: Final = TOP / "docs/alerts"
INDEX: Final = FOLDER / "README.md"
PAGES: Final = sorted(set(FOLDER.glob("*.md")) - {INDEX})
PARTS: Final = ["What it means", "How to look", "What to do", "When it is over"]
ALERTS: Final = yaml.safe_load((TOP / "docs/prometheus/alerts.yml").read_text("utf-8"))
#: A level that is not the word INFO alone, and the kind of the event.
CALLS: Final = (
    r"pymig\._note\((?P<level>[^,]+), [^,]+, [^,]+, '(?P<what>[^']+)'",
    r"pymig\._note_once\((?P<level>[^,]+), [^,]+, '(?P<what>[^']+)'",
    r"INSERT INTO pymig\.event \([^)]*\)\s+"
    r"SELECT (?P<level>.+?), (?:[^,']+, )*?'(?P<what>[^']+)'",
)


def written_by_sql() -> dict[str, set[str]]:
    """Kinds of events with the levels they can have, INFO left out."""
    found: dict[str, set[str]] = {}
    for folder in CORE_FOLDERS:
        for name, sql in render_folder(folder):
            matches = [match for call in CALLS for match in re.finditer(call, sql, re.DOTALL)]
            for match in matches:
                levels = set(re.findall(r"WARNING|CRITICAL", match["level"]))
                if "v_level" in match["level"]:
                    levels = set(re.findall(r"v_level :?= '(WARNING|CRITICAL)'", sql))
                if levels:
                    found.setdefault(match["what"], set()).update(levels)
            # Those of r_due are named after the rules of pymig.alert, below.
            calls = re.findall(r"pymig\._note(?:_once)?\((?!'INFO'|p_level|r_due|text|\s)", sql)
            noted = [m for m in matches if "INFO" not in m["level"] and "_note" in m[0]]
            assert len(calls) == len(noted), f"{name}: a call that this test does not understand"
    rules = (alembic_folder() / "ddl/0001.up.sql").read_text("utf-8")
    for what, level in re.findall(r"^    \('([^']+)', '(WARNING|CRITICAL)', 'SELECT", rules, re.M):
        found.setdefault(what, set()).add(level)
    return found


def test_each_event_has_its_page() -> None:
    """Named after the kind; it says the level."""
    kinds = written_by_sql()
    assert len(kinds) > 25
    for what, levels in kinds.items():
        text = (FOLDER / f"{what.replace(' ', '-')}.md").read_text("utf-8")
        head = text.split("## ")[0]
        assert f"vent `{what}`" in head
        assert all(level in head for level in levels), what
        assert f"| `{what}` |" in INDEX.read_text("utf-8")


def test_each_alert_has_its_page() -> None:
    """The rule links to it, and it names the alert and its severity."""
    for rule in ALERTS["groups"][0]["rules"]:
        text = (TOP / rule["annotations"]["runbook_url"]).read_text("utf-8")
        severity = rule["labels"]["severity"]
        assert f"lert `{rule['alert']}`, {severity}" in text.split("## ")[0], rule["alert"]
        assert f"| `{rule['alert']}` |" in INDEX.read_text("utf-8")


def test_no_page_is_left_over() -> None:
    """None is of an alert or an event that is no more."""
    events = {f"{what.replace(' ', '-')}.md" for what in written_by_sql()}
    alerts = {
        Path(rule["annotations"]["runbook_url"]).name for rule in ALERTS["groups"][0]["rules"]
    }
    assert {page.name for page in PAGES} == events | alerts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_four_things(page: Path) -> None:
    """And is listed."""
    text = page.read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS
    assert all(part.strip() for part in re.split(r"^## .+$", text, flags=re.MULTILINE))
    assert f"({page.name})" in INDEX.read_text("utf-8")


def test_their_queries_run(db: Database) -> None:
    """Every SELECT of a page, as it stands there."""
    conn = db.connect()
    asked = 0
    for page in (INDEX, *PAGES):
        for block in re.findall(r"```sql\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for statement in re.sub(r"--.*", "", block).split(";"):
                if statement.strip().startswith("SELECT"):
                    conn.execute(statement.encode())
                    asked += 1
    assert asked > len(PAGES)
