"""The program: its groups of commands, and how every error ends it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pymig import errors
from pymig.cli.output import end_quietly, fail
from pymig.errors import InterruptedByUser

app = typer.Typer(
    help="Migrate a narrow time-series table online into one wide table per ship.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
source_app = typer.Typer(help="Register narrow tables, and list them.", no_args_is_help=True)
server_app = typer.Typer(help="The embedded server that `make demo` uses.", no_args_is_help=True)
archive_app = typer.Typer(help="Retired narrow rows in a compressed file.", no_args_is_help=True)
alert_app = typer.Typer(help="Limits whose crossing becomes an event.", no_args_is_help=True)
app.add_typer(source_app, name="source")
app.add_typer(alert_app, name="alert")
app.add_typer(archive_app, name="archive")
app.add_typer(server_app, name="server")


def main() -> None:
    """Run the command line; every error is one sentence, a hint and an exit code."""
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        fail(InterruptedByUser("Stopped.", "The same command goes on where it stopped."))
    except BrokenPipeError:
        end_quietly()
    except Exception as error:
        fail(errors.unexpected(error))


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["PYMIG_DEBUG"] = "1"
