"""A throwaway federation: two chains of three tiny releases, written to a folder and run for real."""

from __future__ import annotations

from pathlib import Path

INI = """
[DEFAULT]
path_separator = os
prepend_sys_path = %(here)s
[local]
script_location = federation:environments/local
version_locations = %(here)s/versions/local
[cloud]
script_location = federation:environments/cloud
version_locations = %(here)s/versions/cloud
"""

TOML = """
[tables]
exported = ["note"]
"""

REVISION = '''"""{message}"""
import sqlalchemy as sa
from alembic import op
from federation.operations import LINK, SERVICE
from federation.operations.views import RLSView

revision, down_revision = {release!r}, {previous!r}


def upgrade():
    {up}


def downgrade():
    {down}
'''

NOTE = (
    'RLSView("note", ("id", "site"{more}), "site = (SELECT federation.bind_claims())", '
    'grants={{"authenticated": ("SELECT", "INSERT")}})'
)
COLUMNS = 'sa.Column("id", sa.Uuid, nullable=False), sa.Column("site", sa.Uuid, nullable=False)'

LOCAL = {
    "0001": (
        """op.create_local_binding("v1")
    op.create_table("note", sa.Column("id", sa.Uuid, primary_key=True), sa.Column("site", sa.Uuid, nullable=False))
    op.enable_row_level_security("note")
    op.create_policy("own", "note", using="(SELECT auth.uid()) = site")
    op.grant(("SELECT", "INSERT"), "note", to=(LINK,))
    op.grant(("SELECT",), "note", to=(SERVICE,))""",
        """op.drop_table("note")
    op.drop_local_binding("v1")""",
    ),
    "0002": ('op.add_column("note", sa.Column("text", sa.Text))', 'op.drop_column("note", "text")'),
    "0003": ("pass", "pass"),
}
CLOUD = {
    "0001": (
        f"""op.execute("CREATE SCHEMA federation_link")
    op.create_foreign_server("hospital")
    op.create_user_mapping("public", "hospital", LINK)
    op.create_user_mapping("current_user", "hospital", SERVICE)
    op.create_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))
    op.import_foreign_schema("public", server="hospital", into="federation_link", tables={{"note": [{COLUMNS}]}})
    op.bind_before_write("note", schema="federation_link")
    op.create_rls_view({NOTE.format(more="")})""",
        f"""op.drop_rls_view({NOTE.format(more="")})
    op.drop_foreign_tables("federation_link", "note")
    op.drop_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))
    op.drop_user_mapping("current_user", "hospital", SERVICE)
    op.drop_user_mapping("public", "hospital", LINK)
    op.drop_foreign_server("hospital")
    op.execute("DROP SCHEMA federation_link")""",
    ),
    "0002": (
        f"""op.alter_foreign_table("note", schema="federation_link", add=[sa.Column("text", sa.Text)])
    op.replace_rls_view({NOTE.format(more=', "text"')}, was={NOTE.format(more="")})""",
        f"""op.replace_rls_view({NOTE.format(more="")}, was={NOTE.format(more=', "text"')})
    op.alter_foreign_table("note", schema="federation_link", drop=[sa.Column("text", sa.Text)])""",
    ),
    "0003": ("op.execute(\"COMMENT ON VIEW note IS 'x'\")", 'op.execute("COMMENT ON VIEW note IS NULL")'),
}


def write(root: Path, *, local: dict[str, tuple[str, str]] = LOCAL, cloud: dict[str, tuple[str, str]] = CLOUD) -> Path:
    """alembic.ini, federation.toml and the revision files under ``root``."""
    (root / "alembic.ini").write_text(INI)
    (root / "federation.toml").write_text(TOML)
    for side, chain in (("local", local), ("cloud", cloud)):
        folder = root / "versions" / side
        folder.mkdir(parents=True, exist_ok=True)
        previous = None
        for release, (up, down) in chain.items():
            text = REVISION.format(message=f"release {release}", release=release, previous=previous, up=up, down=down)
            (folder / f"{release}.py").write_text(text)
            previous = release
    return root
