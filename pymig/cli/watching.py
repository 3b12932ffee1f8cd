"""Tell others: metrics, the web console, alerts."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from pymig import show
from pymig.cli.app import alert_app, app
from pymig.cli.options import AlertConfig, AsJson, Logs, MetricsHost, MetricsPort, limit_of
from pymig.cli.output import OUT, begin_log, say, show_rows, stoppable
from pymig.cli.serving import pushing, serve_metrics
from pymig.cli.session import conninfo, open_session, read
from pymig.errors import PrivilegeError, UsageError
from pymig.progress import waiting


@app.command(epilog="Example: pymig metrics --port 9188")
def metrics(
    host: MetricsHost = "127.0.0.1", port: MetricsPort = 9188, log_format: Logs = None
) -> None:
    """Serve metrics for Prometheus at /metrics, until Ctrl-C."""
    begin_log(log_format)
    with stoppable() as stop, pushing(stop):
        serve_metrics(host, port)
        stop.wait()


@app.command(epilog="Example: pymig console --port 8808")
def console(
    host: MetricsHost = "127.0.0.1",
    port: MetricsPort = 8808,
    url: Annotated[
        str | None, typer.Option("--url", help="Where people find it, behind a proxy with TLS.")
    ] = None,
    require_login: Annotated[
        bool, typer.Option("--require-login", help="Show nothing to who has not logged in.")
    ] = False,
) -> None:
    """Show it all in a browser, with controls for who logs in as a role, until Ctrl-C."""
    try:
        from pymig.console.serve import Options as Served
        from pymig.console.serve import serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The console needs more packages; {error.name} is missing.",
            "Install them: pip install 'pymig[console]', or `make console` in a checkout.",
        ) from error
    with stoppable("Stopping.") as stop:
        serve(conninfo(), Served(host, port, url, require_login), say, stop)


@app.command(epilog="Example: pymig notify --config alerts.yml")
def notify(
    config: AlertConfig,
    digest: Annotated[
        float, typer.Option("--digest", min=0, help="Seconds between two digests of warnings.")
    ] = 900,
    test: Annotated[
        bool, typer.Option("--test", help="Send everybody a message, and end.")
    ] = False,
    log_format: Logs = None,
) -> None:
    """Tell people about events: CRITICAL at once, WARNING in a digest, all of them as a log."""
    from pymig import notify as notifier

    begin_log(log_format)
    if test:
        alert_test(config)
        return
    everybody = notifier.targets(config)
    read("source")  # says at once where there is no server, or no pymig
    with stoppable() as stop:
        notifier.watch(conninfo(), everybody, stop, digest)


@alert_app.command("test", epilog="Example: pymig alert test --config alerts.cfg")
def alert_test(config: AlertConfig) -> None:
    """Send everybody of the notifier's configuration a message."""
    from pymig import notify as notifier

    with waiting(OUT, "send"):
        everybody = notifier.test(config)
    for reached in everybody:
        say(f"Sent to {reached}")


@alert_app.command("list", epilog="Example: pymig alert list")
def alert_list(as_json: AsJson = False) -> None:
    """The rules with their limits, and what is over one now."""
    with open_session() as session:
        with suppress(PrivilegeError):  # who may only look sees what was measured last
            session.select("look_at_alerts")
        rows = session.select("list_alerts")
    show_rows(rows, as_json, show.alerts)


@alert_app.command("set", epilog="Example: pymig alert set 'sync lag' 5 --lasting '30 s'")
def alert_set(
    alert: Annotated[str, typer.Argument(help="Name of the rule, as in pymig alert list.")],
    limit: Annotated[str, typer.Argument(help="What is greater is told; off: nothing is.")],
    lasting: Annotated[
        str | None, typer.Option(help="How long it has to be greater before.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="INFO, WARNING or CRITICAL.")] = None,
) -> None:
    """Change the limit of a rule, at once for all that look."""
    with open_session() as session:
        session.call(
            "set_alert",
            p_alert=alert,
            p_max=None if limit == "off" else limit_of(f"{alert}={limit}")[1],
            p_lasting=lasting,
            p_level=level,
        )
    say(f"{alert}: {'not looked at' if limit == 'off' else f'told above {limit}'}")
