"""The console's pages and controls against a real database, by Django's test client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from django.test import Client
from django.urls import get_resolver
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pymig.console.control import CONTROLS
from pymig.console.database import connect_as
from pymig.console.lists import LISTINGS
from pymig.console.settings import allowed_hosts
from pymig.errors import PrivilegeError, UsageError
from pymig.server import SUPERUSER
from tests.conftest import Database
from tests.console_site import AWKWARD, PASSWORD, browser_of, make_fleet, roles, site

HALF = timedelta(seconds=0.5)
OF_X = urlencode({"source": "n", "ship": "X"})
OF_Y = urlencode({"source": "n", "ship": AWKWARD})
PAGES = (
    "/", "/?q=x&sort=eta", "/charts", "/charts?minutes=360", "/controls", f"/ship?{OF_X}",
    f"/ship?{OF_Y}", "/quarantine", "/events", "/certificates", "/login",
    *(f"/{name}?{OF_X}" for name in LISTINGS),
)  # fmt: skip


@pytest.fixture
def conn(db: Database) -> Iterator[psycopg.Connection[Any]]:
    """A fleet, and the console that shows it."""
    conn = make_fleet(db)
    with site(db):
        yield conn


def _text(
    client: Client, address: str, status: int = 200, headers: dict[str, str] | None = None
) -> str:
    answer = client.get(address, headers=headers)
    assert answer.status_code == status, answer.content
    return answer.content.decode()


def _is_paused(conn: psycopg.Connection[Any], ship: str) -> bool:
    row = conn.execute(
        "SELECT paused_at IS NOT NULL FROM pymig.entity WHERE entity = %s", [ship]
    ).fetchone()
    assert row
    return bool(row[0])


def test_pages_show_what_is_there(conn: psycopg.Connection[Any]) -> None:
    """Without a login, in both languages, and as fragments; names are escaped."""
    conn.execute("CALL pymig.certify('X')")
    conn.execute("CALL pymig.pause(%s)", [AWKWARD])
    client = browser_of()
    for page in PAGES:
        for headers in ({}, {"HX-Request": "true"}, {"Accept-Language": "ko"}):
            text = _text(client, page, headers=headers)
            assert "<z>" not in text, page
            is_whole = "HX-Request" not in headers or page.startswith(("/controls", "/login"))
            assert ("<html" in text) == is_whole, page
    fleet = _text(client, "/")
    assert re.search(r'class="state verified">verified</span>', fleet)
    assert "Y &quot;&lt;z&gt;&amp;/" in fleet
    assert "paused by postgres since" in fleet
    assert 'action="/control' not in fleet
    ship = _text(client, f"/ship?{OF_X}")
    assert "<code>n_x</code>" in ship
    assert "all equal" in ship
    assert "c/2" in _text(client, f"/channels?{OF_X}&q=C/2")
    assert "c/1" not in _text(client, f"/channels?{OF_X}&q=C/2")
    assert "strange" in _text(client, "/quarantine")
    assert "strange" not in _text(client, "/quarantine?choice=no_time")
    assert "armed" in _text(client, f"/ship?{OF_Y}")
    assert "certified" in _text(client, "/events?choice=INFO")
    _text(client, "/ship?source=n&ship=nobody", 404)
    _text(client, "/nowhere", 404)
    _text(client, "/chunks", 404)


@pytest.mark.once
def test_lists_go_on_page_by_page(conn: psycopg.Connection[Any]) -> None:
    """A hundred rows at most, each exactly once."""
    conn.execute(
        "INSERT INTO pymig.event (level, what, detail)"
        " SELECT 'CRITICAL', 'made up', 'number ' || g FROM generate_series(1, 250) AS g"
    )
    client, address, found = browser_of(), "/events?choice=CRITICAL", []
    for count in (100, 100, 50):
        text = _text(client, address)
        numbers = re.findall(r"number (\d+)\s", text)
        assert len(numbers) == count
        found += numbers
        following = re.search(r'href="(\?[^"]*cursor[^"]*)"', text)
        address = "/events" + following[1].replace("&amp;", "&") if following else ""
        if count == 100:
            assert "CRITICAL" in address
    assert "First page" in text
    assert sorted(map(int, found)) == list(range(1, 251))
    for cursor in ("x", "[]", "[1,2]", '["1"]', "[1e9]", "[99999999999999999999]"):
        _text(client, f"/events?{urlencode({'cursor': cursor})}", 400)


def test_reader_sees_all_and_changes_nothing(conn: psycopg.Connection[Any], db: Database) -> None:
    """Over SQL and over the web, with what permissions.md grants."""
    with roles(db) as names:
        watcher = names["watcher"]
        as_watcher = make_conninfo(db.url, user=watcher, password=PASSWORD)
        with psycopg.connect(as_watcher, autocommit=True) as own:
            for name in ("figures()", "status", "list_certificates()", "throttle", "event"):
                own.execute(b"SELECT * FROM pymig." + name.encode())
            assert {may for _, _, may in own.execute("SELECT * FROM pymig.controls()")} == {False}
            for call in ("pause('X')", "resume()", "set_throttle('lock waits', 1)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    own.execute(b"CALL pymig." + call.encode())
        with site(Database(db.name, _AsRole(db, as_watcher), db.cleanup)):  # type: ignore[arg-type]
            for page in PAGES:
                _text(browser_of(), page)
        client = browser_of(watcher)
        for page in PAGES:
            text = _text(client, page)
            assert watcher in text
            assert not re.search(r"<button>(Pause|Resume|Set)<", text), page
        answer = client.post("/control/pause", {"p_source": "n", "p_entity": "X"})
        assert answer.status_code == 403
        assert "permission denied" in answer.content.decode()
        assert not _is_paused(conn, "X")


class _AsRole:
    """A cluster whose databases are met as another role."""

    def __init__(self, db: Database, url: str) -> None:
        self._db, self._url = db, url

    def url(self, _dbname: str) -> str:
        return self._url


def test_operator_without_superuser_controls(conn: psycopg.Connection[Any], db: Database) -> None:
    """Pause, resume, throttle: done by the role itself, which the events name."""
    with roles(db) as names:
        operator = names["operator"]
        client = browser_of(operator)
        assert re.search(r"<button>Pause<", _text(client, "/"))
        sent = {"p_source": "n", "p_entity": AWKWARD, "next": "/events"}
        answer = client.post("/control/pause", sent)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/events")
        assert _is_paused(conn, AWKWARD) and not _is_paused(conn, "X")
        assert "History waits" in _text(client, "/events")
        assert f"paused by {operator}" in _text(client, "/")
        client.post("/control/pause", {"p_source": "n", "p_entity": ""})
        client.post("/control/resume", {"p_source": "n"})
        assert not _is_paused(conn, AWKWARD)
        client.post("/control/set_throttle", {"p_condition": "lock waits", "p_max": "7.5"})
        limits = conn.execute("SELECT max_value FROM pymig.throttle WHERE condition = 'lock waits'")
        assert limits.fetchone() == (7.5,)
        client.post("/control/set_throttle", {"p_condition": "lock waits", "p_max": ""})
        limits = conn.execute("SELECT max_value FROM pymig.throttle WHERE condition = 'lock waits'")
        assert limits.fetchone() == (None,)
        events = conn.execute(
            "SELECT what, who FROM pymig.event WHERE what IN ('paused', 'resumed', 'throttle set')"
        ).fetchall()
        assert events == [
            (what, operator)
            for what in ("paused", "paused", "resumed", "throttle set", "throttle set")
        ]
        bad = client.post("/control/set_throttle", {"p_condition": "lock waits", "p_max": "x"})
        assert bad.status_code == 400
        wrong = client.post("/control/set_throttle", {"p_condition": "none", "p_max": "1"})
        assert (wrong.status_code, "there is no condition" in wrong.content.decode()) == (400, True)
        assert client.post("/control/drop", {}).status_code == 404
        assert client.get("/control/pause").status_code == 405
        with psycopg.connect(make_conninfo(db.url, user=operator, password=PASSWORD)) as own:
            for statement in (
                "UPDATE pymig.throttle SET measure = 'SELECT 1'",
                "UPDATE pymig.entity SET state = 'verified'",
                "INSERT INTO pymig.event (level, what, detail, who) VALUES ('INFO', '', '', 'me')",
                "CALL pymig.set_throttle('mine', 1, 'SELECT 1')",
                "SELECT FROM n",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    own.execute(statement.encode())
                own.rollback()


def test_every_control_sets_what_it_says(conn: psycopg.Connection[Any], db: Database) -> None:
    """For the source and for a ship, by a role that has just the GRANTs of an operator."""
    x, n = {"p_source": "n", "p_entity": "X"}, {"p_source": "n"}
    source, entity = "SELECT {} FROM pymig.source", "SELECT {} FROM pymig.entity WHERE entity = 'X'"
    cases: tuple[tuple[str, dict[str, str], str, Any], ...] = (
        ("set_workers", {**n, "p_workers": "3"}, source.format("workers"), 3),
        ("set_workers", {**n, "p_workers": ""}, source.format("workers"), None),
        ("set_workers", {**x, "p_workers": "2"}, entity.format("workers"), 2),
        ("set_chunk_target", {**n, "p_target": "0.5"}, source.format("chunk_target"), HALF),
        ("set_chunk_target", {**x, "p_target": "0.5"}, entity.format("chunk_target"), HALF),
        ("set_chunk_target", {**x, "p_target": ""}, entity.format("chunk_target"), None),
        ("set_priority", {**x, "p_priority": "7"}, entity.format("priority"), 7),
        ("pause", x, entity.format("paused_at IS NOT NULL"), True),
        ("cancel", x, entity.format("is_cancelled"), True),
        ("resume", x, entity.format("is_cancelled"), False),
        ("cancel", n, source.format("is_cancelled"), True),
        ("resume", n, source.format("is_cancelled"), False),
        (
            "set_alert",
            {"p_alert": "sync lag", "p_max": "5"},
            "SELECT max_value FROM pymig.alert WHERE alert = 'sync lag'",
            5,
        ),
        (
            "set_throttle",
            {"p_condition": "lock waits", "p_max": ""},
            "SELECT max_value FROM pymig.throttle WHERE condition = 'lock waits'",
            None,
        ),
    )
    assert {name for name, *_ in cases} == set(CONTROLS)
    with roles(db) as names:
        client = browser_of(names["operator"])
        for name, form, query, value in cases:
            answer = client.post(f"/control/{name}", form)
            assert answer.status_code == 302, (name, answer.content.decode())
            row = conn.execute(query.encode()).fetchone()
            assert row == (value,), (name, form)
        for name, form in (
            ("set_workers", {**n, "p_workers": "99"}),
            ("set_chunk_target", {**n, "p_target": "-1"}),
            ("set_chunk_target", {**n, "p_target": ""}),
            ("set_priority", {**x, "p_priority": ""}),
        ):
            assert client.post(f"/control/{name}", form).status_code == 400, name
        shown = _text(client, f"/ship?{OF_X}")
        assert re.search(r'name="p_priority" type="number" step="any"\s+value="7"', shown)
        who = conn.execute("SELECT DISTINCT who FROM pymig.event WHERE what = 'workers set'")
        assert who.fetchall() == [(names["operator"],)]


@pytest.mark.once
def test_login_and_sessions(conn: psycopg.Connection[Any], db: Database) -> None:
    """Wrong passwords and forged forms are refused, cookies are closed, a logout forgets."""
    with roles(db) as names:
        role = names["operator"]
        client = browser_of()
        for password in ("wrong", "", "wrong\0"):
            answer = client.post("/login", {"role": role, "password": password})
            assert answer.status_code == 403
            assert PASSWORD not in answer.content.decode()
        assert "sessionid" not in client.cookies
        assert client.post("/control/pause", {"p_source": "n"}).status_code == 403
        answer = client.post(
            "/login", {"role": role, "password": PASSWORD, "next": "https://evil.example/"}
        )
        assert answer.headers["Location"] == "/"
        cookie = client.cookies["sessionid"]
        assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
        assert client.post("/logout").status_code == 302
        assert client.post("/control/pause", {"p_source": "n"}).status_code == 403
        for _ in range(4):
            client.post("/login", {"role": role, "password": "wrong"})
        answer = client.post("/login", {"role": role, "password": PASSWORD})
        assert (answer.status_code, "Too many tries" in answer.content.decode()) == (403, True)
        assert not _is_paused(conn, "X")

        other = names["watcher"]
        strict = Client(enforce_csrf_checks=True, SERVER_NAME="127.0.0.1")
        form = {"role": other, "password": PASSWORD}
        assert strict.post("/login", form).status_code == 403
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', _text(strict, "/login"))
        assert token
        answer = strict.post("/login", {**form, "csrfmiddlewaretoken": token[1]})
        assert answer.status_code == 302
        forged = strict.post("/control/pause", {"p_source": "n", "next": "javascript:alert(1)"})
        assert "javascript:" not in forged.content.decode()
        assert (forged.status_code, "did not come from" in forged.content.decode()) == (403, True)


@pytest.mark.once
def test_nothing_is_shown_without_login_where_that_is_asked(db: Database) -> None:
    make_fleet(db)
    with site(db, require_login=True), roles(db) as names:
        client = browser_of()
        for page in PAGES:
            if page != "/login":
                answer = client.get(page)
                assert answer.status_code == 302
                assert answer.headers["Location"].startswith("/login?next=")
        fragment = client.get("/", headers={"HX-Request": "true"})
        assert fragment.headers["HX-Redirect"] == "/login?next=%2F"
        assert client.get("/healthz").status_code == 200
        assert "verified" in _text(browser_of(names["watcher"]), "/")


@pytest.mark.once
def test_answers_are_guarded(conn: psycopg.Connection[Any]) -> None:
    """Nothing inline, nothing cached, nothing framed; only names that are ours."""
    answer = browser_of().get("/")
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert Client(SERVER_NAME="evil.example").get("/").status_code == 400
    for page in PAGES:
        text = _text(browser_of(), page)
        assert not re.search(r"<style|<script(?! src=)| style=| on[a-z]+=", text), page
        assert not re.search(r'(src|href)="(https?:)?//', text), page
    assert len(list(get_resolver().url_patterns)) > len(LISTINGS)


@pytest.mark.once
def test_names_a_browser_may_ask_for() -> None:
    assert allowed_hosts("127.0.0.1", None) == ["127.0.0.1", "localhost", "[::1]"]
    assert "pymig.example.org" in allowed_hosts("127.0.0.1", "https://pymig.example.org:8443")
    assert "10.1.2.3" in allowed_hosts("10.1.2.3", None)
    assert "*" not in allowed_hosts("0.0.0.0", None)
    with pytest.raises(UsageError):
        allowed_hosts("127.0.0.1", "pymig.example.org")


@pytest.mark.once
def test_database_that_is_away(db: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Pages and fragments say so with 503, in one line of a log; it comes back by itself."""
    conn = make_fleet(db)
    with site(db) as console:
        client = browser_of()
        assert client.get("/").status_code == 200
        admin = psycopg.connect(db.cluster.url(), autocommit=True)
        name = sql.Identifier(db.name)
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a WHERE a.datname = %s",
            [db.name],
        )
        for headers in ({}, {"HX-Request": "true"}):
            text = _text(client, "/", 503, headers)
            assert "can't be read just now" in text
        assert _text(client, "/charts")
        console.sampler.take()
        assert client.get("/healthz").status_code == 200
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2 and all(line.startswith("pymig console: /: 503 ") for line in lines)
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        admin.close()
        assert "verified" in _text(client, "/")
    conn.close()


def test_samples_and_charts(conn: psycopg.Connection[Any], db: Database) -> None:
    """What happens between two samples is in the second; a chart shows it."""
    with site(db) as console:
        sampler = console.sampler
        sampler.take()
        conn.execute("CALL pymig.backfill(%s)", [AWKWARD])
        conn.execute("ANALYZE n")
        conn.execute("INSERT INTO n VALUES ('X', 'c/1', '2024-03-01', 1, NULL, 'd')")
        sampler.take()
        before, after = sampler.samples(60)
        assert "rows_done_rate" not in before.figures
        moved = after.figures["rows_done_rate"] * (after.at - before.at)
        assert moved == pytest.approx(150, rel=0.01)
        assert after.figures["bytes_rate"] > after.figures["rows_done_rate"]
        assert after.figures["pending"] == 1
        assert after.figures["sync_lag"] > 0
        assert after.figures["wal_bytes_rate"] > 0
        assert after.figures["quarantined"] == 1
        assert after.figures["database_bytes"] > 1e6
        assert 0 < after.figures["memory"] <= 100
        text = _text(browser_of(), "/charts", headers={"HX-Request": "true"})
        assert text.count("<svg") == 12
        assert text.count('class="line') + text.count(" line") > 11
        assert sampler.samples(0) == []


@pytest.mark.once
def test_login_needs_a_password_that_was_asked_for(db: Database) -> None:
    """Where the server trusts everybody who comes by its socket, a name proves nothing."""
    folder = db.cluster.socket_dir
    if folder is None:
        pytest.skip("this server has no socket")
    by_socket = make_conninfo(host=str(folder), port=db.cluster.port, user=SUPERUSER)
    with pytest.raises(PrivilegeError, match="without a password"):
        connect_as(by_socket, SUPERUSER, "anything")
    with pytest.raises(UsageError):
        connect_as(db.url, SUPERUSER, "")


def test_reads_can_not_write(conn: psycopg.Connection[Any], db: Database) -> None:
    """Even where the console's own role is a superuser."""
    with site(db) as console, pytest.raises(Exception, match="read-only transaction"):
        console.reader.run(lambda own: own.execute("CALL pymig.pause('X')"))
    assert not _is_paused(conn, "X")
