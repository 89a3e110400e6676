"""What can be known before the first statement."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation import guard
from federation.config import Config
from federation.databases import DATABASE_ERRORS, over_the_link
from federation.environments import preconditions
from federation.errors import PreconditionMissing, Refused, Side, from_database
from federation.lockstep.copies import refuse_copy
from federation.lockstep.edited import edited_files
from federation.lockstep.expected import Expected
from federation.lockstep.plan import Direction, Step

_LOG = logging.getLogger("federation")

# A relation of an exported name is ours when it is a view that reads the foreign table of the same name.
_IN_THE_WAY = sa.text(
    """
    SELECT c.relname,
        CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                       WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' WHEN 'i' THEN 'index' ELSE 'table' END AS kind
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY (:names)
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_rewrite AS r
            JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
            JOIN pg_catalog.pg_foreign_table AS f ON f.ftrelid = d.refobjid
            JOIN pg_catalog.pg_class AS t ON t.oid = f.ftrelid AND t.relname = c.relname
            WHERE r.ev_class = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass)
    ORDER BY 1
    """
)


def check(
    config: Config,
    expected: Expected,
    steps: list[Step],
    sessions: dict[Side, Connection],
    *,
    at_base: bool,
    no_hospital_yet: bool,
) -> None:
    """Raise what would stop one of ``steps`` half-way. Reads only.

    ``at_base``: the hospital is there; ``no_hospital_yet``: it has no books either, which its first step makes, so that
    a link that is there already cannot be told from one that leads elsewhere.

    PreconditionMissing for a role, privilege, extension or setting, Refused for a step without a downgrade, for a
    table of an exported name that is not the toolkit's or a link that leads elsewhere, Unreachable for one that leads
    nowhere.
    """
    if any(step.direction is Direction.UP for step in steps):
        for side, session in sessions.items():
            preconditions.require(session, config, side)
        refuse_tables_in_the_way(config, "cloud", sessions["cloud"], expected, steps)
        if not no_hospital_yet:
            require_link(config, sessions["cloud"])
            refuse_copy(config, sessions["local"], sessions["cloud"])
        if at_base:
            refuse_tables_in_the_way(config, "local", sessions["local"], expected, steps)
    for side, session in sessions.items():
        for file in edited_files(expected.releases, side, session):
            _LOG.warning("federation: %s was edited after it ran: what it made is not what it says", file)
    for step in steps:
        module = expected.releases.script(step.side, step.release).module
        if step.direction is Direction.DOWN and not hasattr(module, "downgrade"):
            raise Refused(
                "the step cannot be undone: its file has no downgrade()",
                side=step.side,
                release=step.release,
                hint="nothing was changed; restore a backup if you must go back",
            )


def require_databases(config: Config, sessions: dict[Side, Connection]) -> None:
    """Raise unless both databases can be written, are those of their side and of this site, and were not set back.

    Asked before the hospital's mark is set, which may be another cloud's. Reads only. Raises PreconditionMissing,
    Refused or SetBack.
    """
    require_own(config, sessions)
    guard.require_whole(sessions["local"], sessions["cloud"])


def require_own(config: Config, sessions: dict[Side, Connection]) -> None:
    """Raise unless both databases can be written, and are those of their side and of this site. Reads only."""
    for side, session in sessions.items():
        read_only = session.exec_driver_sql("SHOW transaction_read_only").scalar_one()
        session.rollback()
        if read_only == "on":
            raise PreconditionMissing(
                "the database is read-only",
                side=side,
                hint=f"a standby, or default_transaction_read_only is on: let FEDERATION_{side.upper()}_URL lead to a "
                "database that can be written; nothing was changed",
            )
        guard.require_own(session, config, side)


def require_link(config: Config, cloud: Connection) -> None:
    """Raise unless the link, where there is one, leads to this site's hospital."""
    try:
        if cloud.exec_driver_sql("SELECT to_regclass('federation_private.guard') IS NOT NULL").scalar_one():
            with over_the_link(cloud, config):
                cloud.exec_driver_sql("SELECT federation_private.require_hospital()")
    except DATABASE_ERRORS as error:
        raise from_database(error, side="cloud") from error
    finally:
        cloud.rollback()


def refuse_tables_in_the_way(
    config: Config, side: Side, connection: Connection, expected: Expected, steps: list[Step]
) -> None:
    """Raise Refused when something of an exported table's name stands where ``steps`` will make a relation.

    A release need not make them all: the first one may hold the link alone.
    """
    tables, releases = config.tables, expected.releases
    made = [expected.makes(side, releases.position(step.release)) for step in steps if step.side == side]
    names = [name for name in tables.exported if any((tables.schema_, name) in relations for relations in made)]
    found = connection.execute(_IN_THE_WAY, {"schema": tables.schema_, "names": names}).all()
    connection.rollback()
    if found:
        relations = ", ".join(f"{kind} {tables.schema_}.{name}" for name, kind in found)
        raise Refused(
            f"in the way: {relations}",
            side=side,
            hint=f"nothing was changed; move it away (ALTER TABLE {tables.schema_}.{found[0].relname} SET SCHEMA …), "
            "upgrade, then copy its rows",
        )
