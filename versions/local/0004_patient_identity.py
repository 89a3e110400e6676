"""Patient identity: names, place and numbers by which a patient is found, and the patient's own account."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("hospital_patients", sa.Column("father_husband_name", sa.Text()))
    op.add_column("hospital_patients", sa.Column("place", sa.Text()))
    op.add_column("hospital_patients", sa.Column("phone", sa.Text()))
    op.add_column("hospital_patients", sa.Column("mr_number", sa.Text()))
    op.add_column("hospital_patients", sa.Column("linked_user_id", sa.Uuid()))
    op.add_column("hospital_patients", sa.Column("beanhealth_id", sa.Text()))
    op.create_unique_constraint("hospital_patients_beanhealth_id_key", "hospital_patients", ["beanhealth_id"])
    op.create_index("hospital_patients_phone_idx", "hospital_patients", ["phone"])
    op.create_index("hospital_patients_mr_number_idx", "hospital_patients", ["mr_number"])
    for column in ("beanhealth_id", "linked_user_id"):
        op.create_index(
            f"hospital_patients_{column}_idx",
            "hospital_patients",
            [column],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def downgrade() -> None:
    for column in ("beanhealth_id", "linked_user_id", "mr_number", "phone", "place", "father_husband_name"):
        op.drop_column("hospital_patients", column)
