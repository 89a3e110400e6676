"""What a release promises, asked of the two databases once it is whole. Changes nothing: the write is rolled back.

The columns of each foreign table are there at the hospital, of the same type. Whoever reads a view reaches the hospital
as the judged link role, not as the view's owner, and roles that are denied have no privilege. Each view is read as the
app's role, by the site's own account and by a caller that the hospital does not list, and shows rows where the
hospital's own policies admit some: their expressions, evaluated there by the tables' owner, are what is compared with.
The app's role then writes a row back as it was. No value leaves either server.
"""

from __future__ import annotations

import json
from uuid import UUID

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import asked, ddl, over_the_link
from federation.errors import Side, VerificationFailed
from federation.operations.bindings import NOBODY
from federation.verification import foreign_columns
from federation.verification.failure import failed
from federation.verification.policies import Tables, admitted, role_of, tables_of
from federation.verification.views import View, readable_by, shows, write
from federation.verification.ways_past import refuse_ways_past

_LOOKS = 3
"""The app goes on writing between the two databases' answers: only what differs this often differs."""


def verify(config: Config, sessions: dict[Side, Connection]) -> None:
    """Raise VerificationFailed, naming the object, unless both databases keep what the release promises.

    Unreachable and LockHeld stay what they are.
    """
    local, cloud = sessions["local"], sessions["cloud"]
    role = next(iter(config.roles.callers), None)
    with asked(cloud, "cloud"):
        cloud.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        foreign = foreign_columns.read(cloud, config.link.server)
        refuse_ways_past(config, cloud)
        views = readable_by(config, cloud, role)
    with asked(local, "local"):
        local.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        foreign_columns.require(local, foreign)
    if role is None or not views:
        return
    known: dict[str, Tables] = {}
    with over_the_link(cloud, config):
        for sub in (config.site(), NOBODY):
            different = None
            for _ in range(_LOOKS):
                different = _look(config, sessions, role, sub, views, known)
                if different is None:
                    break
            if different is not None:
                raise different


def _look(
    config: Config,
    sessions: dict[Side, Connection],
    role: str,
    sub: UUID,
    views: list[View],
    known: dict[str, Tables],
) -> VerificationFailed | None:
    """What ``sub`` is shown against the policies, or not shown. Raises where a view cannot be asked.

    ``known``: the hospital's tables, by the role that their policies are for.
    """
    local, cloud = sessions["local"], sessions["cloud"]
    with asked(local, "local"):
        local.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        there = role_of(config, local, sub)
        if there not in known:
            known[there] = tables_of(local, there, [view.remote for view in views])
        tables = known[there]
        admits = admitted(local, sub, tables)
    with asked(cloud, "cloud"):
        _become(cloud, role, sub)
        for view in views:
            table, shown = tables[view.remote], shows(cloud, view, role)
            if table.certain and view.simple and shown and not admits[view.remote]:
                return failed(f"{view} shows rows that the hospital's policies refuse", "cloud")
            # For an unlisted caller an empty view is correct, so only listed ones are checked.
            if table.certain and view.own and sub != NOBODY and admits[view.remote] and not shown:
                return failed(f"{view} shows none of the rows that the hospital's policies admit", "cloud")
            if view.own and sub != NOBODY and _is_to_write(config, role) and not write(cloud, view, role, table):
                cloud.rollback()
                _become(cloud, role, sub)
    return None


def _become(cloud: Connection, role: str, sub: UUID) -> None:
    """Begin a transaction as PostgREST begins a request."""
    cloud.execute(ddl(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))))
    claims = json.dumps({"sub": str(sub), "role": role})
    cloud.execute(sa.text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": claims})


def _is_to_write(config: Config, role: str) -> bool:
    """Whether the hospital is to let callers update: unless the deployment declares less, what the view grants."""
    grants = config.tables.link_grants
    return grants is None or "UPDATE" in {*grants.get("@link", ()), *grants.get(role, ())}
