"""Retired rows to a compressed file and back: none is lost, whatever goes wrong."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.rows import dict_row

from pymig import db as pymig_db
from pymig.archive import bring_in, export
from pymig.errors import UsageError
from tests.conftest import Database

CREATE: LiteralString = """
CREATE TABLE n (id bigint GENERATED ALWAYS AS IDENTITY, ship text, ch text, ts timestamp, s text,
    twice int GENERATED ALWAYS AS (length(s) * 2) STORED, PRIMARY KEY (ship, ch, ts));
INSERT INTO n (ship, ch, ts, s) SELECT e, 'c' || c, '2024-01-01'::timestamp + t * interval '6 min',
    CASE t % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'a,"b"\\n\\\\.' ELSE 'v' || t END
FROM unnest('{X,Y}'::text[]) AS e, generate_series(1, 3) AS c, generate_series(0, 99) AS t;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{s}');
"""
ALL: LiteralString = "SELECT n::text FROM n"
ARCHIVED: LiteralString = "SELECT a::text FROM n_archive AS a WHERE ship = %s"


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """Two ships, both finalized: half of ten hours is in the archive."""
    conn = db.connect()
    conn.execute(CREATE)
    for ship in "XY":
        for call in ("migrate", "certify", "cut_over"):
            conn.execute(f"CALL pymig.{call}(%s)".encode(), [ship])
        conn.execute("CALL pymig.finalize(%s, '5 hours')", [ship])
    return conn


@pytest.fixture
def own(db: Database) -> Iterator[pymig_db.Connection]:
    """A connection as the command line has one."""
    with psycopg.connect(db.url, autocommit=True, row_factory=dict_row) as own:
        yield own


def _archived(conn: psycopg.Connection[Any], ship: str) -> Counter[Any]:
    return Counter(conn.execute(ARCHIVED, [ship]).fetchall())


def test_there_and_back(
    conn: psycopg.Connection[Any], own: pymig_db.Connection, tmp_path: Path
) -> None:
    """All columns of one ship's rows as they were; the other's stay; restore_narrow goes on."""
    path = tmp_path / "x.csv.gz"
    before, other = _archived(conn, "X"), _archived(conn, "Y")
    assert export(own, None, "X", path) == before.total() > 100
    assert (_archived(conn, "X"), _archived(conn, "Y")) == (Counter(), other)
    with gzip.open(path, "rt", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "ship", "ch", "ts", "s", "twice"]
    assert len(rows) == before.total()
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv.gz"]
    assert bring_in(own, "n", path) == before.total()
    assert _archived(conn, "X") == before
    conn.execute("CALL pymig.restore_narrow('X')")
    assert conn.execute("SELECT count(*) FROM n WHERE ship = 'X'").fetchone() == (300,)
    assert conn.execute("SELECT count(*) FROM n WHERE s = ''").fetchone() != (0,)


def test_no_file_is_overwritten(
    conn: psycopg.Connection[Any], own: pymig_db.Connection, tmp_path: Path
) -> None:
    """Nothing moves where there is a file of that name, or no such folder."""
    path = tmp_path / "x.csv.gz"
    path.write_text("mine")
    before = _archived(conn, "X")
    with pytest.raises(UsageError, match="exists"):
        export(own, None, "X", path)
    with pytest.raises(UsageError, match="can't be written: No such file"):
        export(own, None, "X", tmp_path / "nowhere" / "x.csv.gz")
    assert (path.read_text(), _archived(conn, "X")) == ("mine", before)
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv.gz"]


def test_a_full_disk(
    conn: psycopg.Connection[Any],
    own: pymig_db.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that does not get to the disk leaves all rows where they were."""
    before = _archived(conn, "X")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        export(own, None, "X", tmp_path / "x.csv.gz")
    assert _archived(conn, "X") == before
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_export(
    conn: psycopg.Connection[Any], own: pymig_db.Connection, tmp_path: Path
) -> None:
    """An unknown ship leaves no empty file behind."""
    with pytest.raises(UsageError, match="no rows of 'Z'"):
        export(own, None, "Z", tmp_path / "z.csv.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["cut", "garbled", "plain", "foreign"])
def test_a_file_that_is_none(
    conn: psycopg.Connection[Any], own: pymig_db.Connection, tmp_path: Path, harm: str
) -> None:
    """A file cut short, garbled, not packed, or of another table brings nothing in."""
    path = tmp_path / "x.csv.gz"
    export(own, None, "X", path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif harm == "garbled":
        packed = bytearray(path.read_bytes())
        packed[40:60] = bytes(20)
        path.write_bytes(packed)
    elif harm == "plain":
        path.write_bytes(gzip.decompress(path.read_bytes()))
    else:
        path.write_bytes(gzip.compress(b"a,b,c,d,e,f\n1,X,c,2024-01-01,s,2\n"))
    with pytest.raises((UsageError, psycopg.errors.BadCopyFileFormat)):
        bring_in(own, None, path)
    assert _archived(conn, "X") == Counter()


def test_no_archive(db: Database, tmp_path: Path) -> None:
    """Before the first finalize there is none."""
    with (
        psycopg.connect(db.url, autocommit=True, row_factory=dict_row) as own,
        pytest.raises(UsageError, match="no archive table"),
    ):
        export(own, None, "X", tmp_path / "x.csv.gz")
