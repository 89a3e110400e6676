"""Patients are read and written at the clinics' own server."""

import sqlalchemy as sa
from alembic import op

from federation.operations import LINK, SERVICE
from federation.operations.views import RLSView

revision = "0001"
down_revision = None

CALLERS = ("authenticated", "service_role")
PATIENTS = (
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("patient_id", sa.String(255), nullable=False),
    sa.Column("first_name", sa.Text(), nullable=False),
    sa.Column("last_name", sa.Text(), nullable=False),
    sa.Column("date_of_birth", sa.Date()),
    sa.Column("user_id", sa.Uuid()),
    sa.Column("clinic_id", sa.Text()),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
)
VIEW = RLSView(
    "patients",
    tuple(column.name for column in PATIENTS),
    predicate="(id IS NOT NULL) = (SELECT federation.bind_claims() IS NOT NULL)",
    defaults={"id": "gen_random_uuid()", "created_at": "now()", "updated_at": "now()"},
    grants={"authenticated": ("SELECT", "INSERT", "UPDATE"), "service_role": ("SELECT",)},
    schema="healthcare",
    source_schema="clinics_link",
)


def upgrade() -> None:
    op.create_foreign_server("clinics", fetch_size="500")
    op.create_user_mapping("public", "clinics", LINK)
    op.create_user_mapping("current_user", "clinics", SERVICE)
    op.create_user_mapping("service_role", "clinics", SERVICE)
    op.create_cloud_binding("v1", server="clinics", callers=CALLERS)
    op.execute(sa.schema.CreateSchema("clinics_link"))
    op.grant(("USAGE",), "healthcare", to=CALLERS, kind="SCHEMA")
    op.import_foreign_schema("healthcare", server="clinics", into="clinics_link", tables={"patients": PATIENTS})
    op.bind_before_write("patients", schema="clinics_link")
    op.create_rls_view(VIEW)


def downgrade() -> None:
    op.drop_rls_view(VIEW)
    op.drop_foreign_tables("clinics_link", "patients")
    op.revoke(("USAGE",), "healthcare", from_=CALLERS, kind="SCHEMA")
    op.execute(sa.schema.DropSchema("clinics_link"))
    op.drop_cloud_binding("v1", server="clinics", callers=CALLERS)
    op.drop_user_mapping("service_role", "clinics", SERVICE)
    op.drop_user_mapping("current_user", "clinics", SERVICE)
    op.drop_user_mapping("public", "clinics", LINK)
    op.drop_foreign_server("clinics", fetch_size="500")
