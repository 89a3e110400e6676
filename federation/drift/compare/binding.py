"""Compare the binding with its frozen version.

How the server would spell it is learned as with everything that is declared: it is made beside, in schemas of other
names, and rolled back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation.databases import ddl
from federation.drift.finding import Finding
from federation.drift.survey import Survey, rolled_back, verbatim
from federation.errors import Side
from federation.operations.bindings import CreateCloudBindingOp, CreateLocalBindingOp, half
from federation.operations.privileges import revoke_defaults

VERSION = "v1"
SCHEMAS: dict[Side, tuple[str, ...]] = {"local": ("federation", "auth"), "cloud": ("federation", "federation_private")}
"""Where the binding stands; the books share the first one with it."""

_MADE: dict[Side, str] = {"local": "federation.account", "cloud": "federation_private.site"}
"""What is there when a release has created the binding."""

_BESIDE = "_as_declared"
_SCHEMA = re.compile(r"\b(federation_private|federation|auth)\b(?=[.;'\s])")
_ASKS = "SELECT federation_private.require_hospital();"
_CALLERS = re.compile(r"account_role = ANY \('({[^']*})'\)")
_TAKE = sa.text(
    "SELECT (SELECT p.prosrc FROM pg_proc AS p WHERE p.oid = to_regprocedure('federation.take(uuid, text)'))"
)
_AS_ARRAY = sa.text("SELECT CAST(:roles AS text[])")

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
    """Compare functions, views and tables of the binding; yield nothing if no release has created it."""
    with beside(survey) as schemas:
        declared = parts(survey.connection, schemas) if schemas else {}
    there = parts(survey.connection, SCHEMAS[survey.side]) if declared else {}
    for name in sorted(declared):
        if there.get(name) != declared[name]:
            what = "is missing" if name not in there else f"is not what the binding's {VERSION} has"
            yield Finding(
                "binding", name, what, f"put it back as federation/binding/{VERSION}/{survey.side}.sql has it"
            )


@contextmanager
def beside(survey: Survey) -> Iterator[tuple[str, ...]]:
    """The schemas in which the binding stands as its version makes it; none where no release has created it."""
    config, connection = survey.config, survey.connection
    if connection.execute(sa.text("SELECT to_regclass(:name) IS NULL"), {"name": _MADE[survey.side]}).scalar_one():
        yield ()
        return
    op: CreateLocalBindingOp | CreateCloudBindingOp
    if survey.side == "local":
        op = CreateLocalBindingOp(VERSION, _callers(connection))
    else:
        op = CreateCloudBindingOp(VERSION, config.link.server, (*config.roles.callers, *config.roles.bypass))
    schemas = tuple(f"{schema}{_BESIDE}" for schema in SCHEMAS[survey.side])
    with rolled_back(connection):
        text = _SCHEMA.sub(rf"\1{_BESIDE}", half(config, op).as_string(None).replace(_ASKS, ""))
        books = verbatim(f"CREATE SCHEMA {schemas[0]}")  # the books' schema, and what default privileges give on it
        for made in (books, revoke_defaults([], schemas[0]), verbatim(text)):
            connection.execute(ddl(made))
        yield schemas


def in_place(name: str) -> str:
    """The name in the database of what is beside under ``name``."""
    return name.replace(_BESIDE, "")


def _callers(connection: Connection) -> tuple[str, ...]:
    """Which roles an account takes at the hospital: the migration says it, and no declaration does."""
    source = connection.execute(_TAKE).scalar_one()
    found = _CALLERS.search(source or "")
    return tuple(connection.execute(_AS_ARRAY, {"roles": found.group(1)}).scalar_one()) if found else ()


def parts(connection: Connection, schemas: tuple[str, ...]) -> dict[str, str]:
    """Definitions by name, under the names that they have in the database."""
    rows = connection.execute(_PARTS, {"schemas": list(schemas)})
    return {in_place(name): in_place(text) for name, text in rows}
