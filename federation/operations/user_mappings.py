"""User mappings as Alembic operations: which link role a cloud role uses, the password by reference only.

A statement is logged and so is a bind parameter; the data of COPY is not. So the password travels by COPY into a
temporary table, and a DO block reads it from there. In ``--sql`` it is a psql variable (``FEDERATION_LINK_PASSWORD``,
``FEDERATION_SERVICE_PASSWORD``), or the environment's variable of that name, and travels by ``\\copy`` all the same.

The server also logs the inner statement when that fails, is ended or waits for a lock. So the block waits in a
statement that names the user only, and sets the password when it has the row.

https://www.postgresql.org/docs/current/sql-createusermapping.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.operations.deployment import LinkRole, deployment, role
from federation.operations.locks import NOTHING
from federation.operations.rendering import call, given
from federation.operations.statements import execute
from federation.operations.told import tells

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


@Operations.register_operation("create_user_mapping")
@dataclass(eq=False)
class CreateUserMappingOp(MigrateOperation):
    """Let a cloud role reach the hospital as a link role."""

    cloud_role: str
    server: str
    link_role: LinkRole

    @classmethod
    def create_user_mapping(cls, operations: Operations, cloud_role: str, server: str, link_role: LinkRole) -> None:
        """Map ``cloud_role`` (a name, ``"public"`` or ``"current_user"``) to LINK or SERVICE on ``server``.

        Raises PreconditionMissing when the deployment has no password for it.

            op.create_user_mapping("public", "hospital", LINK)

        https://www.postgresql.org/docs/current/sql-createusermapping.html
        """
        operations.invoke(cls(cloud_role, server, link_role))

    def reverse(self) -> DropUserMappingOp:
        return DropUserMappingOp(self.cloud_role, self.server, self.link_role)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_user_mapping", self.cloud_role, self.server, repr(self.link_role))


@Operations.register_operation("alter_user_mapping")
@dataclass(eq=False)
class AlterUserMappingOp(MigrateOperation):
    """Let a cloud role reach the hospital as another link role than ``was``."""

    cloud_role: str
    server: str
    link_role: LinkRole
    was: LinkRole | None = None

    @classmethod
    def alter_user_mapping(
        cls,
        operations: Operations,
        cloud_role: str,
        server: str,
        link_role: LinkRole,
        *,
        was: LinkRole | None = None,
    ) -> None:
        """Give the mapping of ``cloud_role`` another link role, user and password; ``was`` is what reversing needs.

        A changed password needs no migration: `federation link apply` sends it.

            op.alter_user_mapping("service_role", "hospital", SERVICE, was=LINK)

        https://www.postgresql.org/docs/current/sql-alterusermapping.html
        """
        operations.invoke(cls(cloud_role, server, link_role, was))

    def reverse(self) -> AlterUserMappingOp:
        if self.was is None:
            raise NotImplementedError(f"the mapping of {self.cloud_role} was altered without saying what it was")
        return AlterUserMappingOp(self.cloud_role, self.server, self.was, self.link_role)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("alter_user_mapping", self.cloud_role, self.server, repr(self.link_role))


@Operations.register_operation("drop_user_mapping")
@dataclass(eq=False)
class DropUserMappingOp(MigrateOperation):
    """Take a cloud role's way to the hospital away."""

    cloud_role: str
    server: str
    link_role: LinkRole

    @classmethod
    def drop_user_mapping(cls, operations: Operations, cloud_role: str, server: str, link_role: LinkRole) -> None:
        """Drop the mapping of ``cloud_role``; ``link_role`` is what reversing needs.

        op.drop_user_mapping("public", "hospital", LINK)

        https://www.postgresql.org/docs/current/sql-dropusermapping.html
        """
        operations.invoke(cls(cloud_role, server, link_role))

    def reverse(self) -> CreateUserMappingOp:
        return CreateUserMappingOp(self.cloud_role, self.server, self.link_role)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_user_mapping", self.cloud_role, self.server, repr(self.link_role))


@Operations.implementation_for(CreateUserMappingOp)
@tells
def _create(operations: Operations, op: CreateUserMappingOp) -> None:
    _send(operations, "CREATE", op)


@Operations.implementation_for(AlterUserMappingOp)
@tells
def _alter(operations: Operations, op: AlterUserMappingOp) -> None:
    _send(operations, "ALTER", op)


def _send(
    operations: Operations, verb: Literal["CREATE", "ALTER"], op: CreateUserMappingOp | AlterUserMappingOp
) -> None:
    """Online by COPY on the migration's connection, offline as what psql does the same with."""
    config, context = deployment(operations), operations.migration_context
    cloud_role = role(operations, op.cloud_role)
    if not context.as_sql:
        user, password = config.link_login(op.link_role.login)
        assert context.connection is not None  # noqa: S101  # online there is one
        send_mapping(context.connection, verb, cloud_role, op.server, user, password)
        return
    variable = f"FEDERATION_{op.link_role.login.upper()}_PASSWORD"
    execute(operations, _SECRET_TABLE)
    context.impl.static_output(_PSQL_COPY.format(variable=variable))
    execute(operations, _use_secret(verb, cloud_role, op.server, op.link_role.name(config)), locks=NOTHING)
    execute(operations, _FORGET_SECRET)


@Operations.implementation_for(DropUserMappingOp)
@tells
def _drop(operations: Operations, op: DropUserMappingOp) -> None:
    execute(
        operations,
        sql.SQL("DROP USER MAPPING FOR {} SERVER {}").format(
            role(operations, op.cloud_role), sql.Identifier(op.server)
        ),
    )


def send_mapping(
    connection: Connection,
    verb: Literal["CREATE", "ALTER"],
    cloud_role: sql.Composable,
    server: str,
    user: str,
    password: str,
) -> None:
    """Create or alter a mapping inside the current transaction, leaving no trace of ``password`` in any log.

    Raises psycopg's error with SQLSTATE ZF009 where pg_stat_statements would keep the password.
    """
    driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor:
        cursor.execute(_SECRET_TABLE)
        with cursor.copy("COPY pg_temp.federation_secret (password) FROM STDIN") as copy:
            copy.write_row((password,))
        cursor.execute(_use_secret(verb, cloud_role, server, user))
        cursor.execute(_FORGET_SECRET)


def _use_secret(verb: Literal["CREATE", "ALTER"], cloud_role: sql.Composable, server: str, user: str) -> sql.Composed:
    """The block that makes or alters the mapping and takes the password from the temporary table."""
    option = sql.SQL("" if verb == "CREATE" else "SET ")
    mapping = sql.SQL("USER MAPPING FOR {} SERVER {} OPTIONS ").format(cloud_role, sql.Identifier(server))
    waiting = sql.SQL("{} {}({}user {})").format(sql.SQL(verb), mapping, option, sql.Literal(user))
    secret = sql.SQL("ALTER {}({} password ").format(mapping, sql.SQL("ADD" if verb == "CREATE" else "SET"))
    return _USE_SECRET.format(
        waiting=sql.Literal(waiting.as_string(None)),
        secret=sql.Literal(secret.as_string(None)),
    )


_SECRET_TABLE = sql.SQL("CREATE TEMPORARY TABLE federation_secret (password text NOT NULL) ON COMMIT DROP")

_FORGET_SECRET = sql.SQL("DROP TABLE pg_temp.federation_secret")

# psql interpolates no variable in \\copy, so the variable becomes the environment's, which a program prints. A csv with
# control characters for delimiter and quote takes every character of a password as it is.
_PSQL_COPY = """\\if :{{?{variable}}}
\\setenv {variable} :{variable}
\\endif
\\copy pg_temp.federation_secret (password) FROM PROGRAM 'printenv {variable}' \
WITH (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')"""

# An uncaught error would print the inner statement as its CONTEXT, so state and message are raised again. OTHERS
# misses a cancelled statement. pg_stat_statements keeps the text of nested statements with ``track = all``.
_USE_SECRET = sql.SQL(
    """
DO $federation$
BEGIN
    IF current_setting('pg_stat_statements.track', true) = 'all' THEN
        BEGIN
            SET LOCAL pg_stat_statements.track = 'top';
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION 'pg_stat_statements.track is "all" and would keep the link''s password'
                USING ERRCODE = 'ZF009', HINT = format('a superuser runs: ALTER ROLE %I IN DATABASE %I '
                    'SET pg_stat_statements.track = top', session_user, current_database());
        END;
    END IF;
    EXECUTE {waiting};
    BEGIN
        EXECUTE {secret} || quote_literal((SELECT password FROM pg_temp.federation_secret)) || ')';
    EXCEPTION WHEN query_canceled OR OTHERS THEN
        RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
    END;
END $federation$
"""
)


@renderers.dispatch_for(CreateUserMappingOp)
def _render_create(context: AutogenContext, op: CreateUserMappingOp) -> str:
    return call(context, "create_user_mapping", op.cloud_role, op.server, op.link_role)


@renderers.dispatch_for(AlterUserMappingOp)
def _render_alter(context: AutogenContext, op: AlterUserMappingOp) -> str:
    return call(context, "alter_user_mapping", op.cloud_role, op.server, op.link_role, **given(was=op.was))


@renderers.dispatch_for(DropUserMappingOp)
def _render_drop(context: AutogenContext, op: DropUserMappingOp) -> str:
    return call(context, "drop_user_mapping", op.cloud_role, op.server, op.link_role)
