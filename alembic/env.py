"""Runs the revisions on the server the environment names, or on the one `pymig install` names."""

from alembic import context
from sqlalchemy import create_engine, pool
from sqlalchemy.engine import make_url

from pymig.revision import after_revisions, before_revisions, connector

if context.is_offline_mode():
    raise SystemExit("pymig's revisions look at the database they change: no --sql.")

engine = create_engine(
    make_url("postgresql+psycopg://"),
    creator=connector(context.config.attributes.get("conninfo")),
    poolclass=pool.NullPool,
)
with engine.connect() as connection:
    before_revisions(connection)
    context.configure(
        connection=connection, version_table_schema="pymig", transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
    after_revisions(connection)
