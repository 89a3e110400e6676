"""Review tracking: three columns of prescriptions, and the reviews that the hospital keeps from them."""

from dataclasses import replace

import sqlalchemy as sa
from alembic import op

from federation.operations.views import RLSView

revision = "0002"
down_revision = "0001"

DML = ("SELECT", "INSERT", "UPDATE", "DELETE")
UTC_NOW = "timezone('utc', now())"

REVIEWS = (
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("patient_id", sa.Uuid(), nullable=False),
    sa.Column("doctor_id", sa.Uuid()),
    sa.Column("source_prescription_id", sa.Uuid()),
    sa.Column("source_queue_id", sa.Uuid()),
    sa.Column("next_review_date", sa.Date()),
    sa.Column("tests_to_review", sa.Text()),
    sa.Column("specialists_to_review", sa.Text()),
    sa.Column("status", sa.Text(), nullable=False),
    sa.Column("checked_in_queue_id", sa.Uuid()),
    sa.Column("checked_in_at", sa.DateTime(timezone=True)),
    sa.Column("completed_at", sa.DateTime(timezone=True)),
    sa.Column("cancelled_at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
)
REVIEWS_VIEW = RLSView(
    "hospital_patient_reviews",
    tuple(column.name for column in REVIEWS),
    predicate="(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)",
    defaults={"id": "gen_random_uuid()", "status": "'pending'", "created_at": "now()", "updated_at": "now()"},
    grants={"authenticated": DML, "service_role": DML},
    comment="The hospital's hospital_patient_reviews: its rows are kept there, and its policies decide about them.",
)

PRESCRIPTION_COLUMNS = (
    sa.Column("next_review_date", sa.Date()),
    sa.Column("tests_to_review", sa.Text()),
    sa.Column("specialists_to_review", sa.Text()),
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
)


def upgrade() -> None:
    op.alter_foreign_table("hospital_prescriptions", schema="federation_link", add=PRESCRIPTION_COLUMNS)
    op.replace_rls_view(PRESCRIPTIONS, was=PRESCRIPTIONS_WERE)
    op.import_foreign_schema(
        "public", server="hospital", into="federation_link", tables={"hospital_patient_reviews": REVIEWS}
    )
    op.bind_before_write("hospital_patient_reviews", schema="federation_link")
    op.create_rls_view(REVIEWS_VIEW)


def downgrade() -> None:
    op.drop_rls_view(REVIEWS_VIEW)
    op.drop_foreign_tables("federation_link", "hospital_patient_reviews")
    op.replace_rls_view(PRESCRIPTIONS_WERE, was=PRESCRIPTIONS)
    op.alter_foreign_table("hospital_prescriptions", schema="federation_link", drop=PRESCRIPTION_COLUMNS)
