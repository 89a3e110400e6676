"""What both env.py files run: one transaction a migration, online and ``--sql``, errors with their exit codes.

The runner hands its connection and configuration over in ``Config.attributes`` (``connection``, ``federation``);
plain ``alembic`` reads federation.toml beside alembic.ini.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from alembic import context
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext, MigrationStep
from sqlalchemy import MetaData
from sqlalchemy.engine import Connection

from federation import guard, operations, plugin
from federation.config import Config
from federation.databases import DATABASE_ERRORS, connect
from federation.environments import preconditions
from federation.errors import FederationError, PreconditionMissing, Side, from_database
from federation.operations.rendering import render_item

__all__ = ["operations", "run"]  # importing the operations registers them on alembic.op


def run(side: Side) -> None:
    """Run what Alembic asked the environment of ``side`` for.

    Called from the command line, an error of ours is one sentence on standard error and its exit code; called by
    the runner it is raised.
    """
    alembic_config = context.config
    try:
        _run(side, alembic_config)
    except FederationError as error:
        if alembic_config.cmd_opts is None:
            raise
        print(f"federation: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def _run(side: Side, alembic_config: AlembicConfig) -> None:
    if alembic_config.config_ini_section != side:
        raise PreconditionMissing(
            f"section [{alembic_config.config_ini_section}] runs the {side} environment",
            hint="the environments are [local] and [cloud]: alembic -n local …, alembic -n cloud …",
        )
    config = alembic_config.attributes.get("federation") or _load(alembic_config)
    if context.is_offline_mode():
        _configure(config, side, dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
    elif "connection" in alembic_config.attributes:
        _run_online(config, side, alembic_config.attributes["connection"])
    else:
        with connect(config, side) as connection:
            _run_online(config, side, connection)


def _run_online(config: Config, side: Side, connection: Connection) -> None:
    progress = _Progress()
    _configure(config, side, progress, connection=connection)
    try:
        with context.begin_transaction():
            context.run_migrations()
    except DATABASE_ERRORS as error:
        raise from_database(error, side=side, release=progress.release) from error
    except FederationError as error:
        error.side, error.release = error.side or side, error.release or progress.release
        raise


class _Progress:
    """Which release is being applied or undone: what an error names."""

    release: str | None = None


def _configure(config: Config, side: Side, progress: _Progress | None = None, **options: Any) -> None:
    if plugin.failure is not None:  # its comparators would find that nothing differs
        raise PreconditionMissing(
            f"federation's Alembic plugin did not load ({plugin.failure})",
            hint="pip install --force-reinstall alembic-federation",
        ) from plugin.failure
    progress = progress or _Progress()
    options |= {
        "version_table": guard.VERSION_TABLE,
        "version_table_schema": guard.SCHEMA,
        "transaction_per_migration": True,
        "on_version_apply": guard.record,
        "target_metadata": _metadata(config) if side == "local" else MetaData(),
        "include_name": _managed(config, side),
        "include_schemas": True,
        "compare_server_default": True,
        "render_item": render_item,
        "autogenerate_plugins": ["alembic.autogenerate.*", "federation"],
        "federation": config,
        "federation_side": side,
        "federation_metadata": _metadata(config),
        # A release that is being written is not at the hospital yet: only a check compares with what is there.
        "federation_ask_hospital": not context.config.attributes.get("federation_scaffold", False),
    }
    context.configure(**options)
    # The version table is made when a step runs: until then nothing is written, not by `check` either. So Alembic is
    # told not to make it (as its own `current` does), and its source of steps is asked through one that prepares.
    steps = context.get_context().opts["fn"]
    context.configure(**options, dont_mutate=True, fn=_prepared(steps, config, side, progress))


Steps = Callable[[Any, MigrationContext], Iterable[MigrationStep]]


def _prepared(steps: Steps, config: Config, side: Side, progress: _Progress) -> Steps:
    """``steps``, with preconditions checked and schema ``federation`` made before the first one."""

    def generate(heads: Any, migration_context: MigrationContext) -> Iterator[MigrationStep]:
        first = True
        for step in list(steps(heads, migration_context) or ()):
            revisions = step.to_revisions_no_deps if step.is_upgrade else step.from_revisions_no_deps
            progress.release = revisions[0] if revisions else None
            if first:
                if migration_context.connection is not None and not migration_context.as_sql and step.is_upgrade:
                    preconditions.require(migration_context.connection, config, side)
                guard.prepare(migration_context, from_base=not step.from_revisions_no_deps)
                first = False
            yield step

    return generate


def _metadata(config: Config) -> MetaData:
    """The declared local tables, if federation.toml names them."""
    if config.tables.metadata is None:
        return MetaData()
    module, _, attribute = config.tables.metadata.partition(":")
    try:
        metadata = getattr(importlib.import_module(module), attribute or "metadata")
    except (ImportError, AttributeError) as error:
        raise PreconditionMissing(
            f"tables.metadata names {config.tables.metadata}, which cannot be imported",
            hint="write it as module:attribute, importable from the folder of alembic.ini",
        ) from error
    if not isinstance(metadata, MetaData):
        raise PreconditionMissing(f"{config.tables.metadata} is no sqlalchemy.MetaData", hint="name one")
    return metadata


def _managed(config: Config, side: Side) -> Callable[[str | None, str, Any], bool]:
    """Autogenerate looks at declared tables only: what the toolkit did not declare is not its to drop."""
    tables = _metadata(config).tables.values() if side == "local" else ()
    declared = {(table.schema, table.name) for table in tables}

    def include_name(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name in {schema for schema, _ in declared}
        return kind != "table" or (parents["schema_name"], name) in declared

    return include_name


def _load(alembic_config: AlembicConfig) -> Config:
    file = alembic_config.config_file_name
    folder = Path(file).parent if file else Path()
    toml = folder / "federation.toml"
    return Config.load(toml if toml.exists() else None)
