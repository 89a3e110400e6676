"""The indexes that committed steps have dropped concurrently: set aside under another name, dropped afterwards."""

from __future__ import annotations

import logging
import re

from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import connect, ddl
from federation.errors import FederationError
from federation.operations.indexes import gexec
from federation.operations.run import run_of

_LOG = logging.getLogger("federation")

_DROP_SET_ASIDE = sql.SQL(
    """
SELECT format('DROP INDEX CONCURRENTLY IF EXISTS %I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'i' AND c.relname ~ '^federation_dropped_[0-9]+$' AND pg_has_role(c.relowner, 'USAGE')
"""
)


def drop_set_aside(config: Config, connection: Connection) -> None:
    """Drop the indexes that committed steps have dropped concurrently, each in a session of its own.

    ``connection`` to the hospital's database is only asked whether there are any. Since their steps are done, a failure
    is a warning, and keeps none of the others: the next run drops it.
    """
    drops = connection.execute(ddl(_DROP_SET_ASIDE)).scalars().all()
    connection.rollback()
    for drop in drops:
        _drop(config, drop)


def _drop(config: Config, drop: str) -> None:
    try:
        with connect(config, "local") as session:
            session.execution_options(isolation_level="AUTOCOMMIT")
            session.execute(ddl(sql.SQL(drop)))
    except FederationError as error:
        _LOG.warning("federation: a dropped index is there under another name until the next run drops it: %s", error)


def is_set_aside(name: str) -> bool:
    """Whether the name is that of an index renamed for a later DROP; releases treat such an index as gone."""
    return re.fullmatch("federation_dropped_[0-9]+", name) is not None


def drop_set_aside_offline(context: MigrationContext) -> None:
    """The same at the end of ``--sql``, where its steps have dropped any."""
    run = run_of(context)
    if run.sets_aside:
        run.sets_aside = False
        context.impl.static_output(gexec(_DROP_SET_ASIDE))
