"""The app reads and writes pets and visits at the clinic."""

import sqlalchemy as sa
from alembic import op

from federation.operations import LINK, SERVICE
from federation.operations.views import RLSView

revision = "0001"
down_revision = None

CALLERS = ("authenticated", "service_role")
TABLES = {
    "pets": (
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
    ),
    "visits": (
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("pet_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
    ),
}
DEFAULTS = {
    "pets": {"id": "gen_random_uuid()"},
    "visits": {"id": "gen_random_uuid()", "status": "'planned'"},
}
VIEWS = [
    RLSView(
        table,
        tuple(column.name for column in columns),
        predicate="(SELECT federation.bind_claims()) IS NOT NULL",
        defaults=DEFAULTS[table],
        grants={"authenticated": ("SELECT", "INSERT", "UPDATE", "DELETE")},
    )
    for table, columns in TABLES.items()
]


def upgrade() -> None:
    op.create_foreign_server("hospital")
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
    op.drop_foreign_server("hospital")
