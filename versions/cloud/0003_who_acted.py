"""Who acted and what was dispensed: more columns of queues and prescriptions."""

from dataclasses import replace

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from federation.operations.views import RLSView

revision = "0003"
down_revision = "0002"

DML = ("SELECT", "INSERT", "UPDATE", "DELETE")
UTC_NOW = "timezone('utc', now())"

QUEUE_COLUMNS = (
    sa.Column("completed_by_actor_type", sa.Text()),
    sa.Column("completed_by_assistant_id", sa.Uuid()),
    sa.Column("completed_by_name", sa.Text()),
    sa.Column("completed_actor_session_id", sa.Uuid()),
)
QUEUES_WERE = RLSView(
    "hospital_queues",
    ("id", "hospital_id", "patient_id", "doctor_id", "queue_number", "status", "created_at", "updated_at"),
    predicate="(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)",
    defaults={"id": "gen_random_uuid()", "status": "'pending'", "created_at": UTC_NOW, "updated_at": UTC_NOW},
    grants={"authenticated": DML, "service_role": DML},
    comment="The hospital's hospital_queues: its rows are kept there, and its policies decide about them.",
)
QUEUES = replace(QUEUES_WERE, columns=(*QUEUES_WERE.columns, *(column.name for column in QUEUE_COLUMNS)))

PRESCRIPTION_COLUMNS = (
    sa.Column("prescribed_by_actor_type", sa.Text(), nullable=False),
    sa.Column("prescribed_by_assistant_id", sa.Uuid()),
    sa.Column("prescribed_by_name", sa.Text()),
    sa.Column("actor_session_id", sa.Uuid()),
    sa.Column("dispensed_days", sa.Integer()),
    sa.Column("dispensed_at", sa.DateTime(timezone=True)),
    sa.Column("dispensed_by", sa.Text()),
    sa.Column("metadata", JSONB()),
)
PRESCRIPTIONS_WERE = RLSView(
    "hospital_prescriptions",
    (
        "id",
        "hospital_id",
        "doctor_id",
        "patient_id",
        "queue_id",
        "medications",
        "notes",
        "token_number",
        "status",
        "created_at",
        "updated_at",
        "next_review_date",
        "tests_to_review",
        "specialists_to_review",
    ),
    predicate="(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)",
    defaults={
        "id": "gen_random_uuid()",
        "medications": "'[]'::jsonb",
        "status": "'pending'",
        "created_at": UTC_NOW,
        "updated_at": UTC_NOW,
    },
    grants={"authenticated": DML, "service_role": DML},
    comment="The hospital's hospital_prescriptions: its rows are kept there, and its policies decide about them.",
)
PRESCRIPTIONS = replace(
    PRESCRIPTIONS_WERE,
    columns=(*PRESCRIPTIONS_WERE.columns, *(column.name for column in PRESCRIPTION_COLUMNS)),
    defaults={**PRESCRIPTIONS_WERE.defaults, "prescribed_by_actor_type": "'chief'", "metadata": "'{}'::jsonb"},
)


def upgrade() -> None:
    op.lock_tables("hospital_queues", "hospital_prescriptions")
    op.alter_foreign_table("hospital_queues", schema="federation_link", add=QUEUE_COLUMNS)
    op.replace_rls_view(QUEUES, was=QUEUES_WERE)
    op.alter_foreign_table("hospital_prescriptions", schema="federation_link", add=PRESCRIPTION_COLUMNS)
    op.replace_rls_view(PRESCRIPTIONS, was=PRESCRIPTIONS_WERE)


def downgrade() -> None:
    op.lock_tables("hospital_queues", "hospital_prescriptions")
    op.replace_rls_view(PRESCRIPTIONS_WERE, was=PRESCRIPTIONS)
    op.alter_foreign_table("hospital_prescriptions", schema="federation_link", drop=PRESCRIPTION_COLUMNS)
    op.replace_rls_view(QUEUES_WERE, was=QUEUES)
    op.alter_foreign_table("hospital_queues", schema="federation_link", drop=QUEUE_COLUMNS)
