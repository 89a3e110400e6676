"""What must be there at a release, from what the operations of its chain have told; and what of it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

import sqlalchemy as sa
from alembic.operations import MigrateOperation
from sqlalchemy.engine import Connection

from federation.binding import PARTS
from federation.errors import Side
from federation.operations.bindings import (
    BindBeforeWriteOp,
    CreateCloudBindingOp,
    CreateLocalBindingOp,
    DropBindBeforeWriteOp,
    DropCloudBindingOp,
    DropLocalBindingOp,
)
from federation.operations.foreign_tables import (
    AlterForeignTableOp,
    DropForeignTablesOp,
    ImportForeignSchemaOp,
    SetForeignTableOptionsOp,
    SetStatisticsTargetOp,
)
from federation.operations.servers import AlterForeignServerOp, CreateForeignServerOp, DropForeignServerOp
from federation.operations.user_mappings import AlterUserMappingOp, CreateUserMappingOp, DropUserMappingOp
from federation.operations.views import CreateRLSViewOp, DropRLSViewOp, ReplaceRLSViewOp

Key: TypeAlias = tuple[str, ...]
"""What kind of object, and its names."""

Objects: TypeAlias = Mapping[Key, tuple[MigrateOperation, ...]]
"""What must be there, in the order in which it can be made, and the operations that make it; a schema has none."""


def after(objects: Objects, told: Iterable[MigrateOperation]) -> Objects:
    """What must be there after a release whose operations are ``told``, when ``objects`` had to be before."""
    found = dict(objects)
    for op in told:
        _fold(found, op)
    return found


def name(key: Key) -> str:
    """``key`` for people: the kind and the object."""
    kind, *names = key
    if kind == "user mapping":
        return f"user mapping for {names[0]} on server {names[1]}"
    if kind == "trigger":
        return f"trigger bind_before_write on {'.'.join(names)}"
    return f"{kind} {'.'.join(names)}"


def missing(connection: Connection, objects: Objects) -> list[Key]:
    """Those of ``objects`` that the database does not have, in their order. Reads only."""
    if not objects:
        return []
    parts = [key[1] for key in objects if key[0] == "binding part"]
    owner = connection.exec_driver_sql("SELECT current_user").scalar_one()
    there = {tuple(part for part in row if part is not None) for row in connection.execute(_THERE, {"parts": parts})}
    connection.rollback()
    return [key for key in objects if tuple(owner if part == "current_user" else part for part in key) not in there]


_THERE = sa.text(
    """
    SELECT 'server', srvname::text, NULL FROM pg_catalog.pg_foreign_server
    UNION ALL SELECT 'user mapping', usename::text, srvname::text FROM pg_catalog.pg_user_mappings
    UNION ALL SELECT 'schema', nspname::text, NULL FROM pg_catalog.pg_namespace
    UNION ALL SELECT CASE c.relkind WHEN 'f' THEN 'foreign table' ELSE 'view' END, n.nspname::text, c.relname::text
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('f', 'v')
    UNION ALL SELECT 'trigger', n.nspname::text, c.relname::text
    FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE t.tgname = 'bind_before_write'
    UNION ALL SELECT 'binding part', part, NULL FROM unnest(CAST(:parts AS text[])) AS part
    WHERE CASE WHEN part LIKE '%)' THEN to_regprocedure(part) IS NOT NULL ELSE to_regclass(part) IS NOT NULL END
    """
)


def _fold(found: dict[Key, tuple[MigrateOperation, ...]], op: MigrateOperation) -> None:
    match op:
        case CreateForeignServerOp():
            found["server", op.name] = (op,)
        case AlterForeignServerOp():
            _alter_server(found, op)
        case DropForeignServerOp():
            found.pop(("server", op.name), None)
        case CreateUserMappingOp():
            found["user mapping", op.cloud_role, op.server] = (op,)
        case AlterUserMappingOp():
            found["user mapping", op.cloud_role, op.server] = (
                CreateUserMappingOp(op.cloud_role, op.server, op.link_role),
            )
        case DropUserMappingOp():
            found.pop(("user mapping", op.cloud_role, op.server), None)
        case CreateLocalBindingOp() | CreateCloudBindingOp():
            found.update(dict.fromkeys(_parts(op), (op,)))
        case DropLocalBindingOp() | DropCloudBindingOp():
            for key in _parts(op.reverse()):
                found.pop(key, None)
        case BindBeforeWriteOp():
            found["trigger", op.schema, op.table] = (op,)
        case DropBindBeforeWriteOp():
            found.pop(("trigger", op.schema, op.table), None)
        case CreateRLSViewOp() | ReplaceRLSViewOp():
            found["view", op.view.schema, op.view.name] = (CreateRLSViewOp(op.view),)
        case DropRLSViewOp():
            found.pop(("view", op.view.schema, op.view.name), None)
        case _:
            _fold_foreign_table(found, op)


def _fold_foreign_table(found: dict[Key, tuple[MigrateOperation, ...]], op: MigrateOperation) -> None:
    match op:
        case ImportForeignSchemaOp():
            found.setdefault(("schema", op.into), ())
            for table, columns in op.tables.items():
                found["foreign table", op.into, table] = (
                    ImportForeignSchemaOp(op.remote_schema, op.server, op.into, {table: columns}, op.options),
                )
        case DropForeignTablesOp():
            for table in op.tables:
                found.pop(("foreign table", op.schema, table), None)
                found.pop(("trigger", op.schema, table), None)
            if not any(key[:2] == ("foreign table", op.schema) for key in found):
                found.pop(("schema", op.schema), None)
        case AlterForeignTableOp() if ("foreign table", op.schema, op.table) in found:
            imported, *settings = found["foreign table", op.schema, op.table]
            found["foreign table", op.schema, op.table] = (_altered(imported, op), *settings)
        case SetStatisticsTargetOp() | SetForeignTableOptionsOp() if ("foreign table", op.schema, op.table) in found:
            found["foreign table", op.schema, op.table] += (op,)


def _parts(op: MigrateOperation) -> list[Key]:
    side: Side = "local" if isinstance(op, CreateLocalBindingOp) else "cloud"
    assert isinstance(op, (CreateLocalBindingOp, CreateCloudBindingOp))  # noqa: S101  # the callers match them
    return [("binding part", part) for part in PARTS[op.version, side]]


def _alter_server(found: dict[Key, tuple[MigrateOperation, ...]], op: AlterForeignServerOp) -> None:
    for was in found.get(("server", op.name), ()):
        assert isinstance(was, CreateForeignServerOp)  # noqa: S101  # what _fold puts there
        kept = {key: value for key, value in was.options.items() if key not in op.drop}
        found["server", op.name] = (CreateForeignServerOp(op.name, {**kept, **op.add, **op.set}),)


def _altered(imported: MigrateOperation, op: AlterForeignTableOp) -> ImportForeignSchemaOp:
    assert isinstance(imported, ImportForeignSchemaOp)  # noqa: S101  # what _fold puts there
    gone = {column.name for column in op.drop}
    new = {column.name: column for _, column in op.alter}
    kept = tuple(new.get(column.name, column) for column in imported.tables[op.table] if column.name not in gone)
    return replace(imported, tables={op.table: (*kept, *op.add)})
