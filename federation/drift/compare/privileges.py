"""Privileges on the toolkit's own objects: the binding, the books, the private schemas and the foreign server.

What the binding grants is learned from the binding beside; what the books grant is a short list. Whoever holds more
can invent callers, write history or pass the guard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Literal, TypeAlias

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.drift.compare.binding import SCHEMAS, beside, in_place
from federation.drift.compare.binding import parts as binding_parts
from federation.drift.finding import Finding
from federation.drift.survey import Survey

Held: TypeAlias = set[tuple[str, str, str, str]]
"""(kind, object, grantee, privilege), as privileges.sql has them."""

_QUERY = sa.text(resources.files(__package__).joinpath("privileges.sql").read_text(encoding="utf-8"))

_GRANTABLE = " WITH GRANT OPTION"
_APPS = "auth."
"""In this schema a release may put functions of its own: only the binding's are compared there."""


def compare(survey: Survey) -> Iterator[Finding]:
    """Report privileges that are held and not declared, and those that are declared and missing."""
    config, connection = survey.config, survey.connection
    own = SCHEMAS[survey.side]
    declared, parts = _of_the_books(survey), set()
    with beside(survey) as schemas:
        if schemas:
            declared |= {(kind, in_place(name), who, what) for kind, name, who, what in _read(connection, schemas)}
            parts = set(binding_parts(connection, schemas))
    link = [config.tables.link_schema] if survey.side == "cloud" else []
    servers = [config.link.server] if survey.side == "cloud" else []
    held = _read(connection, own, link, servers)
    there = {one for one in held if not one[1].startswith(_APPS) or one[1] in parts}
    for kind, name, grantee, privilege in sorted(there - declared):
        yield _finding("REVOKE", kind, name, grantee, privilege)
    for kind, name, grantee, privilege in sorted(declared - there):
        yield _finding("GRANT", kind, name, grantee, privilege)


def _read(
    connection: Connection, contents: Sequence[str], schemas: Sequence[str] = (), servers: Sequence[str] = ()
) -> Held:
    """Of ``contents`` the schemas and all in them, of ``schemas`` themselves, and of foreign ``servers``."""
    asked = {"contents": list(contents), "schemas": [*contents, *schemas], "servers": list(servers)}
    return {(kind, name, grantee, privilege) for kind, name, grantee, privilege in connection.execute(_QUERY, asked)}


def _of_the_books(survey: Survey) -> Held:
    """What the books grant: the service role moves the mark of the hospital's guard."""
    exists = survey.connection.execute(sa.text("SELECT to_regclass('federation.guard') IS NOT NULL")).scalar_one()
    if survey.side == "cloud" or not exists:
        return set()
    service = survey.config.link.service_user
    return {
        ("SCHEMA", "federation", service, "USAGE"),
        ("TABLE", "federation.guard", service, "SELECT"),
        ("COLUMN", "federation.guard.cloud_release", service, "UPDATE"),
    }


def _finding(verb: Literal["GRANT", "REVOKE"], kind: str, name: str, grantee: str, privilege: str) -> Finding:
    """One privilege, and the statement that mends it."""
    bare, grantable = privilege.removesuffix(_GRANTABLE), privilege.endswith(_GRANTABLE)
    what, where = bare, f"{kind} {name}"
    if kind == "COLUMN":
        table, _, column = name.rpartition(".")
        what, where = f"{bare} ({column})", f"TABLE {table}"
    whom = grantee if grantee == "PUBLIC" else sql.Identifier(grantee).as_string(None)
    statement = f"{verb} {what} ON {where} {'FROM' if verb == 'REVOKE' else 'TO'} {whom}"
    if grantable and verb == "GRANT":
        statement += _GRANTABLE
    holds = "holds" if verb == "REVOKE" else "lacks"
    return Finding("privilege", name, f"{grantee} {holds} {privilege}", statement)
