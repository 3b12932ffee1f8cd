"""Alembic: up, down and up again is the same schema; after the last down pymig is gone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from pymig.freeze import HEAD, frozen_file, frozen_text
from pymig.install import install, uninstall
from pymig.paths import alembic_folder
from tests.conftest import Database
from tests.oracle import default_narrow, difference

CREATE: LiteralString = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text, data_channel_id text, created_time timestamp,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
CREATE FUNCTION tenant.own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER own BEFORE INSERT ON tenant.tbl_data_timeseries
    FOR EACH ROW EXECUTE FUNCTION tenant.own();
CREATE VIEW tenant.newest AS SELECT max(created_time) FROM tenant.tbl_data_timeseries;
COMMENT ON TABLE tenant.tbl_data_timeseries IS 'not pymig''s';
GRANT SELECT ON tenant.tbl_data_timeseries TO PUBLIC;
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, double_v,
    value_format)
SELECT s, 'c' || c, '2024-01-01'::timestamp + t * interval '5 min', t, 'Decimal'
FROM unnest('{A,B}'::text[]) AS s, generate_series(1, 700) AS c, generate_series(1, 3) AS t;
"""
_RESTRICT: Final = re.compile(r"^\\(un)?restrict .*$", re.MULTILINE)  # a random word per dump


def _dump(db: Database, *options: str) -> str:
    """What the server's own pg_dump says of the database."""
    program = db.cluster.binaries.bindir / "pg_dump"
    if not program.is_file():
        pytest.skip(f"{program} is missing")
    done = subprocess.run(
        [program, *options, "--dbname", db.url],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    return _RESTRICT.sub("", done.stdout)


def _config(db: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(alembic_folder()).replace("%", "%%"))
    config.attributes["conninfo"] = db.url
    return config


def _revisions() -> list[str]:
    script = ScriptDirectory(str(alembic_folder()))
    return [revision.revision for revision in script.walk_revisions()][::-1]


def _rolls_back(conn: psycopg.Connection[Any]) -> list[Any]:
    return conn.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname = 'pymig' UNION ALL"
        " SELECT tgname FROM pg_trigger WHERE tgname LIKE 'pymig%' UNION ALL"
        " SELECT relname FROM pg_class WHERE relname LIKE 'tbl_data_timeseries_a%'"
    ).fetchall()


def test_stairway(empty_db: Database) -> None:
    """Each step up, down and up again leaves the schema it made the first time."""
    config = _config(empty_db)
    revisions = _revisions()
    assert revisions[-1] == HEAD
    for before, revision in zip(["base", *revisions[:-1]], revisions, strict=True):
        lower = _dump(empty_db, "--schema-only")
        command.upgrade(config, revision)
        upper = _dump(empty_db, "--schema-only")
        assert upper != lower
        command.downgrade(config, before)
        assert _dump(empty_db, "--schema-only") == lower
        command.upgrade(config, revision)
        assert _dump(empty_db, "--schema-only") == upper


def test_install_again_changes_nothing(empty_db: Database) -> None:
    """`pymig install` twice, `pymig uninstall` twice: the second time is a no-op."""
    before = _dump(empty_db)
    install(empty_db.url)
    installed = _dump(empty_db)
    install(empty_db.url)
    assert _dump(empty_db) == installed
    uninstall(empty_db.url)
    uninstall(empty_db.url)
    assert _dump(empty_db) == before


@pytest.mark.parametrize("how_far", ["registered", "syncing", "verified", "rolled back"])
def test_uninstall_leaves_what_was_there(empty_db: Database, how_far: str) -> None:
    """From any state of a ship: schema and data as before, to the byte; the narrow table works."""
    conn = empty_db.connect()
    conn.execute(CREATE)
    before = _dump(empty_db)
    install(empty_db.url)
    assert conn.execute("SELECT count(*) FROM pymig.source").fetchone() == (1,)
    if how_far != "registered":
        conn.execute("CALL pymig.start_sync('A')")
        conn.execute("CALL pymig.start_sync('B', p_column_types => 'native')")
    if how_far in ("verified", "rolled back"):
        conn.execute("CALL pymig.migrate('A')")
        assert conn.execute("SELECT count(DISTINCT wide_table) FROM pymig.channel_map").fetchone()
        assert difference(conn, default_narrow(), {"A"}) == []
        conn.execute("UPDATE tenant.tbl_data_timeseries SET double_v = double_v WHERE long_v = 1")
    if how_far == "rolled back":
        conn.execute("CALL pymig.roll_back('A')")
    uninstall(empty_db.url)
    assert _rolls_back(conn) == []
    assert _dump(empty_db) == before
    conn.execute("UPDATE tenant.tbl_data_timeseries SET double_v = 1")
    conn.execute("TRUNCATE tenant.tbl_data_timeseries")


def test_roll_back_of_all_ships_leaves_only_the_schema_pymig(empty_db: Database) -> None:
    """Outside schema pymig the database is what it was, without uninstalling."""
    conn = empty_db.connect()
    conn.execute(CREATE)
    without = ("--exclude-schema=pymig",)
    before = _dump(empty_db, *without)
    install(empty_db.url)
    assert _dump(empty_db, *without) == before
    for ship in ("A", "B"):
        conn.execute("CALL pymig.migrate(%s)", [ship])
    assert _dump(empty_db, *without) != before
    for ship in ("A", "B"):
        conn.execute("CALL pymig.roll_back(%s)", [ship])
    assert _dump(empty_db, *without) == before


def test_head_is_what_sql_renders_to() -> None:
    """A revision never reads sql/; while the head is not released the two must be the same."""
    assert frozen_file().read_text("utf-8") == frozen_text(), "run: python -m pymig.freeze"


def test_revisions_do_not_read_sql() -> None:
    """Nothing under alembic/ names sql/ or renders a template."""
    for file in Path(alembic_folder()).rglob("*.py"):
        text = file.read_text("utf-8")
        assert "render" not in text and "sql_folder" not in text, file
