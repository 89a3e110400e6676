"""Patient identity: more columns of patients."""

from dataclasses import replace

import sqlalchemy as sa
from alembic import op

from federation.operations.views import RLSView

revision = "0004"
down_revision = "0003"

DML = ("SELECT", "INSERT", "UPDATE", "DELETE")

PATIENT_COLUMNS = (
    sa.Column("father_husband_name", sa.Text()),
    sa.Column("place", sa.Text()),
    sa.Column("phone", sa.Text()),
    sa.Column("mr_number", sa.Text()),
    sa.Column("linked_user_id", sa.Uuid()),
    sa.Column("beanhealth_id", sa.Text()),
)
PATIENTS_WERE = RLSView(
    "hospital_patients",
    ("id", "hospital_id", "name", "age", "token_number", "created_at"),
    predicate="(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)",
    defaults={"id": "gen_random_uuid()", "created_at": "timezone('utc', now())"},
    grants={"authenticated": DML, "service_role": DML},
    comment="The hospital's hospital_patients: its rows are kept there, and its policies decide about them.",
)
PATIENTS = replace(PATIENTS_WERE, columns=(*PATIENTS_WERE.columns, *(column.name for column in PATIENT_COLUMNS)))


def upgrade() -> None:
    op.alter_foreign_table("hospital_patients", schema="federation_link", add=PATIENT_COLUMNS)
    op.replace_rls_view(PATIENTS, was=PATIENTS_WERE)


def downgrade() -> None:
    op.replace_rls_view(PATIENTS_WERE, was=PATIENTS)
    op.alter_foreign_table("hospital_patients", schema="federation_link", drop=PATIENT_COLUMNS)
