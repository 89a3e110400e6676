"""Foreign tables: what they read, their columns and options; the trigger that names the caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alembic.operations import MigrateOperation
from sqlalchemy import Column, Table

from federation.config import IMPORTED
from federation.drift.as_declared import view_was
from federation.drift.catalog import ColumnFacts, Relation
from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.bindings import BindBeforeWriteOp
from federation.operations.foreign_tables import (
    AlterForeignTableOp,
    ImportForeignSchemaOp,
    SetForeignTableOptionsOp,
)
from federation.operations.statements import is_numbered, remade
from federation.operations.views import CreateRLSViewOp, DropRLSViewOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Import missing tables and add missing columns; `removed_columns` drops surplus ones later."""
    config = survey.config
    for table in survey.declared.tables:
        options = config.tables.options.get(table.name, {})
        columns, there = tuple(table.columns), survey.foreign_table(table.name)
        if there is None:
            yield ImportForeignSchemaOp(
                config.tables.schema_, config.link.server, config.tables.link_schema, {table.name: columns}
            )
            yield BindBeforeWriteOp(table.name, config.tables.link_schema)
            if options:
                yield SetForeignTableOptionsOp(table.name, config.tables.link_schema, options)
            continue
        yield from _source(survey, table.name, there)
        was = {key: value for key, value in there.server_options.items() if key not in IMPORTED}
        if was != options:
            yield SetForeignTableOptionsOp(table.name, config.tables.link_schema, options, was)
        yield from _generated(survey, table, there)
        yield from _columns(survey, table, columns, there)
        name = f"{config.tables.link_schema}.{table.name}"
        if "bind_before_write" in there.disabled_triggers:
            hint = f"ALTER FOREIGN TABLE {name} ENABLE TRIGGER bind_before_write"
            yield Finding("trigger", f"{name}.bind_before_write", "is disabled", hint)
        elif "bind_before_write" not in there.triggers:
            yield BindBeforeWriteOp(table.name, config.tables.link_schema)
        for trigger in sorted(there.row_triggers) if any(map(is_numbered, columns)) else ():
            detail = "fires before the update of each row, so that every column is sent and the row gets a new number"
            yield Finding("trigger", f"{name}.{trigger}", detail, f"DROP TRIGGER {trigger} ON {name}")


def _source(survey: Survey, table: str, there: Relation) -> Iterator[Finding]:
    """Whether the foreign table reads a table and columns of the same names at the hospital."""
    config = survey.config
    name = f"{config.tables.link_schema}.{table}"
    declared = config.link.server, config.tables.schema_, table
    reads = there.server, there.server_options.get("schema_name"), there.server_options.get("table_name")
    if reads != declared:
        yield Finding(
            "foreign table",
            name,
            f"reads {'.'.join(map(str, reads))} and should read {'.'.join(declared)}",
            "drop it with its view; federation revision --autogenerate imports it again",
        )
    for column, facts in there.columns.items():
        if facts.remote_name not in {None, column}:
            hint = f"ALTER FOREIGN TABLE {name} ALTER {column} OPTIONS (SET column_name '{column}')"
            yield Finding("foreign column", f"{name}.{column}", f"reads the column {facts.remote_name}", hint)


def _generated(survey: Survey, table: Table, there: Relation) -> Iterator[Finding]:
    """Report columns that are generated on one side only.

    If the cloud's copy is an ordinary column, postgres_fdw sends a value for it, and the hospital rejects it.
    """
    for column in table.columns:
        if column.name in there.columns and _is_generated(column) != _is_generated(there.columns[column.name]):
            yield Finding(
                "foreign column",
                f"{survey.config.tables.link_schema}.{table.name}.{column.name}",
                "is not generated and should be" if _is_generated(column) else "is generated and should not be",
                "write a release by hand that drops and adds it (op.alter_foreign_table), its view around that",
            )


def _is_generated(column: Column[Any] | ColumnFacts) -> bool:
    """Whether the column is GENERATED AS (expression); `is_numbered()` handles identity and serial columns."""
    if isinstance(column, ColumnFacts):
        return bool(column.generated) and not column.numbered
    return column.computed is not None


def _columns(
    survey: Survey, table: Table, columns: tuple[Column[Any], ...], there: Relation
) -> Iterator[MigrateOperation]:
    spelled = survey.spelled[table.name].columns

    def differs(column: Column[Any]) -> bool:
        found = there.columns[column.name]
        if _is_generated(column) != _is_generated(found):
            return False
        return str(found) != str(spelled[column.name]) or found.numbered != is_numbered(column)

    made = {column.name: column for column in remade(columns)}
    add = tuple(made.get(column.name, column) for column in columns if column.name not in there.columns)
    alter = tuple(
        (survey.reflected[table.name][column.name], column)
        for column in columns
        if column.name in there.columns and differs(column)
    )
    if not add and not alter:
        return
    op = AlterForeignTableOp(table.name, survey.config.tables.link_schema, add=add, alter=alter)
    rebuilt = any(
        there.columns[new.name].type != spelled[new.name].type or is_numbered(old) or is_numbered(new)
        for old, new in alter
    )
    view = survey.table(table.name)
    if rebuilt and view is not None and view.kind == "v":
        # A column's type cannot change under a view, nor can it be dropped and added.
        was = view_was(survey, table, view)
        yield DropRLSViewOp(was)
        yield op
        yield CreateRLSViewOp(was)
    else:
        yield op
