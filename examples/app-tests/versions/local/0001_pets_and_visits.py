"""Pets and their visits, at the clinic; people see their own."""

import sqlalchemy as sa
from alembic import op

from federation.operations import LINK, SERVICE

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_local_binding("v1", callers=("authenticated",))
    op.create_table(
        "pets",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pets_pkey"),
    )
    op.create_table(
        "visits",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("pet_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'planned'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="visits_pkey"),
        sa.ForeignKeyConstraint(["pet_id"], ["pets.id"], name="visits_pet_id_fkey", ondelete="CASCADE"),
        sa.CheckConstraint("status IN ('planned', 'done')", name="visits_status_check"),
    )
    for table in ("pets", "visits"):
        op.enable_row_level_security(table)
        op.create_policy("own_rows", table, using="(SELECT auth.uid()) = user_id")
        op.grant(("SELECT", "INSERT", "UPDATE", "DELETE"), table, to=(LINK, "authenticated"))
        op.create_policy("service_reads", table, using="true", command="SELECT", roles=(SERVICE,))
        op.grant(("SELECT",), table, to=(SERVICE,))


def downgrade() -> None:
    op.drop_table("visits")
    op.drop_table("pets")
    op.drop_local_binding("v1", callers=("authenticated",))
