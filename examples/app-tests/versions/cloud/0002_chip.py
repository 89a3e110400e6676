"""The app knows a pet's chip."""

import sqlalchemy as sa
from alembic import op

from federation.operations.views import RLSView

revision = "0002"
down_revision = "0001"

PREDICATE = "(SELECT federation.bind_claims()) IS NOT NULL"
DEFAULTS = {"id": "gen_random_uuid()"}
GRANTS = {"authenticated": ("SELECT", "INSERT", "UPDATE", "DELETE")}
BEFORE = RLSView("pets", ("id", "user_id", "name"), predicate=PREDICATE, defaults=DEFAULTS, grants=GRANTS)
AFTER = RLSView("pets", ("id", "user_id", "name", "chip"), predicate=PREDICATE, defaults=DEFAULTS, grants=GRANTS)
CHIP = (sa.Column("chip", sa.Text()),)


def upgrade() -> None:
    op.alter_foreign_table("pets", schema="federation_link", add=CHIP)
    op.replace_rls_view(AFTER, was=BEFORE)


def downgrade() -> None:
    op.replace_rls_view(BEFORE, was=AFTER)
    op.alter_foreign_table("pets", schema="federation_link", drop=CHIP)
