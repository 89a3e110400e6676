"""RLS views as Alembic operations: the app's table names over the foreign tables, always with their options.

``security_invoker``, a CASCADED check option, defaults, grants and comment belong to the view's declaration, and
nothing is left to defaults: CREATE OR REPLACE VIEW without ``WITH (…)`` drops the options silently, and default
privileges (Supabase gives the API roles everything in ``public``) are revoked in the same breath.

https://www.postgresql.org/docs/current/sql-createview.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql
from sqlalchemy.dialects import postgresql

from federation.operations.deployment import Role, role
from federation.operations.grants import Privilege
from federation.operations.locks import NOTHING, Locks
from federation.operations.privileges import revoke_defaults
from federation.operations.rendering import call
from federation.operations.statements import execute
from federation.operations.told import tells

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

READERS = """
    reads (oid) AS (
        SELECT w.ev_class FROM link AS l
        JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = l.oid
            AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_catalog.pg_rewrite AS w ON w.oid = d.objid
        UNION
        SELECT w.ev_class FROM reads AS r
        JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid
            AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_catalog.pg_rewrite AS w ON w.oid = d.objid AND w.ev_class <> r.oid)
"""
"""The views and materialized views that read a relation of ``link (oid)``, be it through others; of WITH RECURSIVE."""


@dataclass(frozen=True)
class RLSView:
    """What a view is: ``columns`` of the foreign table ``source`` for which ``predicate`` holds.

    ``defaults`` are SQL expressions by column (a default at the hospital does not fire over the link); ``grants``
    are privileges by role, given on the view and, as security_invoker asks, on the foreign table.
    """

    name: str
    columns: tuple[str, ...]
    predicate: str
    defaults: Mapping[str, str] = field(default_factory=dict)
    grants: Mapping[Role, tuple[Privilege, ...]] = field(default_factory=dict)
    comment: str | None = None
    schema: str = "public"
    source_schema: str = "federation_link"

    def create(self, *, or_replace: bool = False) -> str:
        """CREATE VIEW with its options."""
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in self.columns]
        source = sa.table(self.name, *columns, schema=self.source_schema)
        statement = sa.CreateView(
            sa.select(*columns).select_from(source).where(sa.literal_column(f"({self.predicate})")),
            self.name,
            schema=self.schema,
            or_replace=or_replace,
            postgresql_with={"security_invoker": True, "check_option": "cascaded"},
        )
        return str(statement.compile(dialect=postgresql.dialect(paramstyle="named")))  # type: ignore[no-untyped-call]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@Operations.register_operation("create_rls_view")
@dataclass(eq=False)
class CreateRLSViewOp(MigrateOperation):
    """Create a view over a foreign table, for callers whom the hospital judges."""

    view: RLSView

    @classmethod
    def create_rls_view(cls, operations: Operations, view: RLSView) -> None:
        """Create ``view``; refused when something of that name is in the way.

        op.create_rls_view(RLSView("hospital_patients", ("id", "hospital_id", "name"),
                                   "(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)"))

        https://www.postgresql.org/docs/current/sql-createview.html
        """
        operations.invoke(cls(view))

    def reverse(self) -> DropRLSViewOp:
        return DropRLSViewOp(self.view)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_rls_view", str(self.view))


@Operations.register_operation("replace_rls_view")
@dataclass(eq=False)
class ReplaceRLSViewOp(MigrateOperation):
    """Change a view: in place when columns are appended, else by dropping and creating it."""

    view: RLSView
    was: RLSView

    def __post_init__(self) -> None:
        if _key(self.view) != _key(self.was):
            raise ValueError(f"{self.was} cannot become {self.view}: drop the one and create the other")

    @classmethod
    def replace_rls_view(cls, operations: Operations, view: RLSView, *, was: RLSView) -> None:
        """Turn ``was`` into ``view``. In place, what depends on the view stays; a rebuild is refused if anything does.

        Grants that others made on the view survive a rebuild too; one that ``was`` declares and ``view`` does not is
        taken back.

            op.replace_rls_view(replace(PATIENTS, columns=(*PATIENTS.columns, "phone")), was=PATIENTS)

        https://www.postgresql.org/docs/current/sql-createview.html
        """
        operations.invoke(cls(view, was))

    def reverse(self) -> ReplaceRLSViewOp:
        return ReplaceRLSViewOp(self.was, self.view)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("replace_rls_view", str(self.view))

    @property
    def in_place(self) -> bool:
        """Whether CREATE OR REPLACE VIEW can do it: it only appends columns."""
        return self.view.columns[: len(self.was.columns)] == self.was.columns


@Operations.register_operation("drop_rls_view")
@dataclass(eq=False)
class DropRLSViewOp(MigrateOperation):
    """Drop a view; the grants on its foreign table are taken back with it."""

    view: RLSView

    @classmethod
    def drop_rls_view(cls, operations: Operations, view: RLSView) -> None:
        """Drop ``view``; PostgreSQL refuses while anything depends on it.

        op.drop_rls_view(RLSView("hospital_patients", ("id", "hospital_id", "name"),
                                 "(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)"))

        https://www.postgresql.org/docs/current/sql-dropview.html
        """
        operations.invoke(cls(view))

    def reverse(self) -> CreateRLSViewOp:
        return CreateRLSViewOp(self.view)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_rls_view", str(self.view))


_REBUILD = sql.SQL(
    """
DO $federation$
DECLARE
    given text[];
    statement text;
BEGIN
    SELECT array_agg(format('GRANT %s ON %s TO %s%s', acl.privilege_type, {view},
        CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END,
        CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END))
    INTO given
    FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS acl
    WHERE c.oid = {view}::regclass AND acl.grantee <> c.relowner;
    EXECUTE {drop};
    EXECUTE {create};
    FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s', {view},
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
        FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS acl
        WHERE c.oid = {view}::regclass AND acl.grantee <> c.relowner
    LOOP
        EXECUTE statement;
    END LOOP;
    FOREACH statement IN ARRAY coalesce(given, ARRAY[]::text[]) LOOP
        EXECUTE statement;
    END LOOP;
END $federation$
"""
)


def _key(view: RLSView) -> tuple[str, str, str]:
    return view.schema, view.name, view.source_schema


def _names(view: RLSView) -> tuple[sql.Identifier, sql.Identifier]:
    return sql.Identifier(view.schema, view.name), sql.Identifier(view.source_schema, view.name)


def _text(statement: sql.Composable) -> sql.Literal:
    return sql.Literal(statement.as_string(None))


@Operations.implementation_for(CreateRLSViewOp)
@tells
def _create(operations: Operations, op: CreateRLSViewOp) -> None:
    view, source = _names(op.view)
    execute(operations, sql.SQL(op.view.create()))
    execute(operations, revoke_defaults([view, source]), locks=NOTHING)
    _decorate(operations, op.view)


@Operations.implementation_for(ReplaceRLSViewOp)
@tells
def _replace(operations: Operations, op: ReplaceRLSViewOp) -> None:
    view, source = _names(op.view)
    if op.in_place:
        execute(operations, sql.SQL(op.view.create(or_replace=True)))
    else:
        drop, create = sql.SQL("DROP VIEW {}").format(view), op.view.create()
        execute(
            operations,
            _REBUILD.format(view=_text(view), drop=_text(drop), create=sql.Literal(create)),
            locks=Locks(sends=(drop.as_string(None), create)),
        )
    gone = [name for name in op.was.defaults if name not in op.view.defaults and name in op.view.columns]
    for name in gone if op.in_place else ():
        execute(operations, sql.SQL("ALTER VIEW {} ALTER COLUMN {} DROP DEFAULT").format(view, sql.Identifier(name)))
    for grantee, privileges in op.was.grants.items():
        taken = [privilege for privilege in privileges if privilege not in op.view.grants.get(grantee, ())]
        if taken:
            what, whom = sql.SQL(", ").join(map(sql.SQL, taken)), role(operations, grantee)
            execute(operations, sql.SQL("REVOKE {} ON {}, {} FROM {}").format(what, view, source, whom))
    if op.in_place and op.view.comment is None and op.was.comment is not None:
        execute(operations, sql.SQL("COMMENT ON VIEW {} IS NULL").format(view))
    _decorate(operations, op.view)


@Operations.implementation_for(DropRLSViewOp)
@tells
def _drop(operations: Operations, op: DropRLSViewOp) -> None:
    view, source = _names(op.view)
    execute(operations, sql.SQL("DROP VIEW {}").format(view))
    for grantee in op.view.grants:
        execute(operations, sql.SQL("REVOKE ALL ON {} FROM {}").format(source, role(operations, grantee)))


def _decorate(operations: Operations, view: RLSView) -> None:
    name, source = _names(view)
    for column, default in view.defaults.items():
        execute(
            operations,
            sql.SQL("ALTER VIEW {} ALTER COLUMN {} SET DEFAULT {}").format(
                name, sql.Identifier(column), sql.SQL(default)
            ),
        )
    for grantee, privileges in view.grants.items():
        execute(
            operations,
            sql.SQL("GRANT {} ON {}, {} TO {}").format(
                sql.SQL(", ").join(map(sql.SQL, privileges)), name, source, role(operations, grantee)
            ),
        )
    if view.comment is not None:
        execute(operations, sql.SQL("COMMENT ON VIEW {} IS {}").format(name, sql.Literal(view.comment)))


@renderers.dispatch_for(CreateRLSViewOp)
def _render_create(context: AutogenContext, op: CreateRLSViewOp) -> str:
    return call(context, "create_rls_view", op.view)


@renderers.dispatch_for(ReplaceRLSViewOp)
def _render_replace(context: AutogenContext, op: ReplaceRLSViewOp) -> str:
    return call(context, "replace_rls_view", op.view, was=op.was)


@renderers.dispatch_for(DropRLSViewOp)
def _render_drop(context: AutogenContext, op: DropRLSViewOp) -> str:
    return call(context, "drop_rls_view", op.view)
