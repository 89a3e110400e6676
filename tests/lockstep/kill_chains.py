"""Chains to be killed in: releases of at least five statements a side, and rows.

Each kind is a run from ``start`` to ``head``. All but the first start at release 0001, which is theirs together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import chains_of_three as three

from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from federation.errors import Side

ROWS = 20

Half = tuple["Sequence[str]", "Sequence[str]"]
"""The statements of a step's upgrade and of its downgrade."""


@dataclass(frozen=True)
class Release:
    """One release's two halves, and its phase."""

    local: Half
    cloud: Half
    phase: str = "expand"

    def half(self, side: Side) -> Half:
        return self.local if side == "local" else self.cloud


@dataclass(frozen=True)
class Chain:
    """A run from ``start`` to the last release, to be killed on its way up and on its way down."""

    releases: dict[str, Release]
    start: str

    @property
    def head(self) -> str:
        return max(self.releases)

    def write(self, root: Path) -> Path:
        """alembic.ini, federation.toml and the revision files under ``root``."""
        three.write(
            root,
            local={release: _bodies(both.local) for release, both in self.releases.items()},
            cloud={release: _bodies(both.cloud) for release, both in self.releases.items()},
        )
        for release, both in self.releases.items():
            for side in ("local", "cloud"):
                with (root / "versions" / side / f"{release}.py").open("a") as file:
                    file.write(f'\n\nphase = "{both.phase}"\n')
        return root


def _bodies(half: Half) -> tuple[str, str]:
    up, down = ("\n    ".join(statements) for statements in half)
    return up, down


def _view(*columns: str) -> str:
    return (
        f'RLSView("note", {("id", "site", *columns)!r}, "site = (SELECT federation.bind_claims())", '
        'grants={"authenticated": ("SELECT", "INSERT")})'
    )


def _columns(*names: str) -> str:
    return ", ".join(f'sa.Column("{name}", sa.Text)' for name in names)


def _foreign(**change: str) -> str:
    (how, name), *_ = change.items()
    return f'op.alter_foreign_table("note", schema="federation_link", {how}=[{_columns(name)}])'


TEXT = "UPDATE note SET text = 'text of ' || id"
"""What column text holds after each release that makes it, so that it is known after a downgrade and an upgrade."""

FOUNDATION = Release(
    local=(
        (
            'op.create_local_binding("v1")',
            'op.create_table("note", sa.Column("id", sa.Uuid, primary_key=True), '
            'sa.Column("site", sa.Uuid, nullable=False))',
            'op.add_column("note", sa.Column("text", sa.Text))',
            "op.execute(\"INSERT INTO note SELECT CAST(lpad(CAST(n AS text), 32, '0') AS uuid), "
            f"CAST('{SITE_ID}' AS uuid) FROM generate_series(1, {ROWS}) AS n\")",
            f'op.execute("{TEXT}")',
            'op.create_index("note_site", "note", ["site"])',
            'op.enable_row_level_security("note")',
            'op.create_policy("own", "note", using="(SELECT auth.uid()) = site")',
            'op.create_policy("titled", "note", using="text IS NOT NULL AND (SELECT auth.uid()) = site")',
            'op.grant(("SELECT", "INSERT"), "note", to=(LINK,))',
            'op.grant(("SELECT",), "note", to=(SERVICE,))',
            'op.execute("CREATE VIEW note_text AS SELECT id, text FROM note")',
        ),
        (
            'op.execute("DROP VIEW note_text")',
            'op.revoke(("SELECT",), "note", from_=(SERVICE,))',
            'op.drop_policy("titled", "note")',
            'op.drop_index("note_site")',
            'op.drop_table("note")',
            'op.drop_local_binding("v1")',
        ),
    ),
    cloud=(
        (
            'op.execute("CREATE SCHEMA federation_link")',
            'op.create_foreign_server("hospital")',
            'op.create_user_mapping("public", "hospital", LINK)',
            'op.create_user_mapping("current_user", "hospital", SERVICE)',
            'op.create_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))',
            'op.import_foreign_schema("public", server="hospital", into="federation_link", '
            f'tables={{"note": [{three.COLUMNS}]}})',
            'op.bind_before_write("note", schema="federation_link")',
            f"op.create_rls_view({_view()})",
            _foreign(add="text"),
            f"op.replace_rls_view({_view('text')}, was={_view()})",
            'op.grant(("SELECT",), "note", to=("service_role",))',
        ),
        (
            'op.revoke(("SELECT",), "note", from_=("service_role",))',
            f"op.replace_rls_view({_view()}, was={_view('text')})",
            _foreign(drop="text"),
            f"op.drop_rls_view({_view()})",
            'op.drop_foreign_tables("federation_link", "note")',
            'op.drop_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))',
            'op.drop_user_mapping("current_user", "hospital", SERVICE)',
            'op.drop_user_mapping("public", "hospital", LINK)',
            'op.drop_foreign_server("hospital")',
            'op.execute("DROP SCHEMA federation_link")',
        ),
    ),
)

NOTE_DUE = (
    'op.execute("CREATE VIEW note_due AS SELECT id, due FROM note")',
    'op.execute("REVOKE ALL ON note_due FROM anon, authenticated, service_role")',
)

ADD_DUE = Release(
    local=(
        (
            'op.add_column("note", sa.Column("due", sa.Text))',
            'op.create_index("note_due", "note", ["due"])',
            'op.create_policy("due", "note", using="due IS NOT NULL AND (SELECT auth.uid()) = site")',
            'op.execute("CREATE VIEW note_due_text AS SELECT id, due FROM note")',
            'op.grant(("UPDATE",), "note", to=(SERVICE,))',
        ),
        (
            'op.revoke(("UPDATE",), "note", from_=(SERVICE,))',
            'op.execute("DROP VIEW note_due_text")',
            'op.drop_policy("due", "note")',
            'op.drop_index("note_due")',
            'op.drop_column("note", "due")',
        ),
    ),
    cloud=(
        (
            _foreign(add="due"),
            f"op.replace_rls_view({_view('text', 'due')}, was={_view('text')})",
            'op.grant(("UPDATE",), "note", to=("service_role",))',
            "op.execute(\"COMMENT ON VIEW note IS 'with due'\")",
            *NOTE_DUE,
        ),
        (
            'op.execute("DROP VIEW note_due")',
            'op.execute("COMMENT ON VIEW note IS NULL")',
            'op.revoke(("UPDATE",), "note", from_=("service_role",))',
            f"op.replace_rls_view({_view('text')}, was={_view('text', 'due')})",
            _foreign(drop="due"),
        ),
    ),
)


def _remove_text(*rest: str) -> Release:
    """Column text goes, with what reads it; ``rest`` are the columns that stay."""
    return Release(
        local=(
            (
                'op.drop_policy("titled", "note")',
                'op.execute("DROP VIEW note_text")',
                'op.drop_index("note_site")',
                'op.revoke(("SELECT",), "note", from_=(SERVICE,))',
                'op.drop_column("note", "text")',
            ),
            (
                'op.add_column("note", sa.Column("text", sa.Text))',
                f'op.execute("{TEXT}")',
                'op.grant(("SELECT",), "note", to=(SERVICE,))',
                'op.create_index("note_site", "note", ["site"])',
                'op.execute("CREATE VIEW note_text AS SELECT id, text FROM note")',
                'op.create_policy("titled", "note", using="text IS NOT NULL AND (SELECT auth.uid()) = site")',
            ),
        ),
        cloud=(
            (
                *(('op.execute("DROP VIEW note_due")',) if rest else ()),
                f"op.replace_rls_view({_view(*rest)}, was={_view('text', *rest)})",
                _foreign(drop="text"),
                'op.revoke(("SELECT",), "note", from_=("service_role",))',
                'op.execute("CREATE VIEW note_site AS SELECT site FROM note")',
                'op.execute("REVOKE ALL ON note_site FROM anon, authenticated, service_role")',
            ),
            (
                'op.execute("DROP VIEW note_site")',
                'op.grant(("SELECT",), "note", to=("service_role",))',
                _foreign(add="text"),
                f"op.replace_rls_view({_view('text', *rest)}, was={_view(*rest)})",
                *(NOTE_DUE if rest else ()),
            ),
        ),
        phase="contract",
    )


INDEXES = ('"note_text_now", "note", ["text"]', '"note_id_site_now", "note", ["id", "site"], unique=True')

CONCURRENT = Release(
    local=(
        (*(f"op.create_index_concurrently({index})" for index in INDEXES), *ADD_DUE.local[0]),
        (*ADD_DUE.local[1], *(f"op.drop_index_concurrently({index})" for index in reversed(INDEXES))),
    ),
    cloud=ADD_DUE.cloud,
)

CHAINS = {
    "expand": Chain({"0001": FOUNDATION}, "base"),
    "contract": Chain({"0001": FOUNDATION, "0002": _remove_text()}, "0001"),
    "mixed": Chain({"0001": FOUNDATION, "0002": ADD_DUE, "0003": _remove_text("due")}, "0001"),
    "concurrent": Chain({"0001": FOUNDATION, "0002": CONCURRENT}, "0001"),
}
