"""The real command line in a process of its own: what it does, and how it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pymig.install import install
from tests.command import Done
from tests.command import run as run_command
from tests.conftest import Database
from tests.oracle import default_narrow, difference

Connection = psycopg.Connection[Any]
WIDE: Final = "tenant.tbl_data_timeseries_imo1"
CREATE: Final = """
CREATE SCHEMA tenant;
CREATE TABLE tenant.tbl_data_timeseries (
    id bigserial, ship_id text, data_channel_id text, created_time timestamp,
    server_created_time timestamp, bool_v bool, str_v text, long_v int8, double_v float8,
    value_format varchar(50), PRIMARY KEY (ship_id, data_channel_id, created_time));
CREATE INDEX ON tenant.tbl_data_timeseries (created_time DESC);
INSERT INTO tenant.tbl_data_timeseries (ship_id, data_channel_id, created_time, str_v, long_v,
    value_format)
SELECT s, 'main/' || c, '2024-01-01'::timestamp + t * interval '5 minutes',
    CASE c % 2 WHEN 0 THEN 'v' || t END, CASE c % 2 WHEN 1 THEN t END,
    CASE c % 2 WHEN 0 THEN 'String' ELSE 'Integer' END
FROM unnest('{imo1,imo2}'::text[]) s, generate_series(1, 6) c, generate_series(1, 60) t;
CREATE SCHEMA plant;
CREATE TABLE plant.samples (machine int, sensor text, ts timestamptz, v float8,
    PRIMARY KEY (machine, sensor, ts));
INSERT INTO plant.samples
SELECT m, 's' || s, '2024-01-01'::timestamptz + t * interval '1 minute', t
FROM generate_series(1, 2) m, generate_series(1, 3) s, generate_series(1, 30) t;
ANALYZE;
"""
ADD_PLANT: Final = (
    *("source", "add", "--name", "plant", "--narrow", "plant.samples", "--entity", "machine"),
    *("--channel", "sensor", "--time", "ts", "--value", "v"),
)


Pymig = Callable[..., Done]


def run(url: str, *arguments: str, **environment: str) -> Done:
    """Run the command line on a server; nothing it says may be a traceback."""
    done = run_command(arguments, {"DATABASE_URL": url, "COLUMNS": "80", **environment})
    assert "Traceback" not in done.out + done.err, done.err
    return done


@pytest.fixture
def conn(db: Database) -> Connection:
    """A database with pymig, the default narrow table and another one."""
    conn = db.connect()
    conn.execute(CREATE)
    return conn


@pytest.fixture
def pymig(db: Database, conn: Connection) -> Pymig:
    """The command line on that database, with the default source registered."""

    install(db.url)  # once more: there is the default table now

    def pymig(*arguments: str, **environment: str) -> Done:
        return run(db.url, *arguments, **environment)

    return pymig


def succeed(done: Done) -> str:
    """The output of a command that must succeed and have nothing to complain of."""
    assert (done.code, done.err) == (0, "")
    return done.out


def assert_refused(done: Done, code: int, *words: str) -> None:
    """One sentence and perhaps a hint on stderr, nothing on stdout, the documented exit code."""
    assert done.code == code, done
    assert done.out == ""
    sentence, *hints = done.err.splitlines()
    assert re.fullmatch(r"pymig: .+[.?]", sentence), done.err
    assert len(hints) <= 1
    for word in words:
        assert word in done.err


def test_one_ship_from_plan_to_rollback(pymig: Pymig, conn: Connection) -> None:
    assert "narrow rows" in succeed(pymig("plan", "--ship", "imo1"))
    assert pymig("status").out.startswith(("No ship", "ship"))
    out = succeed(pymig("migrate", "--ship", "imo1"))
    assert re.search(r"^imo1: verified after [\d.]+ s$", out, re.MULTILINE)
    assert difference(conn, default_narrow(), {"imo1"}) == []

    out = succeed(pymig("status"))
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^imo1 +verified +100 % +360 ", out, re.MULTILINE)
    row = next(r for r in json.loads(succeed(pymig("status", "--json"))) if r["entity"] == "imo1")
    assert (row["state"], row["rows_done"], row["wide_table"]) == ("verified", 360, WIDE)
    columns = conn.execute("SELECT * FROM pymig.status LIMIT 0").description or []
    assert set(row) == {column.name for column in columns}

    assert "imo1: every cell is equal\n" in succeed(pymig("verify", "--ship", "imo1"))
    assert succeed(pymig("start-sync", "--ship", "imo1")) == "imo1: verified\n"
    assert succeed(pymig("rollback", "--ship", "imo1")) == "imo1: rolled back\n"
    assert conn.execute("SELECT to_regclass(%s)", [WIDE]).fetchone() == (None,)
    assert succeed(pymig("rollback", "--ship", "imo1")) == "imo1: rolled back\n"
    assert succeed(pymig("rollback", "--ship", "all")) == "No ship is migrated: nothing to do.\n"


def test_steps_one_by_one(pymig: Pymig, conn: Connection) -> None:
    assert succeed(pymig("start-sync", "--ship", "imo2,imo1")) == "imo1: syncing\nimo2: syncing\n"
    assert_refused(pymig("verify", "--ship", "imo1"), 2, "imo1", "backfill")
    done = pymig("verify")
    assert (done.code, "2 of 2 ships are left: imo1, imo2." in done.err) == (6, True)
    succeed(pymig("backfill", "--ship", "all", "--workers", "2"))
    out = succeed(pymig("verify"))
    assert "imo1: every cell is equal\n" in out
    assert "imo2: every cell is equal\n" in out
    assert difference(conn, default_narrow(), {"imo1", "imo2"}) == []
    assert "imo2: rolled back\n" in succeed(pymig("rollback", "--ship", "all"))


def test_difference_is_told_once_and_repaired(pymig: Pymig, conn: Connection) -> None:
    succeed(pymig("migrate", "--ship", "all"))
    conn.execute(f"UPDATE {WIDE} SET \"main/1\" = 'x' WHERE created_time = '2024-01-01 01:00'")
    done = pymig("verify", "--ship", "imo1")
    assert done.code == 7
    assert (done.out + done.err).count("imo1") == 2  # once more in the hint
    assert "1 difference in 1 bucket." in done.err
    done = pymig("verify")
    assert done.code == 7
    assert "imo1: does not verify: 1 difference in 1 bucket. " in done.out
    assert "imo2: every cell is equal\n" in done.out
    succeed(pymig("verify", "--ship", "imo1", "--repair"))
    assert difference(conn, default_narrow(), {"imo1", "imo2"}) == []


def test_certified_and_cut_over(pymig: Pymig, conn: Connection, tmp_path: Path) -> None:
    succeed(pymig("migrate", "--ship", "all"))
    assert succeed(pymig("certificate")).startswith("No ship is certified")
    assert_refused(pymig("certificate", "--ship", "imo1"), 2, "imo1 was never certified.")
    assert_refused(pymig("cut-over", "--ship", "imo1"), 7, "no fresh certificate")
    assert succeed(pymig("certify", "--ship", "imo1")) == "imo1: certified\n"
    out = succeed(pymig("certificate", "--ship", "imo1"))
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^ +counts +yes *$", out, re.MULTILINE)
    (row,) = json.loads(succeed(pymig("certificate", "--json")))
    columns = conn.execute("SELECT * FROM pymig.certificate LIMIT 0").description or []
    assert set(row) == {*(column.name for column in columns), "fault"}
    assert (row["entity"], row["fault"], row["cells"]) == ("imo1", None, 360)
    conn.execute("CALL pymig.hold_cut_over('imo1')")
    assert succeed(pymig("release", "--ship", "imo1")) == "imo1: released\n"
    assert succeed(pymig("cut-over", "--ship", "imo1")) == "imo1: cut over\n"
    assert re.search(r"^imo1 +cut_over +100 %", succeed(pymig("status")), re.MULTILINE)
    conn.execute(f"UPDATE {WIDE}_rw SET \"main/1\" = '7' WHERE created_time = '2024-01-01 01:00'")
    conn.execute("CALL pymig.sync_pending()")
    assert difference(conn, default_narrow(), {"imo1", "imo2"}) == []
    asked = ("finalize", "--ship", "imo1", "--keep")
    assert_refused(pymig(*asked, "-1 days"), 2, "-1 days")
    out = succeed(pymig(*asked, "0 days"))
    assert out == "imo1: finalized; narrow rows older than 0 days are retired\n"
    assert_refused(pymig("rollback", "--ship", "imo1"), 6, "restore_narrow")
    export = ("archive", "export", "--ship", "imo1", "--to", str(tmp_path / "imo1.csv.gz"))
    assert "no longer in the archive table" in succeed(pymig(*export))
    assert_refused(pymig(*export), 2, "has no rows of 'imo1'")
    out = succeed(pymig("archive", "import", "--from", export[-1]))
    assert "are in the archive table again" in out
    out = succeed(pymig("restore-narrow", "--ship", "imo1"))
    assert out == "imo1: the narrow table has all of it again\n"
    assert difference(conn, default_narrow(), {"imo1", "imo2"}) == []
    succeed(pymig("rollback", "--ship", "imo1"))
    assert "no: it was rolled back" in succeed(pymig("certificate"))


def test_precheck(pymig: Pymig, conn: Connection, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    out = succeed(pymig("precheck", "--html", str(page)))
    assert re.search(r"^green +narrow table +can be served", out, re.MULTILINE)
    assert "can be served" in page.read_text()
    checks = {row["item"]: row for row in json.loads(succeed(pymig("precheck", "--json")))}
    assert "free: not visible" not in checks["disk"]["value"]  # the server is on this machine
    conn.execute("ALTER TABLE tenant.tbl_data_timeseries DROP CONSTRAINT tbl_data_timeseries_pkey")
    refused = pymig("precheck")
    assert (refused.code, refused.err) == (
        2,
        "pymig: To be mended first: narrow table.\nSee the rows marked red.\n",
    )


def test_routed(pymig: Pymig, conn: Connection) -> None:
    succeed(pymig("migrate", "--ship", "imo1"))
    out = succeed(pymig("compat-view"))
    assert out == "tenant.tbl_data_timeseries_compat can be read in place of the narrow table.\n"
    assert succeed(pymig("route", "--ship", "imo1", "--to", "wide")) == "imo1: read from wide\n"
    asked = ("route", "--ship", "imo1", "--to", "percent")
    assert_refused(pymig(*asked), 2, "percent")
    assert succeed(pymig(*asked, "--percent", "20")) == "imo1: read from wide by 20 %\n"
    assert re.search(r"^imo1 +verified +percent 20", succeed(pymig("routing")), re.MULTILINE)
    (row,) = json.loads(succeed(pymig("routing", "--json")))
    assert (row["entity"], row["routing"], row["percent"]) == ("imo1", "percent", 20)
    assert succeed(pymig("compat-view", "--drop")) == "The view is dropped.\n"
    gone = conn.execute("SELECT to_regclass('tenant.tbl_data_timeseries_compat')").fetchone()
    assert gone == (None,)


def test_install_and_uninstall(pymig: Pymig, conn: Connection) -> None:
    succeed(pymig("migrate", "--ship", "imo1"))
    assert succeed(pymig("install")) == "pymig is installed.\n"
    succeed(pymig("uninstall"))
    gone = "SELECT to_regnamespace('pymig'), to_regclass(%s)"
    assert conn.execute(gone, [WIDE]).fetchone() == (None, None)
    for words in ("status", "plan", "migrate --ship imo1", "rollback --ship all", "worker"):
        assert_refused(pymig(*words.split()), 4, "pymig is not installed", "pymig install")
    succeed(pymig("uninstall"))


def test_sources(pymig: Pymig) -> None:
    succeed(pymig(*ADD_PLANT, PYMIG_COLUMN_TYPES="native"))
    listed = json.loads(succeed(pymig("source", "list", "--json")))
    assert {row["source"]: row["column_types"] for row in listed} == {
        "plant": "native",
        "tbl_data_timeseries": "text",
    }
    assert "plant.samples" in succeed(pymig("source", "list"))
    assert_refused(pymig("plan", "--ship", "1"), 2, "which source?", "--source")
    assert_refused(pymig(*ADD_PLANT), 2, "plant")
    assert "wide table" in succeed(pymig("plan", "--ship", "1", "--source", "plant"))


def test_source_add_warns_of_publications(pymig: Pymig, conn: Connection) -> None:
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    done = pymig(*ADD_PLANT)
    assert done.code == 0
    assert "everything publish every new table" in done.err
    assert "Create the tables on the subscribers as well" in done.err


def test_environment_reaches_every_command(pymig: Pymig, conn: Connection) -> None:
    succeed(pymig(*ADD_PLANT))

    def plant(*arguments: str) -> str:
        return succeed(
            pymig(
                *arguments,
                PYMIG_SOURCE="plant",
                PYMIG_COLUMN_TYPES="native",
                PYMIG_STRATEGY="filter",
            )
        )

    assert "3 text" not in plant("plan", "--ship", "1")
    assert plant("start-sync", "--ship", "1") == "1: syncing\n"
    chosen = "SELECT column_types, strategy FROM pymig.entity WHERE entity = '1'"
    assert conn.execute(chosen).fetchone() == ("native", "filter")
    plant("backfill", "--ship", "1")
    plant("verify")
    assert [r["entity"] for r in json.loads(plant("status", "--json")) if r["wide_table"]] == ["1"]
    plant("migrate", "--ship", "2")
    # Said nowhere, the ship keeps what it has.
    succeed(pymig("start-sync", "--ship", "1", "--source", "plant"))
    assert conn.execute(chosen).fetchone() == ("native", "filter")
    assert plant("rollback", "--ship", "all") == "1: rolled back\n2: rolled back\n"


def test_wrong_ship_and_wrong_source(pymig: Pymig) -> None:
    for command in ("plan", "migrate", "verify"):
        done = pymig(command, "--ship", "imo1,nobody")
        assert_refused(done, 2, "'nobody'", "discover_entities")
    for words in ("migrate --ship imo1", "rollback --ship all", "status", "worker"):
        done = pymig(*words.split(), "--source", "nowhere")
        assert_refused(done, 2, "here is no source 'nowhere'", "Registered: tbl_data_timeseries")


def test_wrong_spans_of_time(pymig: Pymig) -> None:
    for words in ("set-chunk-target nonsense", "set-chunk-target 999999999999999years"):
        assert_refused(pymig(*words.split()), 2, "interval", "2 days")
    succeed(pymig("set-chunk-target", "500 ms"))


def test_missing_table_and_column(pymig: Pymig) -> None:
    for narrow in ("plant.nothing", "nowhere.samples", "not a name"):
        arguments = [narrow if word == "plant.samples" else word for word in ADD_PLANT]
        assert_refused(pymig(*arguments), 2)
    arguments = ["nothing" if word == "sensor" else word for word in ADD_PLANT]
    assert_refused(pymig(*arguments), 2, "plant.samples has no column nothing")


def test_server_down_and_database_missing(empty_db: Database) -> None:
    down = make_conninfo(empty_db.url, port=1)
    for words in ("install", "status", "migrate --ship imo1", "worker"):
        done = run(down, *words.split())
        assert_refused(done, 3, "The server can't be reached", "DATABASE_URL")
        assert done.seconds < 10
    missing = make_conninfo(empty_db.url, dbname="nowhere")
    for words in ("uninstall", "plan", "rollback --ship imo1"):
        done = run(missing, *words.split())
        assert_refused(done, 3, 'database "nowhere" does not exist')
        assert done.seconds < 10


def test_wrong_password_and_wrong_url(empty_db: Database) -> None:
    done = run(make_conninfo(empty_db.url, password="wrong"), "status")
    assert_refused(done, 3, "password authentication failed")
    assert_refused(run("nonsense", "status"), 2, "DATABASE_URL")
    assert_refused(run(empty_db.url, "status", PYMIG_WORKERS="many"), 1, "PYMIG_WORKERS")


def test_no_privilege(db: Database, pymig: Pymig, conn: Connection) -> None:
    role = f"{db.name}_stranger"
    conn.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'pw'; GRANT CONNECT ON DATABASE {} TO {}").format(
            *map(sql.Identifier, (role, db.name, role))
        )
    )
    url = make_conninfo(db.url, user=role, password="pw")
    try:
        for words in ("status", "plan", "migrate --ship imo1"):
            done = run(url, *words.split())
            assert_refused(done, 5, "schema pymig", "GRANT USAGE ON SCHEMA pymig")
        assert_refused(run(url, "install"), 5, "permissions.md")
        conn.execute(
            sql.SQL(
                "GRANT USAGE ON SCHEMA pymig TO {0};"
                " GRANT SELECT ON ALL TABLES IN SCHEMA pymig TO {0}"
            ).format(sql.Identifier(role))
        )
        succeed(run(url, "status"))
        assert_refused(run(url, "migrate", "--ship", "imo1"), 5)
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def test_no_privilege_to_install(empty_db: Database) -> None:
    role = f"{empty_db.name}_stranger"
    with empty_db.connect() as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'pw'").format(sql.Identifier(role)))
        done = run(make_conninfo(empty_db.url, user=role, password="pw"), "install")
        assert_refused(done, 5, f"GRANT CREATE ON DATABASE {empty_db.name}")
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_closed_pipe_is_silent(pymig: Pymig, db: Database) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from pymig.cli import main; main()", "source", "list", "--json"],
        env={**os.environ, "DATABASE_URL": db.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (141, "")
