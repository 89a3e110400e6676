"""Privileges: of the link roles on the local tables and their sequences, of the API roles on the cloud's relations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from alembic.operations import MigrateOperation

from federation.drift.catalog import Relation, SequenceFacts
from federation.drift.survey import Survey
from federation.operations.deployment import LinkRole, Role
from federation.operations.grants import GrantOp, ObjectKind, Privilege, RevokeOp
from federation.operations.statements import is_serial


def compare_local(survey: Survey) -> Iterator[MigrateOperation]:
    """Compare the link roles' privileges, including those that they get through PUBLIC, with the declared ones.

    A role that may INSERT may use the sequence of a serial column. That of an identity column needs no privilege. Other
    roles are not managed.
    """
    grants = survey.declared.link_grants
    if grants is None:
        return
    expected = {
        role.name(survey.config) if isinstance(role, LinkRole) else role: (role, privileges)
        for role, privileges in grants.items()
    }
    expected["public"] = ("public", ())
    using = {
        name: (role, cast("tuple[Privilege, ...]", ("USAGE",) if "INSERT" in privileges else ()))
        for name, (role, privileges) in expected.items()
    }
    for table in survey.declared.tables:
        there = survey.table(table.name)
        yield from _differences(there, table.name, survey.config.tables.schema_, expected)
        for column in filter(is_serial, table.columns):
            if there is None:  # a release that makes the table makes it
                name = sequence_name(table.name, column.name)
                yield from _differences(None, name, survey.config.tables.schema_, using, "SEQUENCE")
            elif (sequence := there.sequences.get(column.name)) is not None:
                yield from _differences(sequence, sequence.name, sequence.schema, using, "SEQUENCE")


def compare_cloud(survey: Survey) -> Iterator[MigrateOperation]:
    """Compare the API roles' and PUBLIC's privileges on views and foreign tables with the declared ones.

    Other roles have nothing on the foreign tables, which are the toolkit's own. So the view shows them nothing either.
    """
    config = survey.config
    grants = config.tables.view_grants
    if grants is None:
        return
    expected: dict[str, tuple[Role, tuple[Privilege, ...]]] = {
        name: (name, grants.get(name, ())) for name in survey.declared.view_roles
    }
    for table in survey.declared.tables:
        for schema in (config.tables.schema_, config.tables.link_schema):
            there = survey.relations.get((schema, table.name))
            if there is not None and there.kind in {"v", "f"}:  # a missing one is created with its grants
                held = {*there.grants, *there.column_grants} if there.kind == "f" else set()
                others = {name: (name, ()) for name in sorted(held - {*expected})}
                yield from _differences(there, table.name, schema, expected | others)


def _differences(
    there: Relation | SequenceFacts | None,
    what: str,
    schema: str,
    expected: Mapping[str, tuple[Role, tuple[Privilege, ...]]],
    kind: ObjectKind = "TABLE",
) -> Iterator[MigrateOperation]:
    for name, (role, privileges) in expected.items():
        held = there.grants.get(name, frozenset()) if there is not None else frozenset()
        on_columns = there.column_grants.get(name, frozenset()) if isinstance(there, Relation) else frozenset()
        missing = tuple(privilege for privilege in privileges if privilege not in held)
        surplus = tuple(sorted((held | on_columns) - set(privileges)))
        if missing:
            yield GrantOp(missing, what, (role,), kind, schema)
        if surplus:
            yield RevokeOp(cast("tuple[Privilege, ...]", surplus), what, (role,), kind, schema)


_IDENTIFIER = 63
"""The most bytes that a name may have."""


def sequence_name(table: str, column: str) -> str:
    """Return PostgreSQL's name for the sequence of a new serial column; the longer part is cut until both fit.

    https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/commands/indexcmds.c (makeObjectName)
    """
    names = [table.encode(), column.encode()]
    lengths = [len(name) for name in names]
    while sum(lengths) > _IDENTIFIER - len("__seq"):
        lengths[0 if lengths[0] > lengths[1] else 1] -= 1
    cut = [name[:length].decode(errors="ignore") for name, length in zip(names, lengths, strict=True)]
    return "_".join([*cut, "seq"])
