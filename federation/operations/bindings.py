"""The binding and what goes with it, as Alembic operations: its two halves, its trigger, the check of the site.

The site's id and the link roles' names are the deployment's; the version of the binding is the migration's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.binding import statements
from federation.config import Config
from federation.operations.deployment import LINK, SERVICE, Role, deployment, role, roles
from federation.operations.locking import lock_views_over
from federation.operations.locks import NOTHING
from federation.operations.rendering import call, given
from federation.operations.statements import execute
from federation.operations.told import tells

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

NOBODY = UUID(int=0)
"""The account that stands for every caller whom the hospital does not list."""


@Operations.register_operation("create_local_binding")
@dataclass(eq=False)
class CreateLocalBindingOp(MigrateOperation):
    """The hospital's half: accounts, what binds one, ``auth.uid()``, ``auth.jwt()`` and ``auth.role()``."""

    version: str
    callers: tuple[Role, ...] = ()

    @classmethod
    def create_local_binding(cls, operations: Operations, version: str, *, callers: tuple[Role, ...] = ()) -> None:
        """Create the hospital's half, frozen ``version``; the site's own account is listed from the start.

        An account whose role is one of ``callers`` takes that role at the hospital, as PostgREST takes it in the cloud,
        so that policies written ``TO authenticated`` hold there; the role needs privileges on the tables then.

        op.create_local_binding("v1", callers=("authenticated",))

        Source: federation/binding/<version>/local.sql
        """
        operations.invoke(cls(version, callers))

    def reverse(self) -> DropLocalBindingOp:
        return DropLocalBindingOp(self.version, self.callers)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_local_binding", self.version, self.callers)


@Operations.register_operation("drop_local_binding")
@dataclass(eq=False)
class DropLocalBindingOp(MigrateOperation):
    """Take the hospital's half away, its list of accounts included."""

    version: str
    callers: tuple[Role, ...] = ()

    @classmethod
    def drop_local_binding(cls, operations: Operations, version: str, *, callers: tuple[Role, ...] = ()) -> None:
        """Drop the hospital's half, frozen ``version``.

        op.drop_local_binding("v1", callers=("authenticated",))

        Source: federation/binding/<version>/local_drop.sql
        """
        operations.invoke(cls(version, callers))

    def reverse(self) -> CreateLocalBindingOp:
        return CreateLocalBindingOp(self.version, self.callers)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_local_binding", self.version, self.callers)


@Operations.register_operation("create_cloud_binding")
@dataclass(eq=False)
class CreateCloudBindingOp(MigrateOperation):
    """The cloud's half: ``federation.bind_claims()`` for ``callers`` and the private parts behind it."""

    version: str
    server: str
    callers: tuple[Role, ...]

    @classmethod
    def create_cloud_binding(
        cls, operations: Operations, version: str, *, server: str, callers: tuple[Role, ...]
    ) -> None:
        """Create the cloud's half, frozen ``version``; ``callers`` are the roles that may ask through ``server``.

        op.create_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))

        Source: federation/binding/<version>/cloud.sql
        """
        operations.invoke(cls(version, server, callers))

    def reverse(self) -> DropCloudBindingOp:
        return DropCloudBindingOp(self.version, self.server, self.callers)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_cloud_binding", self.version, self.server, self.callers)


@Operations.register_operation("drop_cloud_binding")
@dataclass(eq=False)
class DropCloudBindingOp(MigrateOperation):
    """Take the cloud's half away."""

    version: str
    server: str
    callers: tuple[Role, ...]

    @classmethod
    def drop_cloud_binding(
        cls, operations: Operations, version: str, *, server: str, callers: tuple[Role, ...]
    ) -> None:
        """Drop the cloud's half, frozen ``version``.

        op.drop_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))

        Source: federation/binding/<version>/cloud_drop.sql
        """
        operations.invoke(cls(version, server, callers))

    def reverse(self) -> CreateCloudBindingOp:
        return CreateCloudBindingOp(self.version, self.server, self.callers)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_cloud_binding", self.version, self.server, self.callers)


@Operations.register_operation("bind_before_write")
@dataclass(eq=False)
class BindBeforeWriteOp(MigrateOperation):
    """Name the caller to the hospital before each statement that writes to a foreign table."""

    table: str
    schema: str

    @classmethod
    def bind_before_write(cls, operations: Operations, table: str, *, schema: str) -> None:
        """Name the caller before writes to a foreign table; the trigger goes with the table when that is dropped.

        op.bind_before_write("hospital_patients", schema="federation_link")

        https://www.postgresql.org/docs/current/sql-createtrigger.html
        """
        operations.invoke(cls(table, schema))

    def reverse(self) -> DropBindBeforeWriteOp:
        return DropBindBeforeWriteOp(self.table, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("bind_before_write", self.schema, self.table)


@Operations.register_operation("drop_bind_before_write")
@dataclass(eq=False)
class DropBindBeforeWriteOp(MigrateOperation):
    """No longer name the caller before writes to a foreign table: the hospital then refuses them."""

    table: str
    schema: str

    @classmethod
    def drop_bind_before_write(cls, operations: Operations, table: str, *, schema: str) -> None:
        """Drop the trigger that bind_before_write made.

        op.drop_bind_before_write("hospital_patients", schema="federation_link")

        https://www.postgresql.org/docs/current/sql-droptrigger.html
        """
        operations.invoke(cls(table, schema))

    def reverse(self) -> BindBeforeWriteOp:
        return BindBeforeWriteOp(self.table, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("drop_bind_before_write", self.schema, self.table)


@Operations.register_operation("create_site_check")
@dataclass(eq=False)
class CreateSiteCheckOp(MigrateOperation):
    """Make "this server holds only this site's rows" a fact of the schema."""

    table: str
    column: str
    schema: str = "public"

    @classmethod
    def create_site_check(cls, operations: Operations, table: str, column: str, *, schema: str = "public") -> None:
        """Add ``CHECK (column = <this site>)`` as ``<table>_site_check``.

        op.create_site_check("hospital_patients", "hospital_id")

        https://www.postgresql.org/docs/current/ddl-constraints.html
        """
        operations.invoke(cls(table, column, schema))

    def reverse(self) -> DropSiteCheckOp:
        return DropSiteCheckOp(self.table, self.column, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_site_check", self.schema, self.table, self.column)


@Operations.register_operation("drop_site_check")
@dataclass(eq=False)
class DropSiteCheckOp(MigrateOperation):
    """Let a table hold rows of other sites."""

    table: str
    column: str
    schema: str = "public"

    @classmethod
    def drop_site_check(cls, operations: Operations, table: str, column: str, *, schema: str = "public") -> None:
        """Drop the constraint that create_site_check made; ``column`` is what reversing needs.

        op.drop_site_check("hospital_patients", "hospital_id")

        https://www.postgresql.org/docs/current/sql-altertable.html
        """
        operations.invoke(cls(table, column, schema))

    def reverse(self) -> CreateSiteCheckOp:
        return CreateSiteCheckOp(self.table, self.column, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_site_check", self.schema, self.table, self.column)


def half(config: Config, op: CreateLocalBindingOp | CreateCloudBindingOp) -> sql.Composed:
    """The SQL of a half of the binding."""
    if isinstance(op, CreateLocalBindingOp):
        return statements(
            op.version,
            "local",
            site=sql.Literal(config.site()),
            nobody=sql.Literal(NOBODY),
            callers=roles(config, (LINK, *op.callers)),
            caller_names=sql.Literal([str(name) for name in op.callers]),
            service=role(config, SERVICE),
            link_user=sql.Literal(LINK.name(config)),
        )
    return statements(
        op.version,
        "cloud",
        site=sql.Literal(config.site()),
        nobody=sql.Literal(NOBODY),
        sender=sql.Identifier(config.roles.sender),
        server=sql.Identifier(op.server),
        callers=roles(config, op.callers),
    )


@Operations.implementation_for(CreateCloudBindingOp)
@Operations.implementation_for(CreateLocalBindingOp)
@tells
def _create(operations: Operations, op: CreateLocalBindingOp | CreateCloudBindingOp) -> None:
    asks = isinstance(op, CreateCloudBindingOp)
    execute(operations, half(deployment(operations), op), asks_hospital=asks, locks=NOTHING)  # in its blocks


@Operations.implementation_for(DropLocalBindingOp)
@tells
def _drop_local(operations: Operations, op: DropLocalBindingOp) -> None:
    execute(operations, statements(op.version, "local_drop", callers=roles(operations, (LINK, *op.callers))))


@Operations.implementation_for(DropCloudBindingOp)
@tells
def _drop_cloud(operations: Operations, op: DropCloudBindingOp) -> None:
    execute(operations, statements(op.version, "cloud_drop", callers=roles(operations, op.callers)))


@Operations.implementation_for(BindBeforeWriteOp)
@tells
def _bind_before_write(operations: Operations, op: BindBeforeWriteOp) -> None:
    lock_views_over(operations, op.schema, op.table)
    execute(
        operations,
        sql.SQL(
            "CREATE TRIGGER bind_before_write BEFORE INSERT OR UPDATE OR DELETE ON {} "
            "FOR EACH STATEMENT EXECUTE FUNCTION federation.bind_before_write()"
        ).format(sql.Identifier(op.schema, op.table)),
    )


@Operations.implementation_for(CreateSiteCheckOp)
def _create_site_check(operations: Operations, op: CreateSiteCheckOp) -> None:
    execute(
        operations,
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({} = {})").format(
            sql.Identifier(op.schema, op.table),
            sql.Identifier(f"{op.table}_site_check"),
            sql.Identifier(op.column),
            sql.Literal(deployment(operations).site()),
        ),
    )


@Operations.implementation_for(DropBindBeforeWriteOp)
@tells
def _drop_bind_before_write(operations: Operations, op: DropBindBeforeWriteOp) -> None:
    lock_views_over(operations, op.schema, op.table)
    execute(operations, sql.SQL("DROP TRIGGER bind_before_write ON {}").format(sql.Identifier(op.schema, op.table)))


@Operations.implementation_for(DropSiteCheckOp)
def _drop_site_check(operations: Operations, op: DropSiteCheckOp) -> None:
    execute(
        operations,
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            sql.Identifier(op.schema, op.table), sql.Identifier(f"{op.table}_site_check")
        ),
    )


@renderers.dispatch_for(CreateLocalBindingOp)
def _render_create_local(context: AutogenContext, op: CreateLocalBindingOp) -> str:
    return call(context, "create_local_binding", op.version, **given(callers=op.callers))


@renderers.dispatch_for(DropLocalBindingOp)
def _render_drop_local(context: AutogenContext, op: DropLocalBindingOp) -> str:
    return call(context, "drop_local_binding", op.version, **given(callers=op.callers))


@renderers.dispatch_for(CreateCloudBindingOp)
def _render_create_cloud(context: AutogenContext, op: CreateCloudBindingOp) -> str:
    return call(context, "create_cloud_binding", op.version, server=op.server, callers=op.callers)


@renderers.dispatch_for(DropCloudBindingOp)
def _render_drop_cloud(context: AutogenContext, op: DropCloudBindingOp) -> str:
    return call(context, "drop_cloud_binding", op.version, server=op.server, callers=op.callers)


@renderers.dispatch_for(BindBeforeWriteOp)
def _render_bind_before_write(context: AutogenContext, op: BindBeforeWriteOp) -> str:
    return call(context, "bind_before_write", op.table, schema=op.schema)


@renderers.dispatch_for(DropBindBeforeWriteOp)
def _render_drop_bind_before_write(context: AutogenContext, op: DropBindBeforeWriteOp) -> str:
    return call(context, "drop_bind_before_write", op.table, schema=op.schema)


@renderers.dispatch_for(CreateSiteCheckOp)
def _render_create_site_check(context: AutogenContext, op: CreateSiteCheckOp) -> str:
    return call(context, "create_site_check", op.table, op.column, schema=op.schema)


@renderers.dispatch_for(DropSiteCheckOp)
def _render_drop_site_check(context: AutogenContext, op: DropSiteCheckOp) -> str:
    return call(context, "drop_site_check", op.table, op.column, schema=op.schema)
