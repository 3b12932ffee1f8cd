"""The command line: every command is a routine or a view of the database, shown to a person."""

# The order of the commands in the help.
from pymig.cli import setup, look, move, readers, retire, control, watching, embedded  # noqa: F401, I001
from pymig.cli.app import app, main

__all__ = ["app", "main"]
