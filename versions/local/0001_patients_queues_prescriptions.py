"""Patients, queues and prescriptions move to the hospital, with the app's own policies.

The hospital's half of the binding comes first: the policies ask it who the caller is.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from federation.operations import LINK, SERVICE

revision = "0001"
down_revision = None

TABLES = ("hospital_patients", "hospital_queues", "hospital_prescriptions")
GEN_RANDOM_UUID = sa.text("gen_random_uuid()")
UTC_NOW = sa.text("timezone('utc', now())")


def upgrade() -> None:
    op.create_local_binding("v1", callers=("authenticated",))
    op.create_table(
        "hospital_patients",
        sa.Column("id", sa.Uuid(), server_default=GEN_RANDOM_UUID, nullable=False),
        sa.Column("hospital_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("age", sa.Integer()),
        sa.Column("token_number", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=UTC_NOW),
        sa.PrimaryKeyConstraint("id", name="hospital_patients_pkey"),
    )
    op.create_table(
        "hospital_queues",
        sa.Column("id", sa.Uuid(), server_default=GEN_RANDOM_UUID, nullable=False),
        sa.Column("hospital_id", sa.Uuid(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid()),
        sa.Column("queue_number", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'")),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=UTC_NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=UTC_NOW),
        sa.PrimaryKeyConstraint("id", name="hospital_queues_pkey"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["hospital_patients.id"], name="hospital_queues_patient_id_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'in_progress', 'completed', 'cancelled')", name="hospital_queues_status_check"
        ),
    )
    # The app has no index for what it asks most: the queue since midnight, of the hospital or of one doctor. A day
    # holds few enough rows to pick the doctor's among them, and with doctor_id before created_at the first would scan.
    op.create_index("hospital_queues_hospital_id_created_at_idx", "hospital_queues", ["hospital_id", "created_at"])
    op.create_table(
        "hospital_prescriptions",
        sa.Column("id", sa.Uuid(), server_default=GEN_RANDOM_UUID, nullable=False),
        sa.Column("hospital_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid()),
        sa.Column("patient_id", sa.Uuid()),
        sa.Column("queue_id", sa.Uuid()),
        sa.Column("medications", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("notes", sa.Text()),
        sa.Column("token_number", sa.Text()),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'")),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=UTC_NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=UTC_NOW),
        sa.PrimaryKeyConstraint("id", name="hospital_prescriptions_pkey"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["hospital_patients.id"], name="hospital_prescriptions_patient_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["queue_id"], ["hospital_queues.id"], name="hospital_prescriptions_queue_id_fkey", ondelete="SET NULL"
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'dispensed', 'cancelled')", name="hospital_prescriptions_status_check"
        ),
    )
    for column in ("hospital_id", "doctor_id", "patient_id", "queue_id", "status"):
        op.create_index(f"hospital_prescriptions_{column}_idx", "hospital_prescriptions", [column])

    for table in TABLES:
        op.create_site_check(table, "hospital_id")
        op.enable_row_level_security(table)
        # The app's rule; in a subquery it asks for the caller once a statement, bare once a row.
        op.create_policy("own_rows", table, using="(SELECT auth.uid()) = hospital_id")
        op.create_policy("federation_service", table, using="true", with_check="true", roles=(SERVICE,))
        op.grant(("SELECT", "INSERT", "UPDATE", "DELETE"), table, to=(LINK, "authenticated", SERVICE))


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_local_binding("v1", callers=("authenticated",))
