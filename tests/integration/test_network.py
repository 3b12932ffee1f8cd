"""What a connection of pymig's does when the network goes away."""

from __future__ import annotations

import socket
import threading

import pytest
from psycopg.conninfo import make_conninfo

from pymig import db as pymig_db
from pymig.errors import ServerError
from tests.conftest import Database
from tests.proxy import Proxy


def _through(proxy: Proxy, db: Database) -> str:
    return make_conninfo(db.url, port=proxy.port)


def test_a_session_outlives_cuts_refusals_and_freezes(db: Database) -> None:
    """It reconnects until the network is back, and the call that was cut off is made again."""
    with Proxy(db.cluster.port) as proxy, pymig_db.Session(_through(proxy, db), "test") as session:
        assert session.read("status") == []
        proxy.cut()
        assert session.read("status") == []
        with proxy.refusing():
            found: list[list[pymig_db.Row]] = []
            reader = threading.Thread(target=lambda: found.append(session.read("status")))
            before = proxy.connections
            reader.start()
            while proxy.connections < before + 2:
                reader.join(0.01)
            assert not found
        reader.join(30)
        assert found == [[]]
        with proxy.frozen():
            reader = threading.Thread(target=lambda: found.append(session.read("status")))
            reader.start()
            reader.join(0.1)
            assert reader.is_alive()
        reader.join(30)
        assert found == [[], []]


def test_an_impatient_session_gives_up_at_once(db: Database) -> None:
    """Whoever types a command with a wrong port wants to know."""
    with Proxy(db.cluster.port) as proxy, proxy.refusing():
        session = pymig_db.Session(_through(proxy, db), "test", patient=False)
        with session, pytest.raises(ServerError):
            session.read("status")


def test_a_peer_that_is_gone_is_noticed_in_half_a_minute(db: Database) -> None:
    """As measured behind a link that drops all: without the timeout a CALL hung for minutes."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("this system has no TCP_USER_TIMEOUT")
    with pymig_db.Session(db.url, "test") as session:

        def options(conn: pymig_db.Connection) -> list[int]:
            with socket.socket(fileno=socket.dup(conn.fileno())) as sock:
                return [
                    sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                ]

        assert session.run(options) == [1, 10, 5, 3, 25_000]
