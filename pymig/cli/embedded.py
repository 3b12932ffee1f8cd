"""The demo, and the embedded server it runs on."""

from __future__ import annotations

from pymig.cli.app import app, server_app
from pymig.cli.options import Workers
from pymig.cli.output import OUT
from pymig.cli.session import conninfo, options_of
from pymig.errors import NotDoneError
from pymig.progress import waiting
from pymig.settings import Settings


@app.command(epilog="Example: pymig demo")
def demo(workers: Workers = None) -> None:
    """Simulate a fleet that sends, migrate it meanwhile, verify every cell, show the figures."""
    from pymig.demo import run_demo
    from pymig.server import demo_cluster

    options, settings = options_of(workers=workers), Settings.load()
    cluster = demo_cluster(settings.server_dir) if settings.uses_embedded_server else None
    code = run_demo(conninfo(), workers=options.workers, cluster=cluster, console=OUT)
    if code:
        raise NotDoneError("The demonstration failed.", "The table above says which ship.")


@server_app.command("start", epilog="Example: pymig server start")
def server_start() -> None:
    """Start the embedded server, making it first where there is none."""
    from pymig.server import demo_cluster

    cluster = demo_cluster(Settings.load().server_dir)
    with waiting(OUT, "the embedded server starts"):
        cluster.start()
    OUT.print(cluster.url(), markup=False)


@server_app.command("stop", epilog="Example: pymig server stop")
def server_stop() -> None:
    """Stop the embedded server; its data stays."""
    from pymig import companions
    from pymig.server import demo_cluster

    cluster = demo_cluster(Settings.load().server_dir)
    companions.stop(cluster.root)
    if cluster.is_running():
        with waiting(OUT, "the embedded server stops"):
            cluster.stop()
    OUT.print("The server is stopped.")


@server_app.command("clean", epilog="Example: pymig server clean")
def server_clean() -> None:
    """Stop the embedded server and remove its data."""
    from pymig import companions
    from pymig.server import demo_cluster

    cluster = demo_cluster(Settings.load().server_dir)
    companions.stop(cluster.root)
    with waiting(OUT, "the embedded server is removed"):
        cluster.remove()
    OUT.print("The server and its data are removed.")
