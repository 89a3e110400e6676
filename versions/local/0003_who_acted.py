"""Who acted and what was dispensed; one prescription a queue entry."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

QUEUE_COLUMNS = (
    sa.Column("completed_by_actor_type", sa.Text()),
    sa.Column("completed_by_assistant_id", sa.Uuid()),
    sa.Column("completed_by_name", sa.Text()),
    sa.Column("completed_actor_session_id", sa.Uuid()),
)
PRESCRIPTION_COLUMNS = (
    sa.Column("prescribed_by_actor_type", sa.Text(), server_default=sa.text("'chief'"), nullable=False),
    sa.Column("prescribed_by_assistant_id", sa.Uuid()),
    sa.Column("prescribed_by_name", sa.Text()),
    sa.Column("actor_session_id", sa.Uuid()),
    sa.Column("dispensed_days", sa.Integer()),
    sa.Column("dispensed_at", sa.DateTime(timezone=True)),
    sa.Column("dispensed_by", sa.Text()),
    sa.Column("metadata", JSONB(), server_default=sa.text("'{}'::jsonb")),
)


def upgrade() -> None:
    op.lock_tables("hospital_queues", "hospital_prescriptions")
    for column in QUEUE_COLUMNS:
        op.add_column("hospital_queues", column)
    op.create_check_constraint(
        "hospital_queues_completed_by_actor_type_check",
        "hospital_queues",
        "completed_by_actor_type IN ('chief', 'assistant')",
    )
    for column in PRESCRIPTION_COLUMNS:
        op.add_column("hospital_prescriptions", column)
    op.create_check_constraint(
        "hospital_prescriptions_prescribed_by_actor_type_check",
        "hospital_prescriptions",
        "prescribed_by_actor_type IN ('chief', 'assistant')",
    )
    op.create_index("hospital_prescriptions_dispensed_at_idx", "hospital_prescriptions", ["dispensed_at"])
    op.create_index(
        "hospital_prescriptions_metadata_idx", "hospital_prescriptions", ["metadata"], postgresql_using="gin"
    )
    # Both refuse a second prescription; the older one is checked first, and the app looks for its name in the error.
    op.create_index(
        "uq_prescriptions_queue_id_nonnull",
        "hospital_prescriptions",
        ["queue_id"],
        unique=True,
        postgresql_where=sa.text("queue_id IS NOT NULL"),
    )
    op.create_index(
        "idx_one_prescription_per_queue",
        "hospital_prescriptions",
        ["queue_id"],
        unique=True,
        postgresql_where=sa.text("queue_id IS NOT NULL AND status <> 'cancelled'"),
    )


def downgrade() -> None:
    op.lock_tables("hospital_queues", "hospital_prescriptions")
    op.drop_index("idx_one_prescription_per_queue", "hospital_prescriptions")
    op.drop_index("uq_prescriptions_queue_id_nonnull", "hospital_prescriptions")
    for column in reversed(PRESCRIPTION_COLUMNS):
        op.drop_column("hospital_prescriptions", column.name)
    for column in reversed(QUEUE_COLUMNS):
        op.drop_column("hospital_queues", column.name)
