"""A pet may have a chip."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("pets", sa.Column("chip", sa.Text()))


def downgrade() -> None:
    op.drop_column("pets", "chip")
