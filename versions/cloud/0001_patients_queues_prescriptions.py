"""Patients, queues and prescriptions are read and written at the hospital, under the app's own names.

The link to the hospital, the cloud's half of the binding, foreign tables in a schema that nobody may use, and over
each a view in ``public`` that names the caller before the first remote query.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from federation.operations import LINK, SERVICE
from federation.operations.views import RLSView

revision = "0001"
down_revision = None

CALLERS = ("authenticated", "service_role")
DML = ("SELECT", "INSERT", "UPDATE", "DELETE")
UTC_NOW = "timezone('utc', now())"

TABLES = {
    "hospital_patients": (
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hospital_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("age", sa.Integer()),
        sa.Column("token_number", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True)),
    ),
    "hospital_queues": (
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hospital_id", sa.Uuid(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid()),
        sa.Column("queue_number", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
    ),
    "hospital_prescriptions": (
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hospital_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid()),
        sa.Column("patient_id", sa.Uuid()),
        sa.Column("queue_id", sa.Uuid()),
        sa.Column("medications", JSONB(), nullable=False),
        sa.Column("notes", sa.Text()),
        sa.Column("token_number", sa.Text()),
        sa.Column("status", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
    ),
}
# The hospital's own: postgres_fdw sends every column, so a default at the hospital does not fire.
DEFAULTS = {
    "hospital_patients": {"id": "gen_random_uuid()", "created_at": UTC_NOW},
    "hospital_queues": {
        "id": "gen_random_uuid()",
        "status": "'pending'",
        "created_at": UTC_NOW,
        "updated_at": UTC_NOW,
    },
    "hospital_prescriptions": {
        "id": "gen_random_uuid()",
        "medications": "'[]'::jsonb",
        "status": "'pending'",
        "created_at": UTC_NOW,
        "updated_at": UTC_NOW,
    },
}
# The predicate is an equality of two booleans, which the planner takes for half of the rows. A bare equality would be
# one row in two hundred: too few for it to send ORDER BY and LIMIT beside another filter.
VIEWS = [
    RLSView(
        table,
        tuple(column.name for column in columns),
        predicate="(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)",
        defaults=DEFAULTS[table],
        grants=dict.fromkeys(CALLERS, DML),
        comment=f"The hospital's {table}: its rows are kept there, and its policies decide about them.",
    )
    for table, columns in TABLES.items()
]


def upgrade() -> None:
    op.create_foreign_server("hospital", fetch_size="2000", use_remote_estimate="false")
    # Judged callers share PUBLIC's way; those who bypass row-level security here have another role at the hospital.
    op.create_user_mapping("public", "hospital", LINK)
    op.create_user_mapping("current_user", "hospital", SERVICE)
    op.create_user_mapping("service_role", "hospital", SERVICE)
    op.create_cloud_binding("v1", server="hospital", callers=CALLERS)

    op.execute(sa.schema.CreateSchema("federation_link"))
    op.import_foreign_schema("public", server="hospital", into="federation_link", tables=TABLES)
    for table in TABLES:
        op.bind_before_write(table, schema="federation_link")
    for view in VIEWS:
        op.create_rls_view(view)


def downgrade() -> None:
    for view in reversed(VIEWS):
        op.drop_rls_view(view)
    op.drop_foreign_tables("federation_link", *TABLES)
    op.execute(sa.schema.DropSchema("federation_link"))

    op.drop_cloud_binding("v1", server="hospital", callers=CALLERS)
    op.drop_user_mapping("service_role", "hospital", SERVICE)
    op.drop_user_mapping("current_user", "hospital", SERVICE)
    op.drop_user_mapping("public", "hospital", LINK)
    op.drop_foreign_server("hospital", fetch_size="2000", use_remote_estimate="false")
