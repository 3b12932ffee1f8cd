"""analyze: what it predicts is what migrate does; it reads a bounded part of the narrow table."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from pymig import analyze as analysis
from pymig.db import Session
from pymig.migrate import Options
from tests.conftest import Database
from tests.integration.test_cli import run
from tests.integration.test_sources import CASES

Rows = dict[str, dict[str, Any]]
CREATE: LiteralString = """
CREATE TABLE n (id bigserial, ship text, ch text, ts timestamp, f float8, i bigint, s text, b bool,
    fmt text, seq int);
INSERT INTO n (ship, ch, ts, fmt, f, i, s, b)
SELECT s.s, 'ch' || c, '2024-01-01'::timestamp + t * interval '1 min', (ARRAY['f','i','s','b'])[c],
    CASE c WHEN 1 THEN t / 7.0 END, CASE c WHEN 2 THEN t END, CASE c WHEN 3 THEN 'v' || t END,
    CASE c WHEN 4 THEN t % 2 = 0 END
FROM unnest('{X,Y}'::text[]) AS s, generate_series(1, 4) AS c, generate_series(1, 200) AS t;
"""
BY_KEY: LiteralString = "ALTER TABLE n ADD PRIMARY KEY (ship, ch, ts)"
BY_TIME: LiteralString = "CREATE INDEX ON n (ship, ts)"
FORMATS: LiteralString = """'{f,i,s,b}', 'fmt', '{"f":"f","i":"i","s":"s","b":"b"}'"""
NO_FORMATS: LiteralString = "'{f,i,s,b}'"
#: Rows that can't be cells, each kind in another number, and what is wrong with them.
PLANTED: Final[dict[str, tuple[LiteralString, int]]] = {
    "unknown_format": ("fmt = 'what', s = 'x' WHERE ch = 'ch3' AND t BETWEEN 1 AND 2", 2),
    "other_column": ("fmt = 's', f = 1, s = NULL WHERE ch = 'ch3' AND t BETWEEN 11 AND 13", 3),
    "several_values": ("f = 1, s = 'x' WHERE ch = 'ch3' AND t BETWEEN 21 AND 24", 4),
    "no_time": ("ts = NULL WHERE ch = 'ch3' AND t BETWEEN 31 AND 35", 5),
    "no_channel": ("ch = NULL WHERE ch = 'ch3' AND t BETWEEN 41 AND 46", 6),
    "type_mismatch": ("fmt = 's', s = 'x', f = NULL WHERE ch = 'ch1' AND t BETWEEN 1 AND 7", 7),
    "number out of range": (
        "fmt = 'i', f = NULL, i = 9007199254740993 WHERE ch = 'ch1' AND t BETWEEN 11 AND 18",
        8,
    ),
}


def _prepare(
    db: Database, index: LiteralString = BY_KEY, values: LiteralString = FORMATS
) -> psycopg.Connection[Any]:
    conn = db.connect()
    conn.execute(CREATE)
    conn.execute(index)
    conn.execute(
        f"CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', {values},"
        " p_tie_break => '{id}')"
    )
    return conn


def _plant(conn: psycopg.Connection[Any], what: str) -> None:
    change, _ = PLANTED[what]
    condition = change.replace("t BETWEEN", "extract(epoch FROM ts - '2024-01-01') / 60 BETWEEN")
    conn.execute(f"UPDATE n SET {condition} AND ship = 'X'".encode())


def _analyze(conn: psycopg.Connection[Any], entity: str = "X", **arguments: Any) -> Rows:
    """The rows of analyze by item, after checking their form and that nothing was written."""
    names = sql.SQL("").join(
        sql.SQL(", {} => {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in arguments.items()
    )
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        rows = cursor.execute(
            sql.SQL("SELECT * FROM pymig.analyze({}{})").format(sql.Literal(entity), names)
        ).fetchall()
    assert {row["entity"] for row in rows} == {entity}
    assert all(row["level"] in ("green", "yellow", "red") for row in rows)
    assert all((row["level"] == "green") == (row["advice"] is None) for row in rows), rows
    for row in rows:
        assert row["value"] and not row["value"].endswith((" ", ":")), row
        assert ("formats: " in row["value"]) == (row["item"] == "unknown format"), row
    items = [row["item"] for row in rows]
    assert len(set(items)) == len(items) or "type mismatch" in items
    return {row["item"]: row for row in rows}


def _quarantine(conn: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(conn.execute("SELECT reason, count(*) FROM pymig.quarantine GROUP BY 1").fetchall())


def _predicted(rows: Rows) -> dict[str, int]:
    predicted: dict[str, int] = {}
    for row in rows.values():
        if reason := (row["detail"] or {}).get("reason"):
            predicted[reason] = predicted.get(reason, 0) + row["detail"]["rows"]
    return predicted


def test_a_ship_in_order(db: Database) -> None:
    """All green, and every figure as the table has it."""
    conn = _prepare(db)
    conn.execute("ANALYZE n")
    rows = _analyze(conn)
    assert list(rows) == ["rows", "times", "channels", "rows per hour", "growth", "data quality"]
    assert {row["level"] for row in rows.values()} == {"green"}, rows
    assert rows["rows"]["detail"]["rows"] == 800
    assert rows["channels"]["detail"]["channels"] == 4
    assert rows["channels"]["detail"]["types"] == {"float8": 1, "int8": 1, "text": 1, "bool": 1}
    hours = [hour["rows"] for hour in rows["rows per hour"]["detail"]["hours"]]
    assert hours == [0] * 20 + [80, 240, 240, 240]
    assert rows["growth"]["detail"] == {"rows_a_day": 800, "newest": 240, "week_before": 0}
    assert rows["data quality"]["value"] == (
        "0 of 800 rows looked at would go to quarantine (all there are)"
    )


@pytest.mark.parametrize(
    ("index", "values", "column_types", "planted"),
    [
        (BY_KEY, FORMATS, "native",
         ["unknown_format", "other_column", "type_mismatch", "number out of range"]),
        (BY_KEY, NO_FORMATS, "native", ["several_values"]),
        (BY_TIME, FORMATS, "text",
         ["unknown_format", "other_column", "no_time", "no_channel", "type_mismatch"]),
    ],
    ids=["by_key", "without_format", "by_time"],
)  # fmt: skip
def test_prediction_is_the_outcome(
    db: Database,
    index: LiteralString,
    values: LiteralString,
    column_types: str,
    planted: list[str],
) -> None:
    """Rows of every kind are planted; quarantine has afterwards what was predicted, by reason."""
    conn = _prepare(db, index, values)
    for what in planted:
        _plant(conn, what)
    rows = _analyze(conn, p_column_types=column_types)
    assert rows["data quality"]["detail"]["is_all"]
    conn.execute("CALL pymig.migrate('X', p_column_types => %s)", [column_types])
    outcome = _quarantine(conn)
    assert _predicted(rows) == outcome
    assert sum(outcome.values()) == rows["data quality"]["detail"]["quarantined"]
    wanted: dict[str, int] = {}
    for what in planted:
        if what == "type_mismatch" and column_types == "text":
            continue  # text columns take everything
        reason = "type_mismatch" if what == "number out of range" else what
        wanted[reason] = wanted.get(reason, 0) + PLANTED[what][1]
    assert outcome == wanted
    assert _predicted(_analyze(conn, p_column_types=column_types)) == wanted  # migrated: the same


def test_duplicates(db: Database) -> None:
    """Rows that another one hides are counted; the one with the highest tie-break is the cell."""
    conn = _prepare(db, BY_TIME)
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, i) SELECT ship, ch, ts, fmt, -1 FROM n"
        " WHERE ship = 'X' AND ch = 'ch2' AND i <= 9"
    )
    found = _analyze(conn)["duplicates"]
    assert (found["level"], found["detail"]) == ("yellow", {"rows": 9, "of": 809})
    conn.execute("CALL pymig.migrate('X')")
    assert conn.execute("SELECT count(*) FROM n_x WHERE ch2 = '-1'").fetchone() == (9,)
    assert _quarantine(conn) == {}


def test_duplicates_of_one_grain(db: Database) -> None:
    """Samples that become one row are duplicates, too, in a source with a unique key."""
    conn = db.connect()
    conn.execute(CREATE)
    conn.execute(BY_KEY)
    conn.execute(
        "CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{f,i,s,b}',"
        " p_time_grain => '2 minutes')"
    )
    assert _analyze(conn)["duplicates"]["detail"] == {"rows": 396, "of": 800}  # t = 1 and 200 are
    conn.execute("CALL pymig.migrate('X')")
    assert conn.execute("SELECT count(*) FROM n_x").fetchone() == (101,)  # alone


def test_what_is_no_fault_but_worth_knowing(db: Database) -> None:
    """NULL values, long texts and drifted types: cells as they are, so nothing in quarantine."""
    conn = _prepare(db)
    conn.execute("UPDATE n SET f = NULL WHERE ship = 'X' AND ch = 'ch1' AND f <= 10 / 7.0")
    conn.execute("UPDATE n SET s = repeat('x', 2000 + g) FROM generate_series(0, 1) AS g"
                 " WHERE ship = 'X' AND s = 'v' || 5 + g")  # fmt: skip
    conn.execute("UPDATE n SET fmt = 's', s = i::text, i = NULL WHERE ship = 'X' AND i <= 3")
    rows = _analyze(conn)
    found = {
        item: (rows[item]["level"], rows[item]["detail"]["rows"], rows[item]["detail"]["channels"])
        for item in ("NULL values", "long text", "type drift")
    }
    assert found == {
        "NULL values": ("yellow", 10, ["ch1"]),
        "long text": ("yellow", 1, ["ch3"]),
        "type drift": ("yellow", 3, ["ch2"]),
    }
    assert rows["data quality"]["level"] == "green"
    native = _analyze(conn, p_column_types="native")
    assert "type drift" not in native
    assert native["type mismatch"]["detail"]["rows"] == 3
    conn.execute("CALL pymig.migrate('X')")
    assert _quarantine(conn) == {}
    assert conn.execute("SELECT count(*) FROM n_x WHERE ch1 IS NULL").fetchone() == (10,)
    assert "type mismatch" not in _analyze(conn, p_column_types="native")  # it has text columns


def test_a_ship_without_rows(db: Database) -> None:
    """One that was migrated and whose rows are gone; and a narrow table that is gone."""
    conn = _prepare(db)
    conn.execute("CALL pymig.migrate('X')")
    conn.execute("DELETE FROM n WHERE ship = 'X'")
    rows = _analyze(conn)
    assert rows["channels"]["detail"]["channels"] == 0
    assert rows["data quality"]["detail"]["rows"] == 0
    conn.execute("DROP TABLE n CASCADE")
    rows = _analyze(conn)
    assert rows["data"]["value"] == "The narrow table is gone."


def test_one_in_ten_is_red(db: Database) -> None:
    """Up to a tenth of the rows is yellow; more says that something is wrong from the ground up."""
    conn = _prepare(db)
    conn.execute("UPDATE n SET fmt = 'F' WHERE ship = 'X' AND f <= 80 / 7.0")
    rows = _analyze(conn)
    assert rows["data quality"]["level"] == rows["unknown format"]["level"] == "yellow"
    conn.execute("UPDATE n SET fmt = 'F' WHERE ship = 'X' AND f <= 81 / 7.0")
    rows = _analyze(conn)
    assert rows["data quality"]["level"] == rows["unknown format"]["level"] == "red"
    assert "channel ch1; formats: F" in rows["unknown format"]["value"]


def test_times(db: Database) -> None:
    """Rows of the future and of infinity are said, and don't hide what comes now."""
    conn = _prepare(db)
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, i) VALUES ('X', 'ch2', now() + interval '1 year', 'i',"
        " 1), ('Y', 'ch2', '-infinity', 'i', 1), ('Z', 'ch2', 'infinity', 'i', 1)"
    )
    rows = _analyze(conn)
    assert (rows["times"]["level"], "future" in rows["times"]["advice"]) == ("yellow", True)
    assert rows["growth"]["detail"]["newest"] == 240
    assert rows["data quality"]["detail"]["rows"] == 801
    rows = _analyze(conn, "Y")
    assert (rows["times"]["level"], "-infinity" in rows["times"]["advice"]) == ("yellow", True)
    conn.execute("INSERT INTO n (ship, ch, ts, fmt, i) VALUES ('W', 'ch2', '-infinity', 'i', 1)")
    for entity in ("W", "Z"):
        rows = _analyze(conn, entity)
        assert rows["rows per hour"]["value"] == "none up to now"
        assert rows["data quality"]["detail"]["rows"] == 1


def test_growth(db: Database) -> None:
    """The last hour against the same hour a week before; half as much again is yellow."""
    conn = _prepare(db)
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, i) SELECT 'X', 'ch2', ts - interval '7 days', 'i', 1"
        " FROM n WHERE ship = 'X' AND ch IN ('ch1', 'ch2', 'ch3') ON CONFLICT DO NOTHING"
    )
    conn.execute("DELETE FROM n WHERE ship = 'X' AND ch = 'ch2' AND ts > '2024-01-01 03:00'")
    growth = _analyze(conn)["growth"]
    assert (growth["detail"]["week_before"], growth["detail"]["newest"]) == (60, 220)
    assert growth["level"] == "yellow"
    assert "; +267 % against the same hour a week before" in growth["value"]


def test_only_a_part_is_read(db: Database) -> None:
    """Of 20 days, a day's hours and the sampled buckets are, through the index."""
    conn = _prepare(db)
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, f) SELECT 'L', 'c' || c, '2024-01-01'::timestamp"
        " + t * interval '1 min', 'f', 1 FROM generate_series(1, 2) c, generate_series(1, 28800) t"
    )
    conn.execute("ANALYZE n")
    conn = db.connect()  # whose counters begin at nothing
    with conn.transaction():
        rows = {r[1]: r for r in conn.execute("SELECT * FROM pymig.analyze('L', p_sample => 6)")}
        scans, read = conn.execute(
            "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'n'"
        ).fetchone() or (0, 0)
    assert scans == 0
    assert 0 < read < 57_600 / 5
    quality = rows["data quality"]
    assert quality[5]["buckets"] <= 6
    assert quality[3].endswith(" whole buckets)")
    assert quality[5]["rows"] <= 6 * 120
    assert not quality[5]["is_all"]


def _quality(conn: psycopg.Connection[Any], share: float, most: int, budget: str) -> dict[str, Any]:
    """What is said of a sample of Y with other bounds than analyze's own."""
    row = conn.execute(
        "SELECT q.value, q.detail FROM pymig.source AS s CROSS JOIN pymig._analyze_quality(s, 'Y',"
        " (SELECT jsonb_agg(to_jsonb(l)) FROM pymig._layout(s, 'Y', 'text') AS l), 8, %s, %s,"
        " clock_timestamp() + %s::interval) AS q WHERE q.item = 'data quality'",
        [share, most, budget],
    ).fetchone()
    assert row
    return {"value": row[0], **row[1]}


@pytest.mark.parametrize("index", [BY_KEY, BY_TIME], ids=["by_key", "by_time"])
def test_bounds_hold_and_are_said(db: Database, index: LiteralString) -> None:
    """A share of each bucket's time, so many rows of it at most, and until the time is up."""
    conn = _prepare(db, index)
    whole = _quality(conn, 1, 1000, "1 min")
    assert (whole["rows"], whole["buckets"], whole["is_all"]) == (800, 4, True)
    share = _quality(conn, 0.5, 1000, "1 min")
    assert share["value"].endswith("(parts of 4 buckets)")
    assert (share["rows"] < 500, share["is_all"]) == (True, False)
    most = _quality(conn, 1, 50, "1 min")
    assert (most["rows"], most["is_all"]) == (200, False)
    time = _quality(conn, 1, 1000, "-1 s")
    assert (time["rows"], time["buckets"], time["is_all"]) == (84, 1, False)


def test_slices_keep_grains_whole(db: Database) -> None:
    """What is one row is never cut apart: both ends of a slice are those of grains."""
    conn = db.connect()
    conn.execute(CREATE)
    conn.execute(BY_KEY)
    conn.execute(
        "CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{f,i,s,b}',"
        " p_time_grain => '2 minutes')"
    )
    slices = conn.execute(
        "SELECT pymig._slice_condition(s, 5, 0.123) FROM pymig.source AS s, generate_series(1, 20)"
    ).fetchall()
    assert len(set(slices)) > 1
    for (condition,) in slices:
        first, last = re.findall(r"05:(\d\d):(\d\d(?:\.\d+)?)'", condition)
        assert (int(first[0]) % 2, first[1]) == (0, "00"), condition
        assert (int(last[0]) % 2, last[1]) == (1, "59.999999"), condition
        assert int(last[0]) - int(first[0]) == 7, condition  # 12 % of an hour, in grains


def test_counting_ends(db: Database) -> None:
    """At so many rows an hour, which is said."""
    conn = _prepare(db)
    row = conn.execute(
        "SELECT v.level, v.value, v.advice FROM pymig.source AS s CROSS JOIN"
        " pymig._analyze_volume(s, 'X', (SELECT jsonb_agg(to_jsonb(l)) FROM pymig._layout(s, 'X',"
        " 'text') AS l), 50, clock_timestamp() + '1 min'::interval) AS v WHERE v.item ~ 'hour'"
    ).fetchone()
    assert row
    assert (row[0], row[2]) == ("yellow", "Counting ended at 50 rows of each.")
    assert row[1].startswith("at least 0 to 50 in each of the 24 hours")


def test_hours_end_with_the_time(db: Database) -> None:
    """One hour is counted at least, the day reckoned from it, and said to be."""
    conn = _prepare(db)
    rows = _analyze(conn, p_budget="-1 s")
    assert rows["rows per hour"]["level"] == "yellow"
    assert "each of 1 of the 24 hours" in rows["rows per hour"]["value"]
    assert rows["growth"]["detail"]["rows_a_day"] == 24 * 240


def test_nothing_is_scanned_unasked(db: Database) -> None:
    """Where channels are not found through an index, a table of hours is not read for them."""
    conn = _prepare(db, BY_TIME)
    conn.execute("UPDATE pg_class SET reltuples = 1e9 WHERE relname = 'n'")
    rows = _analyze(conn)
    assert (rows["channels"]["level"], rows["channels"]["value"]) == ("yellow", "not looked for")
    assert rows["data quality"]["detail"]["rows"] == 800
    assert _analyze(conn, p_allow_scan=True)["channels"]["detail"]["channels"] == 4


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_other_sources(db: Database, case: Any) -> None:
    """Whatever times, ids, dictionaries and values: all is looked at, quarantine foretold."""
    conn = db.connect(options="-c statement_timeout=30s")
    conn.execute(case.create)
    conn.execute(case.rows)
    conn.execute(f"CALL pymig.register_source('plant', {case.arguments})".encode())
    rows = _analyze(conn, case.entity, p_sample=200, p_column_types="native")
    quality = rows["data quality"]["detail"]
    assert quality["is_all"]
    total = conn.execute(
        "SELECT count(*) FROM pymig.plant_cell WHERE entity::text = %s", [case.entity]
    ).fetchone()
    assert (quality["rows"],) == total
    conn.execute("CALL pymig.migrate(%s, p_column_types => 'native')", [case.entity])
    assert _predicted(rows) == _quarantine(conn)


def test_partitions(db: Database) -> None:
    """Through all partitions, also a default one, as if there were none."""
    conn = db.connect()
    conn.execute(
        CREATE.replace("seq int)", "seq int) PARTITION BY RANGE (ts)", 1).replace(
            "INSERT INTO n",
            "CREATE TABLE n1 PARTITION OF n FOR VALUES FROM ('2024-01-01') TO ('2024-01-01 02:00');"
            " CREATE TABLE n2 PARTITION OF n DEFAULT; INSERT INTO n",
            1,
        )
    )
    conn.execute(BY_KEY)
    conn.execute(f"CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', {FORMATS})")
    _plant(conn, "other_column")
    rows = _analyze(conn)
    assert rows["data quality"]["detail"]["rows"] == 800
    assert rows["growth"]["detail"]["rows_a_day"] == 800
    conn.execute("CALL pymig.migrate('X')")
    assert _predicted(rows) == _quarantine(conn) == {"other_column": 3}


def test_roles(db: Database) -> None:
    """Who may read sees all; who may not is told in a row why, and what helps."""
    conn = _prepare(db)
    role = sql.Identifier(f"watcher_{db.name}")
    conn.execute(sql.SQL("CREATE ROLE {}").format(role))
    conn.execute(sql.SQL("GRANT USAGE ON SCHEMA pymig TO {}").format(role))
    conn.execute(sql.SQL("GRANT SELECT ON pymig.source, pymig.entity TO {}").format(role))
    steps: tuple[tuple[LiteralString, str | None], ...] = (
        ("GRANT USAGE ON SCHEMA public TO {}", "GRANT SELECT ON public.n TO"),
        ("GRANT SELECT ON n TO {}", "GRANT SELECT ON ALL TABLES IN SCHEMA pymig TO"),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA pymig TO {}", None),
        ("ALTER TABLE n ENABLE ROW LEVEL SECURITY", "BYPASSRLS"),
    )
    try:
        for grant, advice in steps:
            conn.execute(sql.SQL(grant).format(role))
            conn.execute(sql.SQL("SET ROLE {}").format(role))
            rows = _analyze(conn)
            conn.execute("RESET ROLE")
            if advice:
                assert list(rows) == ["data"]
                assert rows["data"]["level"] == "red"
                assert advice in rows["data"]["advice"]
            else:
                assert rows["data quality"]["detail"]["rows"] == 800
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(role))
        conn.execute(sql.SQL("DROP ROLE {}").format(role))


def test_a_ship_that_is_not_there(db: Database) -> None:
    """As for plan: PM002."""
    conn = _prepare(db)
    with pytest.raises(psycopg.Error, match="has no rows") as caught:
        conn.execute("SELECT * FROM pymig.analyze('nobody')")
    assert caught.value.sqlstate == "PM002"


# --- the command line ---------------------------------------------------------------------------

EVIL: Final = """<script>alert("1")</script>&'"""


class _Page(HTMLParser):
    """The texts of a page, and its tags; an assertion fails where they are not closed in order."""

    VOID: Final = {"meta", "!doctype"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.mark.once
def test_report(db: Database, tmp_path: Path) -> None:
    """One file of its own: no script, no link, nothing of the data taken for markup."""
    conn = _prepare(db)
    conn.execute("UPDATE n SET ship = %s WHERE ship = 'Y'", [EVIL])
    conn.execute("UPDATE n SET fmt = '<b>', ch = '<i>' WHERE ship = %s AND ch = 'ch3'", [EVIL])
    file = tmp_path / "report.html"
    done = run(db.url, "analyze", "--html", str(file))
    assert done.code == 2
    assert "To be mended first: data quality, unknown format." in done.err
    html = file.read_text("utf-8")
    page = _Page(html)
    assert EVIL in page.texts  # as text
    assert any("channel <i>; formats: <b>" in text for text in page.texts)
    assert not {"script", "link", "img", "a", "iframe", "i", "b"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|url\(|@import|\bon\w+=|\bsrc=", html)
    rects = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert len(rects) == 2 * 24
    assert {r["height"] for r in rects[:24]} == {"0.0", "32.0", "96.0"}
    for text in ("200 of 800", "0 of 800", "data quality", "work_mem", "archiving", "red"):
        assert text in page.texts, text


@pytest.mark.once
def test_command(db: Database) -> None:
    """The same rows as text and as JSON, exit 0 where none is red; one ship where one is named."""
    _prepare(db).execute("UPDATE n SET fmt = 'what' WHERE ship = 'X' AND i = 1")
    done = run(db.url, "analyze", "--ship", "X", "--sample", "200", "--budget", "5")
    assert done.code == 0
    assert done.out.startswith("X\n")
    assert re.search(r"^yellow +unknown format +1 rows", done.out, re.MULTILINE)
    rows = json.loads(run(db.url, "analyze", "--ship", "X", "--json").out)
    assert {row["entity"] for row in rows} == {"X"}
    assert {row["item"]: row["detail"] for row in rows}["data quality"]["quarantined"] == 1


def test_of_many_ships_some(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest half and a random half; those that are named, always."""
    conn = _prepare(db)
    conn.execute(
        "INSERT INTO n (ship, ch, ts, fmt, i) SELECT 's' || s, 'ch2', '2024-01-01', 'i', 1"
        " FROM generate_series(1, 6) AS s; ANALYZE n"
    )
    monkeypatch.setattr(analysis, "MOST_SHIPS", 4)
    with Session(db.url, "test") as session:
        found = analysis.analyze(session, "all", Options(), sample=8, budget=5)
        named = analysis.analyze(session, "s1,s2,s3,s4,s5", Options(), sample=8, budget=5)
        conn.execute("TRUNCATE n")
        empty = analysis.analyze(session, "all", Options(), sample=8, budget=5)
    assert len(found.ships) == 8
    assert found.rows[0]["value"] == "4 of 8 looked at: half with most rows, half at random"
    entities = {row["entity"] for row in found.rows[1:]}
    assert len(entities) == 4
    assert {"X", "Y"} < entities
    assert {row["entity"] for row in named.rows} == {"s1", "s2", "s3", "s4", "s5"}
    assert [row["value"] for row in empty.rows] == ["none: the narrow table is empty"]
