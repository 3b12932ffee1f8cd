"""Run the console: waitress serves Django, until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from django.core.wsgi import get_wsgi_application
from waitress.server import create_server

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


def serve(
    conninfo: str, options: Options, say: Callable[[str], None], stop: threading.Event
) -> None:
    """Serve until stop is set. Raises UsageError where host and port can't be had."""
    reader = Reader(conninfo)
    console = Console(conninfo, reader, Sampler(reader), options.require_login)
    configure(console, options.host, options.url)
    try:
        server = create_server(
            get_wsgi_application(),
            host=options.host,
            port=options.port,
            threads=8,
            ident="pymig",
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise UsageError(
            f"The console can't listen on {options.host}:{options.port}: {error.strerror}.",
            "Choose another --host or --port.",
        ) from error
    port = getattr(server, "effective_port", options.port)
    say(f"Console: {options.url or f'http://{options.host}:{port}'}")
    if options.host not in LOOPBACK and not (options.url or "").startswith("https://"):
        say("Passwords cross the network in the clear: put a proxy with TLS before it (--url).")
    console.sampler.start()
    threading.Thread(target=server.run, name="pymig console", daemon=True).start()
    stop.wait()
    console.sampler.stop()
    server.close()
    reader.close()
