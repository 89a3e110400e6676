"""What an administrator runs once on either server: roles, database, extension and privileges.

Roles belong to a cluster and chains to a database, so no migration makes them. The same list of statements is
printed for psql or applied; a second run changes nothing but verifiers and settings. No password is in it: libpq
hashes it here, and the server receives the SCRAM verifier.

https://www.postgresql.org/docs/current/sql-createrole.html
https://www.postgresql.org/docs/current/app-psql.html (``\\gexec``)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from federation.administration.bootstrap import cloud, local, script
from federation.administration.bootstrap.owners import who_owns
from federation.administration.bootstrap.statement import Statement, groups
from federation.config import Config
from federation.databases import connect, session_of
from federation.errors import PreconditionMissing, Side, Unreachable


@dataclass(frozen=True)
class Outcome:
    """The result of ``apply``: the ``why`` of the statements that ran, and of those that were not needed.

    ``notes`` are what the statements found on the server and tell: the arithmetic of the link roles' limits.
    """

    done: tuple[str, ...]
    present: tuple[str, ...]
    notes: tuple[str, ...] = ()


def statements(config: Config, side: Side) -> list[Statement]:
    """List the statements that an administrator runs on ``side``, in this order.

    Raises PreconditionMissing when a setting is missing (the owner's URL; for local both link passwords too).
    """
    return list((local if side == "local" else cloud).statements(config))


def render(config: Config, side: Side) -> str:
    """Return the statements as a commented script for psql, without its last line break; raises as `statements` does.

    It holds verifiers and no password.
    """
    return script.written(config, side, statements(config, side))


def apply(config: Config, side: Side) -> Outcome:
    """Run the statements over FEDERATION_{SIDE}_ADMIN_URL; each database's in one transaction.

    Raises PreconditionMissing (a setting, or a right that the administrator lacks), Unreachable, or Refused when a
    role of the link exists that may do too much, that somebody else may become, or that another site uses.
    """
    todo = statements(config, side)
    admin = config.url(side, admin=True)
    target = admin.set(database=who_owns(config, side)[1])
    on_target = config.model_copy(update={f"{side}_admin_url": SecretStr(target.render_as_string(hide_password=False))})
    done: list[str] = []
    present: list[str] = []
    notes: list[str] = []
    for (where, transactional), group in groups(todo):
        with _admin_session(on_target if where == "target" else config, side) as session:
            session_of(session).notices = notes
            connection = session if transactional else session.execution_options(isolation_level="AUTOCOMMIT")
            with connection.begin():
                for statement in group:
                    needed = _run(connection, statement)
                    if not statement.asks:
                        (done if needed else present).append(statement.why)
    return Outcome(tuple(done), tuple(present), tuple(notes))


@contextmanager
def _admin_session(config: Config, side: Side) -> Iterator[Connection]:
    """Open a session of the administrator. Its errors name the administrator's URL, not the owner's."""
    variable = f"FEDERATION_{side.upper()}_ADMIN_URL"
    try:
        with connect(config, side, admin=True) as connection:
            # Nothing is bound, so a percent sign in a name stays what it is.
            yield connection.execution_options(no_parameters=True)
    except Unreachable as error:
        error.hint = f"check {variable} and that the server runs"
        raise
    except PreconditionMissing as error:
        if isinstance(error.__cause__, DBAPIError):
            error.hint = f"let a superuser run it (on Supabase: postgres); {variable} names the role"
        raise


def _run(connection: Connection, statement: Statement) -> bool:
    """Whether the statement was needed, and ran."""
    unless = statement.unless
    if unless is not None and connection.exec_driver_sql(unless.as_string(None)).first() is not None:
        return False
    connection.exec_driver_sql(statement.command.as_string(None))
    return True
