"""What both env.py files run: one transaction a migration, online and ``--sql``, errors with their exit codes.

The runner hands a `Run` over in ``Config.attributes``; for plain ``alembic`` one is made, with the federation.toml
beside alembic.ini.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from alembic import context
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.util import CommandError
from sqlalchemy import MetaData, Table, event
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import ReflectedColumn

from federation import guard, operations, plugin
from federation.config import Config
from federation.databases import DATABASE_ERRORS, connect, over_the_link, run_lock
from federation.environments import preconditions
from federation.environments.failures import from_migration
from federation.environments.rewrites import without_rewrite, without_rewrite_offline
from federation.environments.set_aside import drop_set_aside, drop_set_aside_offline, is_set_aside
from federation.errors import FederationError, LockHeld, PreconditionMissing, Refused, Side, from_database
from federation.operations.rendering import render_item
from federation.operations.run import OPTION, Run
from federation.operations.statements import reflected

_LOG = logging.getLogger("federation")

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
    run = alembic_config.attributes.get(OPTION) or Run(_load(alembic_config), side)
    run.metadata, run.override = _metadata(run.config), _override()
    config = run.config
    if context.is_offline_mode():
        _configure(run, dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        if side == "cloud":
            context.execute("SELECT federation.settle()")
        else:
            drop_set_aside_offline(context.get_context())
    elif run.connection is not None:
        _run_online(run, run.connection, _Progress())
    else:
        with connect(config, side) as connection, ExitStack() as stack:
            progress = _Progress(lambda: stack.enter_context(run_lock(config, sides=(side,))))
            try:
                _run_online(run, connection, progress)
            finally:  # a later step may have failed
                if side == "cloud" and progress.committed and not progress.hospital_is_silent:
                    _tell_the_hospital(connection, config)
            if side == "local" and progress.committed:
                drop_set_aside(config, connection)


def _tell_the_hospital(connection: Connection, config: Config) -> None:
    """What the cloud needs no longer. A hospital that does not answer is no reason to fail: the step is done."""
    try:
        connection.rollback()  # of a step that has failed
        with over_the_link(connection, config):
            guard.settle_over_link(connection)
    except DATABASE_ERRORS as error:
        said = from_database(error, side="cloud").message
        _LOG.warning("federation: %s; until the hospital is told, it keeps what the cloud needed before", said)


def _keep_mark_if_silent(connection: Connection, config: Config) -> bool:
    """A cloud downgrade works without the hospital, so it is asked once and in time; whether it does not answer."""
    if not connection.exec_driver_sql("SELECT to_regclass('federation_private.guard') IS NOT NULL").scalar_one():
        connection.rollback()
        return False
    try:
        with over_the_link(connection, config):
            connection.exec_driver_sql("SELECT FROM federation_private.guard")
    except DATABASE_ERRORS as error:
        connection.rollback()
        connection.exec_driver_sql("SET federation.keep_mark = 'on'")
        connection.commit()
        said = from_database(error, side="cloud")
        _LOG.warning("federation: %s; the hospital could not be told that the cloud needs less", said.message)
        return True
    connection.rollback()
    return False


def _run_online(run: Run, connection: Connection, progress: _Progress) -> None:
    side = run.side
    _configure(run, progress, connection=connection)
    try:
        with context.begin_transaction(), _reflected_as_text():
            context.run_migrations()
    except DATABASE_ERRORS as error:
        raise from_database(error, side=side, release=progress.release) from error
    except FederationError as error:
        error.side, error.release = error.side or side, error.release or progress.release
        raise
    except CommandError:
        raise
    except Exception as error:
        if progress.release is None:  # no migration was running
            raise
        raise from_migration(error, side=side, release=progress.release) from error


@contextmanager
def _reflected_as_text() -> Iterator[None]:
    """While it is open, what autogenerate reads from the database can be written as Python; Alembic has no hook."""

    def listener(_inspector: object, _table: Table, column: ReflectedColumn) -> None:
        column.update(reflected(column))

    event.listen(Table, "column_reflect", listener)
    try:
        yield
    finally:
        event.remove(Table, "column_reflect", listener)


@dataclass
class _Progress:
    """Which release is being applied or undone: what an error names; whether any is done, and with which hospital."""

    take_lock: Callable[[], object] = lambda: None
    """Takes the lock of a run, before the first step. The runner has it already."""
    release: str | None = None
    begun: bool = False
    committed: bool = False
    hospital_is_silent: bool = False


def _configure(run: Run, progress: _Progress | None = None, **options: Any) -> None:
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
        "target_metadata": run.metadata if run.side == "local" else MetaData(),
        "include_name": _managed(run),
        "include_schemas": True,
        "compare_server_default": True,
        "render_item": render_item,
        "autogenerate_plugins": ["alembic.autogenerate.*", "federation"],
        OPTION: run,
    }
    context.configure(**options)
    # The version table is made when a step runs: until then nothing is written, not by `check` either. So Alembic is
    # told not to make it (as its own `current` does), and its source of steps is asked through one that prepares.
    steps = context.get_context().opts["fn"]
    context.configure(**options, dont_mutate=True, fn=_prepared(steps, run, progress))


def _override() -> str | None:
    """The reason of ``alembic -x override=REASON``, with which the guard lets a step pass and writes it down."""
    reason = context.get_x_argument(as_dictionary=True).get("override")
    if reason is not None and not reason.strip():
        raise PreconditionMissing("-x override= has no reason", hint="say why: the history keeps it")
    return reason


Steps = Callable[[Any, MigrationContext], Iterable[MigrationStep]]


def _prepared(steps: Steps, run: Run, progress: _Progress) -> Steps:
    """``steps``, with preconditions checked and schema ``federation`` made before the first one."""

    config, side = run.config, run.side

    def generate(heads: Any, migration_context: MigrationContext) -> Iterator[MigrationStep]:
        for step in _complete(steps, heads, migration_context, side):
            revisions = step.to_revisions_no_deps if step.is_upgrade else step.from_revisions_no_deps
            progress.release = revisions[0] if revisions else None
            if not progress.begun:
                connection = None if migration_context.as_sql else migration_context.connection
                if connection is not None and run.connection is None:
                    # The runner has checked them for all its steps, and has its own way to the hospital.
                    progress.take_lock()
                    _require_same(migration_context, heads)
                    guard.require_own(connection, config, side)
                    if step.is_upgrade:
                        preconditions.require(connection, config, side)
                    elif side == "cloud":
                        progress.hospital_is_silent = _keep_mark_if_silent(connection, config)
                guard.prepare(migration_context, config, side, step)
                progress.begun = True
                if not step.from_revisions_no_deps and migration_context.as_sql:
                    step.migration_fn = _after(guard.set_trigger, migration_context, step.migration_fn)
            if migration_context.as_sql:
                step.migration_fn = guard.from_its_release(step.migration_fn, migration_context, step)
            if run.undoing:
                step.migration_fn = guard.without_loss(step.migration_fn, migration_context)
            step.migration_fn = _gentle(step.migration_fn, migration_context, run)
            yield step
            progress.committed = True

    return generate


def _gentle(migration: Callable[..., Any], migration_context: MigrationContext, run: Run) -> Callable[..., Any]:
    """``migration`` with what keeps it from disturbing the app: its locks come first, and a rewrite is found."""
    if migration_context.as_sql:
        may_rewrite = run.side == "cloud" or run.override is not None
        return migration if may_rewrite else without_rewrite_offline(migration, migration_context, run.config)
    if run.side == "local":
        migration = without_rewrite(migration, migration_context, run)
    return migration if run.first is None else _after(run.first, migration_context, migration)


def _require_same(migration_context: MigrationContext, heads: Any) -> None:
    """Raise LockHeld where another run ended between Alembic's look at the release and the lock."""
    if set(migration_context.get_current_heads()) != set(heads):
        raise LockHeld("another federation run has just changed the release", hint="see `federation status`, try again")


def _complete(steps: Steps, heads: Any, migration_context: MigrationContext, side: Side) -> list[MigrationStep]:
    """Return the steps. Raise Refused if a revision file lacks ``upgrade()`` or ``downgrade()``."""
    try:
        return list(steps(heads, migration_context) or ())
    except AttributeError as error:
        if error.name not in {"upgrade", "downgrade"} or not isinstance(error.obj, ModuleType):
            raise
        raise Refused(
            f"the step cannot be {'undone' if error.name == 'downgrade' else 'run'}: its file has no {error.name}()",
            side=side,
            release=getattr(error.obj, "revision", None),
            hint="nothing was changed"
            + ("; restore a backup if you must go back" if error.name == "downgrade" else "; write one"),
        ) from error


def _after(
    first: Callable[[MigrationContext], None], migration_context: MigrationContext, migration: Callable[..., Any]
) -> Callable[..., Any]:
    """``migration`` with ``first`` before it, inside its transaction."""

    @wraps(migration)  # Alembic prints its name
    def both(**arguments: Any) -> None:
        first(migration_context)
        migration(**arguments)

    return both


def _metadata(config: Config) -> MetaData:
    """The declared local tables, if federation.toml names them."""
    if config.tables.metadata is None:
        return MetaData()
    module, _, attribute = config.tables.metadata.partition(":")
    try:
        metadata = getattr(importlib.import_module(module), attribute or "metadata")
    except FederationError:
        raise
    except Exception as error:  # the models are Python of the app's, and may raise anything
        raise PreconditionMissing(
            f"tables.metadata names {config.tables.metadata}, which cannot be imported ({_cause(error)})",
            hint="correct the module, or write module:attribute, importable from the folder of alembic.ini",
        ) from error
    if not isinstance(metadata, MetaData):
        raise PreconditionMissing(
            f"{config.tables.metadata} is not a MetaData", hint="set tables.metadata to module:attribute"
        )
    return metadata


def _cause(error: Exception) -> str:
    """Name an error of the models, with the place where the app's code is wrong."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in {error.filename}, line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {error}"


def _managed(run: Run) -> Callable[[str | None, str, Any], bool]:
    """Autogenerate looks at declared tables only: what the toolkit did not declare is not its to drop.

    Nor does it look at indexes that the next run drops.
    """
    tables = run.metadata.tables.values() if run.side == "local" else ()
    declared = {(table.schema, table.name) for table in tables}

    def include_name(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name in {schema for schema, _ in declared}
        if kind == "index":
            return name is None or not is_set_aside(name)
        return kind != "table" or (parents["schema_name"], name) in declared

    return include_name


def _load(alembic_config: AlembicConfig) -> Config:
    file = alembic_config.config_file_name
    folder = Path(file).parent if file else Path()
    toml = folder / "federation.toml"
    return Config.load(toml if toml.exists() else None)
