"""Who may be bound at the hospital, and with which claims: ``federation.account``, the hospital's own list.

The cloud can only name an account of this list; it can neither add one nor choose its claims.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation.administration.last_seen import remember
from federation.config import Config
from federation.databases import connect, naming_holders
from federation.errors import FederationError, PreconditionMissing, Refused
from federation.operations.bindings import NOBODY


def parse_claims(text: str) -> dict[str, Any]:
    """Return the claims that ``text`` holds as JSON. Raises Refused when it is not a JSON object."""
    try:
        claims = json.loads(text)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise _not_an_object()
    return claims


def add(config: Config, sub: UUID, claims: dict[str, Any] | None = None) -> dict[str, object]:
    """Admit the account ``sub``, or give it other claims if it is listed already.

    The claims always hold ``sub`` and, unless they say otherwise, ``role: authenticated``. Returns ``sub``, the
    ``claims`` as they are stored and whether they ``replaced`` others. Raises Refused for the nobody account, for
    claims that are not a JSON object, for claims of another account, and for a role or key that federation.toml does
    not allow.
    """
    _refuse_nobody(sub)
    stored = _complete(config, sub, claims)
    try:
        with _changed(config) as connection:
            replaced = connection.scalar(_ADD, {"sub": sub, "claims": json.dumps(stored)})
    except FederationError as error:
        # NaN, NUL and half a surrogate pair are JSON to Python.
        if isinstance(error.__cause__, sa.exc.DataError):
            raise _not_an_object() from error
        raise
    return {"sub": str(sub), "claims": stored, "replaced": bool(replaced)}


def list_(config: Config) -> list[dict[str, object]]:
    """List the accounts, oldest first: ``sub``, ``claims``, ``added_at`` (ISO 8601), ``site`` for the site's own."""
    with _accounts(config) as connection:
        rows = connection.execute(_LIST, {"nobody": NOBODY}).all()
    return [
        {"sub": str(sub), "claims": claims, "added_at": added_at.isoformat(), "site": sub == config.site_id}
        for sub, claims, added_at in rows
    ]


def remove(config: Config, sub: UUID) -> dict[str, object]:
    """Remove the account ``sub``; from its next transaction on it is bound as nobody.

    Returns ``sub`` and whether it was there to be ``removed``. Raises Refused for the nobody account and for the
    site's own, which belong to the binding.
    """
    _refuse_nobody(sub)
    if sub == config.site():
        raise Refused(
            f"account {sub} is the site's own and goes with the binding",
            side="local",
            hint="without it the app shows no rows; `federation downgrade base` takes the whole link away",
        )
    with _changed(config) as connection:
        removed = connection.execute(_REMOVE, {"sub": sub}).rowcount
    return {"sub": str(sub), "removed": bool(removed)}


@dataclass(frozen=True)
class Changes:
    """The changes of a sync: accounts to be admitted or changed, with their claims, and accounts to be removed.

    ``new`` names claims and roles that no listed account has, and that federation.toml does not allow by name.
    """

    added: dict[UUID, dict[str, Any]]
    changed: dict[UUID, dict[str, Any]]
    removed: tuple[UUID, ...]
    new: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the numbers of accounts ``added``, ``changed``, ``removed``, and what is ``new``."""
        counts = {"added": len(self.added), "changed": len(self.changed), "removed": len(self.removed)}
        return {**counts, "new": list(self.new)}


def sync(config: Config, approve: Callable[[Changes], bool]) -> Changes:
    """Make the list follow federation.toml's ``accounts.query`` on the cloud, if ``approve`` says so.

    Accounts that the query returns are admitted with its claims, those of an earlier sync that it no longer returns
    are removed, in one transaction; accounts that somebody added by hand, and the site's own, are left alone. The
    query runs READ ONLY, as the cloud's owner. Raises PreconditionMissing without a query, Refused when it returns
    something else than (uuid, object), nothing at all, or a claim or role that federation.toml does not allow.
    """
    query = config.accounts.query
    if query is None:
        raise PreconditionMissing(
            "federation.toml has no accounts.query", hint="[accounts] query = 'SELECT id, claims FROM …'"
        )
    wanted = _query(config, query)
    with _accounts(config) as connection:
        changes = _changes(config, connection, wanted)
    if not approve(changes):
        return changes
    with _changed(config) as connection:
        changes = _changes(config, connection, wanted)
        for sub, claims in (changes.added | changes.changed).items():
            connection.execute(_SYNC, {"sub": sub, "claims": json.dumps(claims)})
        if changes.removed:
            connection.execute(_REMOVE_ALL, {"subs": list(changes.removed)})
    return changes


def _changes(config: Config, connection: Connection, wanted: dict[UUID, dict[str, Any]]) -> Changes:
    listed = {row.sub: row for row in connection.execute(_LISTED)}
    kept = {sub for sub, row in listed.items() if not row.synced} | {NOBODY, config.site()}
    added = {sub: claims for sub, claims in wanted.items() if sub not in listed and sub not in kept}
    changed = {
        sub: claims
        for sub, claims in wanted.items()
        if sub in listed and sub not in kept and listed[sub].claims != claims
    }
    known = {key for row in listed.values() for key in row.claims} | {*(config.accounts.claims or ())}
    roles = {row.claims["role"] for row in listed.values()} | {*config.accounts.roles}
    coming = [*added.values(), *changed.values()]
    new = sorted({f"claim {key}" for claims in coming for key in claims.keys() - known})
    new += sorted({f"role {claims['role']}" for claims in coming if claims["role"] not in roles})
    removed = tuple(sub for sub in listed if sub not in wanted and sub not in kept)
    return Changes(added, changed, removed, tuple(new))


def _query(config: Config, query: str) -> dict[UUID, dict[str, Any]]:
    """Return the accounts that the cloud wants admitted. A row that is not an account is refused first."""
    with connect(config, "cloud") as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        rows = [tuple(row) for row in connection.exec_driver_sql(query)]
    found: dict[UUID, dict[str, Any]] = {}
    for row in rows:
        if len(row) != 2 or not isinstance(row[0], UUID):
            raise Refused(
                "accounts.query does not return (sub uuid, claims jsonb)", side="cloud", hint="correct federation.toml"
            )
        _refuse_nobody(row[0])
        found[row[0]] = _complete(config, row[0], row[1])
    if not found:
        raise Refused(
            "accounts.query returns no account, which would lock everyone out",
            side="cloud",
            hint="correct the query, or remove accounts with `federation account remove`",
        )
    return found


_ADD = sa.text(
    """
WITH before AS (SELECT 1 FROM federation.account WHERE sub = :sub)
INSERT INTO federation.account AS a (sub, claims) VALUES (:sub, CAST(:claims AS jsonb))
ON CONFLICT (sub) DO UPDATE SET claims = excluded.claims, synced = false
RETURNING EXISTS (SELECT 1 FROM before)
"""
)
_LIST = sa.text("SELECT sub, claims, added_at FROM federation.account WHERE sub <> :nobody ORDER BY added_at, sub")
_LISTED = sa.text("SELECT sub, claims, synced FROM federation.account")
_SYNC = sa.text(
    """
INSERT INTO federation.account (sub, claims, synced) VALUES (:sub, CAST(:claims AS jsonb), true)
ON CONFLICT (sub) DO UPDATE SET claims = excluded.claims, synced = true
"""
)
_REMOVE_ALL = sa.text("DELETE FROM federation.account WHERE sub = ANY (:subs)")
_REMOVE = sa.text("DELETE FROM federation.account WHERE sub = :sub")


@contextmanager
def _accounts(config: Config) -> Iterator[Connection]:
    """Open a transaction of the owner at the hospital, where the list is."""
    with connect(config, "local") as connection, naming_holders(config, {"local": connection}), connection.begin():
        if connection.scalar(sa.text("SELECT to_regclass('federation.account') IS NULL")):
            raise PreconditionMissing(
                "there is no federation.account yet", side="local", hint="run `federation upgrade` first"
            )
        yield connection


@contextmanager
def _changed(config: Config) -> Iterator[Connection]:
    """Open it for a command that writes, and let both databases remember that command."""
    with _accounts(config) as connection:
        yield connection
    remember(config)


def _complete(config: Config, sub: UUID, claims: object) -> dict[str, Any]:
    if claims is None:
        claims = {}
    if not isinstance(claims, dict):
        raise _not_an_object()
    if "sub" in claims and str(claims["sub"]).lower() != str(sub):
        raise Refused(
            f"the claims name another account than {sub}", side="local", hint="leave sub out; it is added by itself"
        )
    stored = {"role": "authenticated", **claims, "sub": str(sub)}
    allowed = (*config.roles.callers, *config.accounts.roles)
    if stored["role"] not in allowed:
        raise Refused(
            f"the claims of account {sub} name a role that is not allowed",
            side="local",
            hint=f"allowed are {', '.join(allowed)}: roles.callers and accounts.roles of federation.toml",
        )
    keys = config.accounts.claims
    surplus = stored.keys() - {"role", "sub", *keys} if keys is not None else set()
    if surplus:
        raise Refused(
            f"the claims of account {sub} hold {', '.join(sorted(surplus))}",
            side="local",
            hint=f"accounts.claims of federation.toml allows {', '.join(keys or ()) or 'none'}",
        )
    return stored


def _not_an_object() -> Refused:
    return Refused(
        "the claims are not a JSON object that PostgreSQL can store",
        side="local",
        hint='write them as {"role": "authenticated"}',
    )


def _refuse_nobody(sub: UUID) -> None:
    if sub == NOBODY:
        raise Refused(
            f"account {sub} stands for every caller whom the hospital does not list",
            side="local",
            hint="name another account",
        )
