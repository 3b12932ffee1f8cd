"""pymig.cli without a database: options, exit codes, tables on narrow terminals, make."""

import io
import os
import subprocess
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from pymig import show
from pymig.cli import main
from pymig.cli.session import options_of
from pymig.errors import PymigError
from pymig.paths import checkout

ROW = {
    "source": "s",
    "entity": "imo9000001",
    "state": "syncing",
    "percent": 43.2,
    "rows_done": 123_456_789,
    "rows_per_second": 140_319,
    "eta": timedelta(seconds=4000),
    "sync_lag": timedelta(seconds=0.2),
    "sync_lag_p99": timedelta(seconds=0.4),
    "pending": 12_345,
    "quarantined": 7,
    "wide_table": "tenant.tbl_data_timeseries_imo9000001",
    "triggers": "armed",
    "workers_alive": 0,
    "last_error": None,
    "keys_lost": False,
    "sync": "direct",
    "held_up_by": None,
}
UUID = "0b9fba53-9b50-4b8a-a1a8-2f0fd5ac0a3f"


def printed(table: Any, width: int) -> list[str]:
    """The lines a terminal of this width shows."""
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue().splitlines()


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["pymig", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_environment_reaches_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMIG_SOURCE", "bus")
    monkeypatch.setenv("PYMIG_WORKERS", "5")
    monkeypatch.setenv("PYMIG_COLUMN_TYPES", "native")
    monkeypatch.setenv("PYMIG_STRATEGY", "json")
    options = options_of()
    assert (options.source, options.workers) == ("bus", 5)
    assert (options.column_types, options.strategy) == ("native", "json")


def test_flags_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMIG_SOURCE", "bus")
    monkeypatch.setenv("PYMIG_STRATEGY", "json")
    options = options_of(source="plant", strategy="filter", workers=3)
    assert (options.source, options.strategy, options.workers) == ("plant", "filter", 3)


def test_nothing_said_is_left_to_the_database() -> None:
    options = options_of()
    assert (options.source, options.column_types, options.strategy) == (None, None, None)


@pytest.mark.parametrize("entity", ["imo9000001", UUID])
def test_status_fits_80_columns(entity: str) -> None:
    lines = printed(show.status([{**ROW, "entity": entity}]), 80)
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0] == entity
    assert len(lines) == 3  # names, the ship, no worker
    assert "…" not in lines[1]
    assert {"ship", "state", "done", "pending", "quarantined"} <= set(lines[0].split())


def test_status_shows_all_where_there_is_room() -> None:
    lines = printed(show.status([ROW]), 200)
    assert lines[1].split()[-1] == "tbl_data_timeseries_imo9000001"
    assert {"left", "lag", "rows/s", "rows", "quarantined"} <= set(lines[0].split())


def test_status_says_errors_below() -> None:
    lines = printed(show.status([{**ROW, "last_error": "no room"}]), 80)
    assert lines[2] == "imo9000001: no room"


@pytest.mark.parametrize(
    ("item", "word"),
    [
        ({"triggers": "drifted"}, "Triggers"),
        ({"keys_lost": True}, "full"),
        ({"sync": "direct, paused"}, "pause"),
        ({"held_up_by": "paused by dba since today"}, "waits, paused by dba"),
    ],
)
def test_status_warns_below(item: dict[str, Any], word: str) -> None:
    calm = printed(show.status([{**ROW, "workers_alive": 1}]), 200)
    lines = printed(show.status([{**ROW, "workers_alive": 1, **item}]), 200)
    assert lines[:-1] == calm and word in lines[-1]


def test_plan_keeps_words_whole() -> None:
    items = {
        "disk needed": "9348 kB (the wide table and as much write-ahead log; the free space is "
        "not visible from SQL)",
        "strategy": "transpose first, then the fastest as measured on the first chunks",
    }
    rows = [
        {"entity": "X", "item": item, "value": value, "is_blocker": False}
        for item, value in items.items()
    ]
    words = " ".join(printed(show.plan(rows), 80)).split()
    assert set(" ".join(items.values()).split()) <= set(words)


@pytest.mark.parametrize("debug", [False, True])
def test_unexpected_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], debug: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the moon is full")

    monkeypatch.setenv("PYMIG_DEBUG", "")
    monkeypatch.setattr("pymig.cli.setup.read", fail)
    assert run_main(monkeypatch, *(["--debug"] if debug else []), "source", "list") == 1
    said = capsys.readouterr().err
    assert said.startswith("pymig: Something unexpected went wrong: RuntimeError: the moon is full")
    assert "--debug" in said
    assert ("Traceback" in said) == debug


@pytest.mark.parametrize("kind", PymigError.__subclasses__())
def test_exit_code_is_documented_and_true(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[PymigError]
) -> None:
    def fail(*_: object) -> None:
        raise kind("No.", "Do.")

    monkeypatch.setattr("pymig.cli.setup.read", fail)
    assert run_main(monkeypatch, "source", "list") == kind.exit_code
    assert capsys.readouterr().err == "pymig: No.\nDo.\n"
    top = checkout() or pytest.skip("no checkout")
    assert f"\n| {kind.exit_code} | " in (top / "docs/reference/cli.md").read_text("utf-8")


@pytest.mark.parametrize("command", ["migrate", "rollback", "start-sync", "backfill"])
def test_what_changes_a_ship_wants_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run_main(monkeypatch, command) == 2
    assert "Missing option '--ship'" in capsys.readouterr().err
    assert run_main(monkeypatch, command, "--ship", " ") == 2
    assert capsys.readouterr().err.startswith("pymig: No ship is named.")


@pytest.mark.parametrize("target", ["migrate", "rollback"])
def test_make_wants_a_ship(target: str) -> None:
    done = make(target)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"Say which: make {target} SHIP=X, a comma list, or SHIP=all." in done.stderr
    assert f'{target} --ship "${{SHIP:-all}}"' in make(target, "SHIP=all").stdout


@pytest.mark.parametrize("target", ["plan", "verify"])
def test_make_takes_all_where_nothing_changes(target: str) -> None:
    assert f'{target} --ship "${{SHIP:-all}}"' in make(target).stdout


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would run."""
    clean = {k: v for k, v in os.environ.items() if k not in ("SHIP", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "-n", *arguments],
        cwd=checkout() or pytest.skip("no checkout"),
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
