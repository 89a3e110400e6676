"""Patients, by user and by clinic."""

import sqlalchemy as sa
from alembic import op

from federation.operations import LINK, SERVICE

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_local_binding("v1")
    op.create_table(
        "patients",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("patient_id", sa.String(255), nullable=False),
        sa.Column("first_name", sa.Text(), nullable=False),
        sa.Column("last_name", sa.Text(), nullable=False),
        sa.Column("date_of_birth", sa.Date()),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("clinic_id", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("id", name="patients_pkey"),
        sa.UniqueConstraint("patient_id", name="patients_patient_id_key"),
        schema="healthcare",
    )
    op.enable_row_level_security("patients", schema="healthcare")
    op.create_policy("own rows", "patients", using="(SELECT auth.uid()) = user_id", schema="healthcare")
    op.create_policy(
        "rows of the clinic", "patients", using="(SELECT auth.jwt() ->> 'clinic_id') = clinic_id", schema="healthcare"
    )
    op.create_policy("service reads", "patients", using="true", command="SELECT", roles=(SERVICE,), schema="healthcare")
    op.grant(("SELECT", "INSERT", "UPDATE"), "patients", to=(LINK,), schema="healthcare")
    op.grant(("SELECT",), "patients", to=(SERVICE,), schema="healthcare")


def downgrade() -> None:
    op.drop_table("patients", schema="healthcare")
    op.drop_local_binding("v1")
