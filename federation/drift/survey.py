"""Both views of one database, side by side: what is declared, as the server would spell it, and what is there.

How a server spells a type, default, policy or view body is learned by asking it: the declarations become temporary
objects inside a savepoint, are read back like everything else, and the savepoint is rolled back. Nothing that
another session could see is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from psycopg import sql
from psycopg.errors import InvalidTextRepresentation
from sqlalchemy import Column, Computed, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.engine.reflection import ObjectKind

from federation.config import Config
from federation.databases import asking, ddl
from federation.drift.catalog import Relation, Server, Types, read_relations, read_server, read_types
from federation.drift.declared import Declared, named_types, server_default
from federation.errors import Refused, Side
from federation.operations.deployment import LINK, SERVICE, LinkRole
from federation.operations.policies import CreatePolicyOp
from federation.operations.run import found
from federation.operations.statements import column_definition, foreign_column_definition, key, reflected, type_sql
from federation.operations.views import RLSView

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


@dataclass
class Survey:
    """What the comparators compare. ``spelled`` holds the declared tables, ``bodies`` the declared views' bodies."""

    side: Side
    connection: Connection
    declared: Declared
    relations: dict[tuple[str, str], Relation]
    spelled: dict[str, Relation]
    bodies: dict[str, str] = field(default_factory=dict)
    server: Server | None = None
    types: Types = field(default_factory=dict)
    hospital: dict[str, Relation] | None = None
    """The hospital's tables as they arrive over the link; None when it was not asked."""

    @property
    def config(self) -> Config:
        """The deployment's configuration."""
        return self.declared.config

    def view(self, table: Table) -> RLSView:
        """The declared view; columns that are there keep their order, so that new ones are appended in place."""
        declared, there = self.declared.view(table), self.table(table.name)
        if there is None or there.kind != "v":
            return declared
        kept = tuple(name for name in there.columns if name in declared.columns)
        added = tuple(name for name in declared.columns if name not in there.columns)
        comment = there.comment if self.config.tables.comments is None else declared.comment
        return replace(declared, columns=(*kept, *added), comment=comment)

    @cached_property
    def reflected(self) -> dict[str, dict[str, Column[Any]]]:
        """Columns of the foreign tables by table and name, as SQLAlchemy reads them: what a dropped one was."""
        found = sa.inspect(self.connection).get_multi_columns(
            schema=self.config.tables.link_schema,
            filter_names=[table.name for table in self.declared.tables],
            kind=ObjectKind.ANY,
        )
        return {
            name: {
                column["name"]: _column(column, numbered=there.columns[column["name"]].numbered) for column in columns
            }
            for (_, name), columns in found.items()
            if (there := self.foreign_table(name)) is not None
        }

    def table(self, name: str) -> Relation | None:
        """What stands in the app's schema under ``name``."""
        return self.relations.get((self.config.tables.schema_, name))

    def foreign_table(self, name: str) -> Relation | None:
        """The cloud's foreign table ``name``."""
        return self.relations.get((self.config.tables.link_schema, name))


def survey(connection: Connection, side: Side, declared: Declared, *, ask_hospital: bool) -> Survey:
    """Read one database. ``ask_hospital``: import the hospital's tables beside, to compare with them."""
    config = declared.config
    names = [table.name for table in declared.tables]
    schemas = [config.tables.schema_, config.tables.link_schema]
    with rolled_back(connection):
        relations, types = read_relations(connection, schemas, names), read_types(connection)
        server = read_server(connection, config.link.server) if side == "cloud" else None
        found = Survey(side, connection, declared, relations, {}, server=server, types=types)
        if names:
            _refuse_sequences(declared)
            _refuse_virtual(found)
            _refuse_unknown_types(found)
            try:
                connection.execute(ddl(sql.SQL(";\n").join(_make(found))))
            except sa.exc.DBAPIError as error:
                if isinstance(error.orig, InvalidTextRepresentation) and "enum" in str(error.orig).lower():
                    raise Refused(
                        "a declared default, policy or predicate has a label that the enum there lacks "
                        f"({error.orig.diag.message_primary})",
                        side=side,
                        hint="let a release add the label first, and declare what uses it after that",
                    ) from error
                raise
            schema = connection.exec_driver_sql("SELECT pg_my_temp_schema()::regnamespace::text").scalar_one()
            views = [_view_name(n) for n, _ in enumerate(names)]
            made = read_relations(connection, [schema], [*names, *views])
            found.spelled = {name: made[schema, name] for name in names}
            for name, view in zip(names, views, strict=True):
                if (schema, view) in made:
                    found.bodies[name] = made[schema, view].definition or ""
        if (
            ask_hospital
            and server is not None
            and names
            and _leads_to_the_hospital(config, server, connection.exec_driver_sql("SELECT current_user").scalar_one())
        ):
            found.hospital = _import(connection, config, names)
    return found


def _refuse_sequences(declared: Declared) -> None:
    """Raise Refused for a column that names its sequence: in the cloud it would be one of the cloud's own."""
    for table in declared.tables:
        for column in table.columns:
            named = (server_default(column) or "").lstrip(" (").lower().startswith("nextval")
            if named or isinstance(column.default, sa.Sequence):
                place = f"{table.name}.{column.name}"
                raise Refused(
                    f"column {place} is declared with a sequence (nextval), which the cloud does not have",
                    hint="declare sa.Identity(), or an integer primary key without a default, which is serial",
                )


def _refuse_virtual(survey: Survey) -> None:
    """Raise Refused for a column that SQLAlchemy makes VIRTUAL at the hospital: on 18, unless it is declared as STORED.

    IMPORT brings such a column as an ordinary one, of which postgres_fdw would send a value.
    """
    is_default = (survey.connection.dialect.server_version_info or ()) >= (18,)
    for table in survey.declared.tables if survey.side == "local" else ():
        for column in table.columns:
            persisted = column.computed is None or column.computed.persisted
            if persisted is False or (persisted is None and is_default):
                raise Refused(
                    f"column {table.name}.{column.name} is VIRTUAL, which a foreign table's column cannot stand for",
                    side="local",
                    hint="declare sa.Computed(…, persisted=True)",
                )


_UNKNOWN = sa.text(
    """
    SELECT n.place, n.kind, n.name FROM unnest(:places, :kinds, :names) AS n (place, kind, name)
    WHERE CASE n.kind WHEN 'type' THEN to_regtype(n.name) IS NULL ELSE to_regcollation(quote_ident(n.name)) IS NULL END
    """
).bindparams(*(sa.bindparam(name, type_=sa.ARRAY(sa.Text)) for name in ("places", "kinds", "names")))


def _refuse_unknown_types(survey: Survey) -> None:
    """Raise Refused for a declared column whose type or collation this database does not know.

    A declared enum or domain is no such type: a release creates it.
    """
    needed: list[tuple[str, str, str]] = []
    for table in survey.declared.tables:
        for column in table.columns:
            if any(key(type_) not in survey.types for type_ in named_types(column.type)):
                continue
            place, type_ = f"{table.name}.{column.name}", column.type
            collation = getattr(type_, "collation", None)
            if collation is not None:
                needed.append((place, "collation", collation))
                type_ = copy(type_)
                type_.collation = None  # type: ignore[attr-defined]
            needed.append((place, "type", type_sql(type_).as_string(None)))
    places, kinds, names = zip(*needed, strict=True)
    chosen = {"places": list(places), "kinds": list(kinds), "names": list(names)}
    unknown = survey.connection.execute(_UNKNOWN, chosen).all()
    if unknown:
        where = "the hospital" if survey.side == "local" else "the cloud"
        raise Refused(
            "; ".join(
                f"column {place} is declared with {kind} {name}, which {where} does not have"
                for place, kind, name in unknown
            ),
            side=survey.side,
            hint=f"create the {unknown[0].kind} there (CREATE EXTENSION …, op.create_type), or declare another one",
        )


def _leads_to_the_hospital(config: Config, server: Server, owner: str) -> bool:
    """Whether the link goes where this deployment says; if not, that is found, and there is nobody to ask."""
    address = config.link_address().options()
    login = SERVICE if owner in server.mappings else LINK
    user = server.mappings.get(owner if owner in server.mappings else "public")
    return address.items() <= server.options.items() and user == login.name(config)


def _column(found: ReflectedColumn, *, numbered: bool) -> Column[Any]:
    """A foreign table's column as it would be declared; one that the hospital numbers does not say by what."""
    if numbered:
        return Column(found["name"], found["type"], nullable=found["nullable"], autoincrement=True)
    generated = reflected(found).get("computed")
    items = [] if generated is None else [Computed(generated["sqltext"], persisted=True)]
    return Column(found["name"], found["type"], *items, nullable=found["nullable"])


def _view_name(number: int) -> str:
    """A name of its own, since a temporary table has the view's."""
    return f"federation declared view {number}"


@contextmanager
def rolled_back(connection: Connection) -> Iterator[None]:
    """Whatever the block makes is gone after it."""
    with connection.begin_nested() as savepoint:
        try:
            yield
        finally:
            savepoint.rollback()


def _make(survey: Survey) -> Iterator[sql.Composable]:
    """The statements that make the declarations as temporary objects; sent as one, however many they are."""
    declared = survey.declared
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    for type_ in declared.types:
        if key(type_) not in survey.types:
            create = postgresql.CreateDomainType if isinstance(type_, postgresql.DOMAIN) else postgresql.CreateEnumType
            yield verbatim(str(create(type_).compile(dialect=dialect)))
    for number, table in enumerate(declared.tables):
        definitions = []
        for column in table.columns:
            default = server_default(column)
            clause = [] if default is None else [sql.SQL("DEFAULT {}").format(verbatim(default))]
            definitions.append(sql.Composed([_column_definition(survey, table, column), *clause]).join(" "))
        name = sql.Identifier("pg_temp", table.name)
        yield sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(", ").join(definitions))
        if survey.side == "local":
            yield from (_policy(survey, policy) for policy in declared.policies(table) or ())
        elif (source := survey.foreign_table(table.name)) is not None:
            view = survey.view(table)
            if set(view.columns) <= set(source.columns):
                yield _view(view, _view_name(number))


def _column_definition(survey: Survey, table: Table, column: Column[Any]) -> sql.Composed:
    """With the expression of a generated column, where there is one at the hospital to compare it with.

    What a new one names may be the same release's to make.
    """
    there = survey.table(table.name)
    if column.computed is None or survey.side != "local" or there is None or column.name not in there.columns:
        return column_definition(column)
    return foreign_column_definition(column)


def _policy(survey: Survey, policy: CreatePolicyOp) -> sql.Composed:
    roles = [role.name(survey.config) if isinstance(role, LinkRole) else role for role in policy.roles]
    parts = [
        sql.SQL("CREATE POLICY {} ON {}{} FOR {} TO {}").format(
            sql.Identifier(policy.name),
            sql.Identifier("pg_temp", policy.table),
            sql.SQL(" AS RESTRICTIVE" if policy.restrictive else ""),
            sql.SQL(policy.command),
            sql.SQL(", ").join(sql.SQL("PUBLIC") if role == "public" else sql.Identifier(role) for role in roles),
        )
    ]
    if policy.using is not None:
        parts.append(sql.SQL("USING ({})").format(verbatim(policy.using)))
    if policy.with_check is not None:
        parts.append(sql.SQL("WITH CHECK ({})").format(verbatim(policy.with_check)))
    return sql.Composed(parts).join(" ")


def _view(view: RLSView, name: str) -> sql.Composed:
    return sql.SQL("CREATE TEMPORARY VIEW {} AS SELECT {} FROM {} WHERE ({})").format(
        sql.Identifier(name),
        sql.SQL(", ").join(sql.Identifier(column) for column in view.columns),
        sql.Identifier(view.source_schema, view.name),
        verbatim(view.predicate),
    )


def survey_of(context: AutogenContext) -> Survey | None:
    """The survey of an autogeneration; None in an environment that is not the toolkit's."""
    run = found(context.migration_context)
    return run.survey if run is not None and isinstance(run.survey, Survey) else None


def verbatim(text: str) -> sql.Composed:
    """SQL by declaration, in which braces are no fields."""
    return sql.SQL(text.replace("{", "{{").replace("}", "}}")).format()


def _import(connection: Connection, config: Config, names: list[str]) -> dict[str, Relation]:
    connection.execute(
        asking(
            sql.SQL(
                "CREATE SCHEMA federation_import; IMPORT FOREIGN SCHEMA {} LIMIT TO ({}) FROM SERVER {} INTO {}"
            ).format(
                sql.Identifier(config.tables.schema_),
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.Identifier(config.link.server),
                sql.Identifier("federation_import"),
            )
        )
    )
    arrived = read_relations(connection, ["federation_import"], names)
    return {name: relation for (_, name), relation in arrived.items()}
