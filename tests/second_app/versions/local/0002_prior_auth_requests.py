"""Requests for prior authorisation, which every provider may read."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from federation.operations import LINK, SERVICE

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "prior_auth_requests",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("request_data", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("status", sa.String(50), server_default=sa.text("'pending'")),
        sa.Column("payer_id", sa.String(255)),
        sa.Column("clinic_id", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("id", name="prior_auth_requests_pkey"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["healthcare.patients.id"], name="prior_auth_requests_patient_id_fkey", ondelete="CASCADE"
        ),
        schema="healthcare",
    )
    op.enable_row_level_security("prior_auth_requests", schema="healthcare")
    op.create_policy(
        "rows of the clinic",
        "prior_auth_requests",
        using="(SELECT auth.jwt() ->> 'clinic_id') = clinic_id",
        schema="healthcare",
    )
    op.create_policy(
        "providers read requests",
        "prior_auth_requests",
        using="(SELECT auth.jwt() ->> 'role') IN ('provider', 'admin')",
        command="SELECT",
        schema="healthcare",
    )
    op.create_policy(
        "service reads", "prior_auth_requests", using="true", command="SELECT", roles=(SERVICE,), schema="healthcare"
    )
    op.grant(("SELECT", "INSERT", "UPDATE"), "prior_auth_requests", to=(LINK,), schema="healthcare")
    op.grant(("SELECT",), "prior_auth_requests", to=(SERVICE,), schema="healthcare")


def downgrade() -> None:
    op.drop_table("prior_auth_requests", schema="healthcare")
