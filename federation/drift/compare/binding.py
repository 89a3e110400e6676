"""The binding as its frozen version has it: what somebody has changed of it, and what is missing.

How the server would spell it is learned as with everything that is declared: it is made beside, in schemas of other
names, and rolled back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation.databases import ddl
from federation.drift.finding import Finding
from federation.drift.survey import Survey, rolled_back, verbatim
from federation.operations.bindings import CreateCloudBindingOp, CreateLocalBindingOp, half

VERSION = "v1"

_BESIDE = "_as_declared"
_SCHEMA = re.compile(r"\b(federation_private|federation|auth)\b(?=[.;'\s])")
_ASKS = "SELECT federation_private.require_hospital();"
_CALLERS = re.compile(r"= ANY \(.*\) THEN")
"""Which roles an account takes at the hospital is the migration's, not the version's."""

_PARTS = sa.text(
    """
    SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) || ' OWNER TO ' || p.proowner::regrole
    FROM pg_catalog.pg_proc AS p WHERE p.pronamespace::regnamespace::text = ANY (:schemas)
    UNION ALL
    SELECT c.oid::regclass::text, concat_ws(' ', c.relkind, c.relrowsecurity, c.reloptions, pg_get_viewdef(c.oid),
        f.ftoptions, (SELECT s.srvname FROM pg_catalog.pg_foreign_server AS s WHERE s.oid = f.ftserver))
    FROM pg_catalog.pg_class AS c LEFT JOIN pg_catalog.pg_foreign_table AS f ON f.ftrelid = c.oid
    WHERE c.relnamespace::regnamespace::text = ANY (:schemas) AND c.relkind IN ('r', 'v', 'f')
    """
)


def compare(survey: Survey) -> Iterator[Finding]:
    """Functions, views and tables of the binding; nothing where no release has created it."""
    config, connection = survey.config, survey.connection
    if survey.side == "local":
        op: CreateLocalBindingOp | CreateCloudBindingOp = CreateLocalBindingOp(VERSION)
        schemas, made_by_it = ("federation", "auth"), "federation.account"
    else:
        op = CreateCloudBindingOp(VERSION, config.link.server, (*config.roles.callers, *config.roles.bypass))
        schemas, made_by_it = ("federation", "federation_private"), "federation_private.site"
    if connection.execute(sa.text("SELECT to_regclass(:name) IS NULL"), {"name": made_by_it}).scalar_one():
        return
    there = _parts(connection, schemas)
    beside = tuple(f"{schema}{_BESIDE}" for schema in schemas)
    with rolled_back(connection):
        text = _SCHEMA.sub(rf"\1{_BESIDE}", half(config, op).as_string(None).replace(_ASKS, ""))
        connection.execute(ddl(verbatim(f"CREATE SCHEMA {beside[0]};\n{text}")))
        declared = _parts(connection, beside)
    for name in sorted(declared):
        if there.get(name) != declared[name]:
            what = "is missing" if name not in there else f"is not what the binding's {VERSION} has"
            yield Finding(
                "binding", name, what, f"put it back as federation/binding/{VERSION}/{survey.side}.sql has it"
            )


def _parts(connection: Connection, schemas: tuple[str, ...]) -> dict[str, str]:
    """Definitions by name, under the names that they have in the database."""
    rows = connection.execute(_PARTS, {"schemas": list(schemas)})
    return {name.replace(_BESIDE, ""): _CALLERS.sub("", text.replace(_BESIDE, "")) for name, text in rows}
