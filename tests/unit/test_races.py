"""The table of races says what the tests say: all of R1 to R30, tests and mutations that exist."""

from __future__ import annotations

import ast
import re

from pymig.paths import checkout

TOP = checkout()
assert TOP
PAGE = (TOP / "docs/explanation/races.md").read_text("utf-8")
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if re.match(r"\| R\d", line)]


def _functions() -> set[str]:
    """Names of all functions of tests/races, and of what a mutation is made by a loop."""
    names: set[str] = set()
    assert TOP
    for path in (TOP / "tests/races").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return names


def _named(cell: str) -> set[str]:
    names = re.findall(r"`(\w+)`", cell)
    return {re.sub(r"^no_commit_in_\w+", "no_commit_in", name) for name in names}


def test_every_race_is_there_once() -> None:
    assert [row[0].strip() for row in ROWS] == [f"R{n}" for n in range(1, 31)]


def test_every_race_names_a_test_and_what_turns_it_red() -> None:
    functions = _functions()
    for number, _, _, acted_out, red in ROWS:
        tests, mutations = _named(acted_out), _named(red)
        assert tests and all(name.startswith("test_") for name in tests), number
        assert mutations, number
        assert tests | mutations <= functions, (number, (tests | mutations) - functions)


def test_other_tests_named_on_the_page_exist() -> None:
    assert set(re.findall(r"`(test_\w+)`", PAGE)) <= _functions()
