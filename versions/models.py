"""The hospital's tables as they are at head: what ``alembic -n local check`` compares a database with.

The check of the site (``<table>_site_check``) is the deployment's and is not declared here; policies, the review
trigger and grants are no tables and stand in the local chain alone.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData()


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False)


def _timestamp(name: str) -> sa.Column[Any]:
    """The app's own default: what it gives depends on the session's time zone."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("timezone('utc', now())"))


hospital_patients = sa.Table(
    "hospital_patients",
    metadata,
    _id(),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("age", sa.Integer()),
    sa.Column("token_number", sa.Text()),
    _timestamp("created_at"),
    sa.Column("father_husband_name", sa.Text()),
    sa.Column("place", sa.Text()),
    sa.Column("phone", sa.Text()),
    sa.Column("mr_number", sa.Text()),
    sa.Column("linked_user_id", sa.Uuid()),
    sa.Column("beanhealth_id", sa.Text()),
    sa.PrimaryKeyConstraint("id", name="hospital_patients_pkey"),
    sa.UniqueConstraint("beanhealth_id", name="hospital_patients_beanhealth_id_key"),
    sa.Index("hospital_patients_phone_idx", "phone"),
    sa.Index("hospital_patients_mr_number_idx", "mr_number"),
    sa.Index(
        "hospital_patients_beanhealth_id_idx",
        "beanhealth_id",
        postgresql_where=sa.text("beanhealth_id IS NOT NULL"),
    ),
    sa.Index(
        "hospital_patients_linked_user_id_idx",
        "linked_user_id",
        postgresql_where=sa.text("linked_user_id IS NOT NULL"),
    ),
)

hospital_queues = sa.Table(
    "hospital_queues",
    metadata,
    _id(),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("patient_id", sa.Uuid(), nullable=False),
    sa.Column("doctor_id", sa.Uuid()),
    sa.Column("queue_number", sa.Integer(), nullable=False),
    sa.Column("status", sa.Text(), server_default=sa.text("'pending'")),
    _timestamp("created_at"),
    _timestamp("updated_at"),
    sa.Column("completed_by_actor_type", sa.Text()),
    sa.Column("completed_by_assistant_id", sa.Uuid()),
    sa.Column("completed_by_name", sa.Text()),
    sa.Column("completed_actor_session_id", sa.Uuid()),
    sa.PrimaryKeyConstraint("id", name="hospital_queues_pkey"),
    sa.ForeignKeyConstraint(
        ["patient_id"], ["hospital_patients.id"], name="hospital_queues_patient_id_fkey", ondelete="CASCADE"
    ),
    sa.CheckConstraint(
        "status IN ('pending', 'in_progress', 'completed', 'cancelled')", name="hospital_queues_status_check"
    ),
    sa.CheckConstraint(
        "completed_by_actor_type IN ('chief', 'assistant')", name="hospital_queues_completed_by_actor_type_check"
    ),
    sa.Index("hospital_queues_hospital_id_created_at_idx", "hospital_id", "created_at"),
)

hospital_prescriptions = sa.Table(
    "hospital_prescriptions",
    metadata,
    _id(),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("doctor_id", sa.Uuid()),
    sa.Column("patient_id", sa.Uuid()),
    sa.Column("queue_id", sa.Uuid()),
    sa.Column("medications", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
    sa.Column("notes", sa.Text()),
    sa.Column("token_number", sa.Text()),
    sa.Column("status", sa.Text(), server_default=sa.text("'pending'")),
    _timestamp("created_at"),
    _timestamp("updated_at"),
    sa.Column("next_review_date", sa.Date()),
    sa.Column("tests_to_review", sa.Text()),
    sa.Column("specialists_to_review", sa.Text()),
    sa.Column("prescribed_by_actor_type", sa.Text(), server_default=sa.text("'chief'"), nullable=False),
    sa.Column("prescribed_by_assistant_id", sa.Uuid()),
    sa.Column("prescribed_by_name", sa.Text()),
    sa.Column("actor_session_id", sa.Uuid()),
    sa.Column("dispensed_days", sa.Integer()),
    sa.Column("dispensed_at", sa.DateTime(timezone=True)),
    sa.Column("dispensed_by", sa.Text()),
    sa.Column("metadata", JSONB(), server_default=sa.text("'{}'::jsonb")),
    sa.PrimaryKeyConstraint("id", name="hospital_prescriptions_pkey"),
    sa.ForeignKeyConstraint(
        ["patient_id"], ["hospital_patients.id"], name="hospital_prescriptions_patient_id_fkey", ondelete="CASCADE"
    ),
    sa.ForeignKeyConstraint(
        ["queue_id"], ["hospital_queues.id"], name="hospital_prescriptions_queue_id_fkey", ondelete="SET NULL"
    ),
    sa.CheckConstraint("status IN ('pending', 'dispensed', 'cancelled')", name="hospital_prescriptions_status_check"),
    sa.CheckConstraint(
        "prescribed_by_actor_type IN ('chief', 'assistant')",
        name="hospital_prescriptions_prescribed_by_actor_type_check",
    ),
    sa.Index("hospital_prescriptions_hospital_id_idx", "hospital_id"),
    sa.Index("hospital_prescriptions_doctor_id_idx", "doctor_id"),
    sa.Index("hospital_prescriptions_patient_id_idx", "patient_id"),
    sa.Index("hospital_prescriptions_queue_id_idx", "queue_id"),
    sa.Index("hospital_prescriptions_status_idx", "status"),
    sa.Index("hospital_prescriptions_next_review_date_idx", "next_review_date"),
    sa.Index("hospital_prescriptions_dispensed_at_idx", "dispensed_at"),
    sa.Index("hospital_prescriptions_metadata_idx", "metadata", postgresql_using="gin"),
    sa.Index(
        "uq_prescriptions_queue_id_nonnull",
        "queue_id",
        unique=True,
        postgresql_where=sa.text("queue_id IS NOT NULL"),
    ),
    sa.Index(
        "idx_one_prescription_per_queue",
        "queue_id",
        unique=True,
        postgresql_where=sa.text("queue_id IS NOT NULL AND status <> 'cancelled'"),
    ),
)

hospital_patient_reviews = sa.Table(
    "hospital_patient_reviews",
    metadata,
    _id(),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("patient_id", sa.Uuid(), nullable=False),
    sa.Column("doctor_id", sa.Uuid()),
    sa.Column("source_prescription_id", sa.Uuid()),
    sa.Column("source_queue_id", sa.Uuid()),
    sa.Column("next_review_date", sa.Date()),
    sa.Column("tests_to_review", sa.Text()),
    sa.Column("specialists_to_review", sa.Text()),
    sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
    sa.Column("checked_in_queue_id", sa.Uuid()),
    sa.Column("checked_in_at", sa.DateTime(timezone=True)),
    sa.Column("completed_at", sa.DateTime(timezone=True)),
    sa.Column("cancelled_at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.PrimaryKeyConstraint("id", name="hospital_patient_reviews_pkey"),
    sa.UniqueConstraint("source_prescription_id", name="hospital_patient_reviews_source_prescription_id_key"),
    sa.ForeignKeyConstraint(
        ["patient_id"], ["hospital_patients.id"], name="hospital_patient_reviews_patient_id_fkey", ondelete="CASCADE"
    ),
    sa.ForeignKeyConstraint(
        ["source_prescription_id"],
        ["hospital_prescriptions.id"],
        name="hospital_patient_reviews_source_prescription_id_fkey",
        ondelete="CASCADE",
    ),
    sa.ForeignKeyConstraint(
        ["source_queue_id"],
        ["hospital_queues.id"],
        name="hospital_patient_reviews_source_queue_id_fkey",
        ondelete="SET NULL",
    ),
    sa.ForeignKeyConstraint(
        ["checked_in_queue_id"],
        ["hospital_queues.id"],
        name="hospital_patient_reviews_checked_in_queue_id_fkey",
        ondelete="SET NULL",
    ),
    sa.CheckConstraint(
        "status IN ('pending', 'rescheduled', 'completed', 'cancelled')", name="hospital_patient_reviews_status_check"
    ),
    # PostgreSQL's own name for it would be one character too long.
    sa.Index("hospital_patient_reviews_due_idx", "hospital_id", "status", "next_review_date"),
    sa.Index(
        "hospital_patient_reviews_patient_id_next_review_date_idx", "patient_id", sa.text("next_review_date DESC")
    ),
)
