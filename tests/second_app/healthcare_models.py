"""The tables of the second app as they are at head."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData(schema="healthcare")


def _timestamp(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"))


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False)


patients = sa.Table(
    "patients",
    metadata,
    _id(),
    sa.Column("patient_id", sa.String(255), nullable=False),
    sa.Column("first_name", sa.Text(), nullable=False),
    sa.Column("last_name", sa.Text(), nullable=False),
    sa.Column("date_of_birth", sa.Date()),
    sa.Column("user_id", sa.Uuid()),
    sa.Column("clinic_id", sa.Text()),
    _timestamp("created_at"),
    _timestamp("updated_at"),
    sa.PrimaryKeyConstraint("id", name="patients_pkey"),
    sa.UniqueConstraint("patient_id", name="patients_patient_id_key"),
)

prior_auth_requests = sa.Table(
    "prior_auth_requests",
    metadata,
    _id(),
    sa.Column("patient_id", sa.Uuid(), nullable=False),
    sa.Column("request_data", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column("status", sa.String(50), server_default=sa.text("'pending'")),
    sa.Column("payer_id", sa.String(255)),
    sa.Column("clinic_id", sa.Text()),
    _timestamp("created_at"),
    _timestamp("updated_at"),
    sa.PrimaryKeyConstraint("id", name="prior_auth_requests_pkey"),
    sa.ForeignKeyConstraint(
        ["patient_id"], ["healthcare.patients.id"], name="prior_auth_requests_patient_id_fkey", ondelete="CASCADE"
    ),
)
