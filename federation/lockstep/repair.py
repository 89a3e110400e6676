"""``federation repair``: make what somebody has dropped; accept a database that was restored.

Nothing is asked and nothing is dropped. The operations of the chain make it, as they would in their release.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy.engine import Connection

from federation import guard, verification
from federation.config import Config
from federation.databases import SIDES, asked, asking, connect, run_lock
from federation.environments import preconditions
from federation.errors import ReleasesDiffer, Side
from federation.lockstep import preflight
from federation.lockstep.expected import Expected
from federation.lockstep.privileges import grant_again
from federation.lockstep.release import Releases
from federation.lockstep.status import Status, read_status
from federation.operations.bindings import CreateCloudBindingOp, CreateLocalBindingOp, half
from federation.operations.objects import Key, name
from federation.operations.run import OPTION, Run
from federation.preview.tokens import statements_of

_IS_THERE = {"42P06", "42P07", "42710", "42723", "23505"}
"""SQLSTATEs of a schema, table, object, function or row that is there already."""


@dataclass(frozen=True)
class Made:
    """An object that was missing, and was made."""

    side: Side
    object: str

    def to_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return {"side": self.side, "object": self.object}


def accept(config: Config, sides: Collection[Side]) -> Status:
    """Take the databases of ``sides``, which were set back, as they are now; how both stand to each other then.

    Raises SetBack, with nothing accepted, for a database that was set back and is not among ``sides``; LockHeld while
    a run is under way.
    """
    with run_lock(config), ExitStack() as stack:
        sessions = {side: stack.enter_context(connect(config, side)) for side in SIDES}
        preflight.require_own(config, sessions)
        for error in guard.compare(sessions["local"], sessions["cloud"]).set_back:
            if error.side not in sides:
                raise error
        guard.renew(sessions["local"], sessions["cloud"])
    return read_status(config)


def repair(config: Config) -> list[Made]:
    """Make what the databases' releases make and is missing, the hospital's first, and verify it.

    One transaction a side, with a row in its history. Raises ReleasesDiffer, with nothing made, where the hospital
    lacks what the cloud needs; PreconditionMissing for a missing role, privilege or extension; VerificationFailed when
    what is there then is not what the release promises.
    """
    releases = Releases.load(config)
    expected = Expected(config, releases)
    made = []
    with run_lock(config), ExitStack() as stack:
        sessions = {side: stack.enter_context(connect(config, side)) for side in SIDES}
        preflight.require_databases(config, sessions)
        at = {side: guard.current_release(session, side) for side, session in sessions.items()}
        local, cloud = (releases.position(at[side], side) for side in SIDES)
        if not releases.fit(local, cloud):
            raise ReleasesDiffer(
                f"local is at {at['local'] or 'base'} and lacks what the cloud, at {at['cloud'] or 'base'}, needs",
                hint=f"{read_status(config).next_command}, then run the command again",
            )
        for side, session in sessions.items():
            keys = expected.missing(session, side, releases.position(at[side], side))
            if keys:
                make(config, session, side, at[side], expected, keys)
                made += [Made(side, name(key)) for key in keys]
        for side, session in sessions.items():
            grant_again(config, releases, side, session, releases.position(at[side], side))
        expected.require(sessions, local, cloud)
        verification.verify(config, sessions)
        guard.renew(sessions["local"], sessions["cloud"])
    return made


def make(
    config: Config, session: Connection, side: Side, release: str | None, expected: Expected, keys: list[Key]
) -> None:
    """Make ``keys`` on ``side``, which is at ``release``, in one transaction."""
    objects = expected.at(side, expected.releases.position(release, side)) or {}
    preconditions.require(session, config, side)
    context = MigrationContext.configure(session, opts={OPTION: Run(config, side)})
    operations = Operations(context)
    with asked(session, side):
        done: list[MigrateOperation] = []
        for key in keys:
            if key[0] == "schema":
                session.execute(sa.schema.CreateSchema(key[1], if_not_exists=True))
            for op in objects[key]:
                if isinstance(op, (CreateLocalBindingOp, CreateCloudBindingOp)):
                    if op not in done:
                        _complete(config, session, op)
                        done.append(op)
                else:
                    operations.invoke(op)
        guard.record_repair(session, release)
        session.commit()


def _complete(config: Config, session: Connection, op: CreateLocalBindingOp | CreateCloudBindingOp) -> None:
    """Run the statements of a half of the binding, but for those whose object is there."""
    for statement in statements_of(half(config, op).as_string(None)):
        savepoint = session.begin_nested()
        try:
            session.execute(asking(sql.SQL(statement.replace("{", "{{").replace("}", "}}")).format()))
        except sa.exc.DBAPIError as error:
            if not isinstance(error.orig, psycopg.Error) or error.orig.sqlstate not in _IS_THERE:
                raise
            savepoint.rollback()
        else:
            savepoint.commit()
