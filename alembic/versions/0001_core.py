"""The core: catalog, discovery, wide tables, backfill, sync, verify, roll back."""

from alembic import op

from pymig.revision import apply_ddl, apply_frozen, unregister_sources

revision = "0001"
down_revision = None


def upgrade() -> None:
    apply_ddl(op, "0001.up")
    apply_frozen(op, "0001")


def downgrade() -> None:
    unregister_sources(op)
    apply_ddl(op, "0001.down")
