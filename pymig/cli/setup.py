"""Install pymig, and register narrow tables."""

from __future__ import annotations

from typing import Annotated

import typer

from pymig import show
from pymig.cli.app import app, source_app
from pymig.cli.options import AsJson, Types
from pymig.cli.output import OUT, show_rows
from pymig.cli.session import conninfo, open_session, options_of, read
from pymig.errors import UsageError
from pymig.progress import waiting


@app.command(epilog="Example: pymig install")
def install() -> None:
    """Install pymig (alembic upgrade head); register the default source where it exists."""
    from pymig.install import install as run

    with waiting(OUT, "install"):
        run(conninfo())
    OUT.print("pymig is installed.")


@app.command(epilog="Example: pymig uninstall")
def uninstall() -> None:
    """Roll everything back and remove pymig (alembic downgrade base)."""
    from pymig.install import uninstall as run

    with waiting(OUT, "uninstall"):
        run(conninfo())
    OUT.print("pymig is removed; the database is what it was before.")


@source_app.command(
    "add",
    epilog="Example: pymig source add --name plant --narrow plant.samples --entity machine "
    "--channel sensor --time ts --value v",
)
def source_add(
    narrow: Annotated[str, typer.Option(help="The narrow table, with its schema.")],
    entity: Annotated[str, typer.Option(help="Column that says whose row it is.")],
    channel: Annotated[str, typer.Option(help="Column that says which quantity it is.")],
    time_column: Annotated[str, typer.Option("--time", help="Time column.")],
    value: Annotated[list[str], typer.Option(help="Value column; repeat it for several.")],
    name: Annotated[str, typer.Option(help="Short name of the source.")],
    format_column: Annotated[
        str | None,
        typer.Option("--format-column", help="Column that says which value column counts."),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="CONTENT=COLUMN; repeat it.")
    ] = None,
    tie_break: Annotated[
        list[str] | None,
        typer.Option(help="Column whose highest value wins among duplicates; repeat it."),
    ] = None,
    time_unit: Annotated[str | None, typer.Option(help="s, ms or us for a bigint epoch.")] = None,
    time_grain: Annotated[
        str | None,
        typer.Option(help="Interval within which samples become one row, e.g. '1 second'."),
    ] = None,
    bucket: Annotated[str | None, typer.Option(help="Interval of a bucket (1 hour).")] = None,
    wide_schema: Annotated[
        str | None, typer.Option(help="Schema of the wide tables (the narrow table's).")
    ] = None,
    wide_name: Annotated[
        str | None, typer.Option(help="Their name, with {table} and {entity}.")
    ] = None,
    column_types: Types = None,
    new_ships: Annotated[
        str | None, typer.Option(help="ask or auto: what to do with ships that begin to send.")
    ] = None,
    dictionary: Annotated[
        str | None, typer.Option(help="Table with readable channel names: TABLE:KEY:NAME.")
    ] = None,
) -> None:
    """Register a narrow table and how to read it."""
    table, key, readable = _dictionary(dictionary)
    options = options_of(column_types=column_types)
    with open_session() as session, waiting(OUT, "register"):
        session.call(
            "register_source",
            p_source=name,
            p_narrow=narrow,
            p_entity_column=entity,
            p_channel_column=channel,
            p_time_column=time_column,
            p_value_columns=value,
            p_format_column=format_column,
            p_formats=_formats(formats),
            p_tie_break=tie_break or None,
            p_time_unit=time_unit,
            p_time_grain=time_grain,
            p_bucket=bucket,
            p_wide_schema=wide_schema,
            p_wide_name=wide_name,
            p_column_types=options.column_types,
            p_new_entities=new_ships,
            p_dictionary=table,
            p_dictionary_key=key,
            p_dictionary_name=readable,
        )
    OUT.print(f"{narrow} is registered as source {name}.", markup=False)


@source_app.command("list", epilog="Example: pymig source list --json")
def source_list(as_json: AsJson = False) -> None:
    """List the registered sources."""
    show_rows(read("source"), as_json, show.sources)


def _formats(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise UsageError(
            f"{wrong[0]!r} is not CONTENT=COLUMN.", "For example --format Decimal=double_v."
        )
    return dict(pair.rsplit("=", 1) for pair in pairs)


def _dictionary(given: str | None) -> tuple[str | None, str | None, str | None]:
    if given is None:
        return None, None, None
    table, _, rest = given.partition(":")
    key, _, name = rest.partition(":")
    if not (table and key and name):
        raise UsageError(
            f"{given!r} is not TABLE:KEY:NAME.", "For example --dictionary plant.channel:id:name."
        )
    return table, key, name
