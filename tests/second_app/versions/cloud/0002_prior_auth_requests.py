"""Requests for prior authorisation."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from federation.operations.views import RLSView

revision = "0002"
down_revision = "0001"

REQUESTS = (
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("patient_id", sa.Uuid(), nullable=False),
    sa.Column("request_data", JSONB(), nullable=False),
    sa.Column("status", sa.String(50)),
    sa.Column("payer_id", sa.String(255)),
    sa.Column("clinic_id", sa.Text()),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
)
VIEW = RLSView(
    "prior_auth_requests",
    tuple(column.name for column in REQUESTS),
    predicate="(id IS NOT NULL) = (SELECT federation.bind_claims() IS NOT NULL)",
    defaults={
        "id": "gen_random_uuid()",
        "request_data": "'{}'::jsonb",
        "status": "'pending'",
        "created_at": "now()",
        "updated_at": "now()",
    },
    grants={"authenticated": ("SELECT", "INSERT", "UPDATE"), "service_role": ("SELECT",)},
    schema="healthcare",
    source_schema="clinics_link",
)


def upgrade() -> None:
    op.import_foreign_schema(
        "healthcare", server="clinics", into="clinics_link", tables={"prior_auth_requests": REQUESTS}
    )
    op.bind_before_write("prior_auth_requests", schema="clinics_link")
    op.create_rls_view(VIEW)


def downgrade() -> None:
    op.drop_rls_view(VIEW)
    op.drop_foreign_tables("clinics_link", "prior_auth_requests")
