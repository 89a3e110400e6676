"""Chains of many small releases for benchmarks/lockstep.py: each adds a column, at the hospital and in the cloud."""

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
TOML = '[tables]\nexported = ["note"]\n'
HEAD = '''"""{release}"""
import sqlalchemy as sa
from alembic import op
from federation.operations import LINK, SERVICE
from federation.operations.views import RLSView

revision, down_revision = {release!r}, {previous!r}
CALLERS = ("authenticated", "service_role")


def view(last):
    columns = ("id", "site", *(f"c{{n}}" for n in range(2, last + 1)))
    return RLSView("note", columns, "site = (SELECT federation.bind_claims())", grants={{"authenticated": ("SELECT",)}})


'''
FIRST = {
    "local": """def upgrade():
    op.create_local_binding("v1")
    op.create_table("note", sa.Column("id", sa.Uuid, primary_key=True), sa.Column("site", sa.Uuid, nullable=False))
    op.enable_row_level_security("note")
    op.create_policy("own", "note", using="(SELECT auth.uid()) = site")
    op.grant(("SELECT",), "note", to=(LINK, SERVICE))


def downgrade():
    op.drop_table("note")
    op.drop_local_binding("v1")
""",
    "cloud": """def upgrade():
    op.execute("CREATE SCHEMA federation_link")
    op.create_foreign_server("hospital")
    op.create_user_mapping("public", "hospital", LINK)
    op.create_user_mapping("current_user", "hospital", SERVICE)
    op.create_cloud_binding("v1", server="hospital", callers=CALLERS)
    columns = [sa.Column("id", sa.Uuid, nullable=False), sa.Column("site", sa.Uuid, nullable=False)]
    op.import_foreign_schema("public", server="hospital", into="federation_link", tables={"note": columns})
    op.create_rls_view(view(1))


def downgrade():
    op.drop_rls_view(view(1))
    op.drop_foreign_tables("federation_link", "note")
    op.drop_cloud_binding("v1", server="hospital", callers=CALLERS)
    op.drop_user_mapping("current_user", "hospital", SERVICE)
    op.drop_user_mapping("public", "hospital", LINK)
    op.drop_foreign_server("hospital")
    op.execute("DROP SCHEMA federation_link")
""",
}
NEXT = {
    "local": """def upgrade():
    op.add_column("note", sa.Column("c{n}", sa.Text))


def downgrade():
    op.drop_column("note", "c{n}")
""",
    "cloud": """def upgrade():
    op.alter_foreign_table("note", schema="federation_link", add=[sa.Column("c{n}", sa.Text)])
    op.replace_rls_view(view({n}), was=view({n} - 1))


def downgrade():
    op.replace_rls_view(view({n} - 1), was=view({n}))
    op.alter_foreign_table("note", schema="federation_link", drop=[sa.Column("c{n}", sa.Text)])
""",
}


def write(root: Path, releases: int) -> Path:
    """alembic.ini, federation.toml and both chains of ``releases`` releases under ``root``."""
    root.mkdir()
    (root / "alembic.ini").write_text(INI, encoding="utf-8")
    (root / "federation.toml").write_text(TOML, encoding="utf-8")
    for side in ("local", "cloud"):
        folder = root / "versions" / side
        folder.mkdir(parents=True)
        for n in range(1, releases + 1):
            release, previous = f"{n:04d}", f"{n - 1:04d}" if n > 1 else None
            body = FIRST[side] if n == 1 else NEXT[side].format(n=n)
            text = HEAD.format(release=release, previous=previous) + body
            (folder / f"{release}.py").write_text(text, encoding="utf-8")
    return root
