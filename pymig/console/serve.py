"""Run the console: waitress serves Django, until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.core.wsgi import get_wsgi_application
from waitress.server import create_server
from waitress.trigger import trigger
from waitress.wasyncore import close_all

from pymig.console.database import Reader
from pymig.console.sampler import Sampler
from pymig.console.settings import LOOPBACK, configure
from pymig.console.state import Console
from pymig.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Where it listens (port 0: any that is free), where people find it, and who may look."""

    host: str = "127.0.0.1"
    port: int = 8808
    url: str | None = None
    require_login: bool = False


#: How long requests under way may take once the console stops, in seconds.
GRACE: Final = 5


@contextmanager
def listening(application: Any, host: str, port: int) -> Iterator[int]:
    """
    Serve a WSGI application from a thread; the port it got, any that is free where 0 was asked for.

    At the end requests under way are answered first. Then the thread closes its own sockets:
    closed from outside they would vanish under its select, and their numbers may be another's
    by then. Raises UsageError where host and port can't be had.
    """
    sockets: Any = {}
    try:
        server = create_server(
            application,
            sockets,
            host=host,
            port=port,
            threads=8,
            ident="pymig",
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise UsageError(
            f"The console can't listen on {host}:{port}: {error.strerror}.",
            "Choose another --host or --port.",
        ) from error
    waker: Any = trigger(sockets)
    loop = threading.Thread(target=server.run, name="pymig console", daemon=True)
    loop.start()
    try:
        yield getattr(server, "effective_port", port)
    finally:
        server.task_dispatcher.shutdown(timeout=GRACE)
        waker.pull_trigger(lambda: close_all(sockets))
        loop.join(GRACE)


def serve(
    conninfo: str, options: Options, say: Callable[[str], None], stop: threading.Event
) -> None:
    """Serve until stop is set. Raises UsageError where host and port can't be had."""
    reader = Reader(conninfo)
    console = Console(conninfo, reader, Sampler(reader), options.require_login)
    configure(console, options.host, options.url)
    with listening(get_wsgi_application(), options.host, options.port) as port:
        say(f"Console: {options.url or f'http://{options.host}:{port}'}")
        if options.host not in LOOPBACK and not (options.url or "").startswith("https://"):
            say("Passwords cross the network in the clear: put a proxy with TLS before it (--url).")
        console.sampler.start()
        stop.wait()
        console.sampler.stop()
    reader.close()
