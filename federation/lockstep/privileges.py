"""The privileges that the releases grant, granted again: after ``pg_restore --no-acl`` there are none.

The chain's own GRANT and REVOKE statements are run once more, release by release, in one transaction a side.
"""

from __future__ import annotations

import re

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation import guard
from federation.config import Config
from federation.databases import asked, ddl
from federation.errors import Side
from federation.lockstep.plan import Direction, Step
from federation.lockstep.planned import statements_of_step
from federation.lockstep.release import Releases

_PRIVILEGES = re.compile(r"\A(?:\s|--[^\n]*\n)*(?:GRANT|REVOKE)\b|format\('REVOKE ALL ON ")
"""GRANT, REVOKE, and the blocks that take back what default privileges have given."""

_CLOSE = "REVOKE ALL ON FUNCTION federation_private.send(boolean, boolean) FROM PUBLIC"
_OF_THE_SENDER = re.compile(r"\bfederation_private\.send\(")

_IS_GONE = {"3F000", "42703", "42704", "42883", "42P01"}
"""SQLSTATEs of a schema, column, object, function or relation that a later release has dropped."""


def grant_again(config: Config, releases: Releases, side: Side, session: Connection, position: int) -> None:
    """Run what the releases up to ``position`` grant and revoke on ``side``, and what the books do."""
    if not position:
        return
    statements = [
        statement
        for release in releases.ids[:position]
        for statement in statements_of_step(config, releases, Step(release, side, Direction.UP, release)).texts or ()
        if _PRIVILEGES.search(statement)
    ]
    with asked(session, side):
        session.exec_driver_sql("SET LOCAL client_min_messages = error")  # what the sender owns is granted further down
        guard.restore_books(session, config, side)
        for statement in statements:
            _run(session, statement)
        if side == "cloud":  # the owner of a function grants it, and this one is the sender's
            session.execute(ddl(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(config.roles.sender))))
            for statement in (_CLOSE, *filter(_OF_THE_SENDER.search, statements)):
                _run(session, statement)
            session.execute(ddl(sql.SQL("RESET ROLE")))
        session.commit()


def _run(session: Connection, statement: str) -> None:
    savepoint = session.begin_nested()
    try:
        session.execute(ddl(sql.SQL(statement.replace("{", "{{").replace("}", "}}")).format()))
    except sa.exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error) or error.orig.sqlstate not in _IS_GONE:
            raise
        savepoint.rollback()
    else:
        savepoint.commit()
