"""The hospital's list of accounts follows a query on the cloud."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest
from deployments import copy_root

from federation.administration import accounts
from federation.errors import FederationError, PreconditionMissing, Refused
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment

    from federation.config import Config

ONE, TWO, BY_HAND = (uuid.UUID(int=n) for n in (11, 12, 13))
QUERY = "SELECT id, claims FROM public.app_users"


@pytest.fixture
def config(federated: Deployment) -> Config:
    with federated.owner("cloud") as owner:
        owner.execute("CREATE TABLE public.app_users (id uuid PRIMARY KEY, claims jsonb)")
        owner.execute("INSERT INTO public.app_users VALUES (%s, '{}'), (%s, '{\"clinic\": 1}')", [ONE, TWO])
    found = federated.config
    return found.model_copy(update={"accounts": found.accounts.model_copy(update={"query": QUERY})})


def synced(config: Config) -> tuple[int, int, int]:
    done = accounts.sync(config, lambda _: True)
    return len(done.added), len(done.changed), len(done.removed)


def listed(config: Config) -> set[str]:
    return {str(account["sub"]) for account in accounts.list_(config)}


def test_sync_adds_changes_and_removes_what_an_earlier_sync_brought(config: Config, federated: Deployment) -> None:
    accounts.add(config, BY_HAND)
    assert synced(config) == (2, 0, 0)
    assert synced(config) == (0, 0, 0)
    assert listed(config) == {SITE_ID, str(ONE), str(TWO), str(BY_HAND)}
    with federated.owner("cloud") as owner:
        owner.execute("DELETE FROM public.app_users WHERE id = %s", [ONE])
        owner.execute("UPDATE public.app_users SET claims = '{\"clinic\": 2}'")
    assert synced(config) == (0, 1, 1)
    assert listed(config) == {SITE_ID, str(TWO), str(BY_HAND)}
    claims = {account["sub"]: account["claims"] for account in accounts.list_(config)}
    assert claims[str(TWO)] == {"sub": str(TWO), "role": "authenticated", "clinic": 2}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1", "does not return"),
        ("SELECT id, claims FROM public.app_users WHERE false", "lock everyone out"),
        ('SELECT id, \'{"sub": "x"}\'::jsonb FROM public.app_users', "name another account"),
        ("DELETE FROM public.app_users RETURNING id, claims", "read-only transaction"),
    ],
)
def test_what_is_no_list_of_accounts_is_refused_and_nothing_changes(config: Config, query: str, message: str) -> None:
    before = listed(config)
    broken = config.model_copy(update={"accounts": config.accounts.model_copy(update={"query": query})})
    with pytest.raises(FederationError, match=message):
        synced(broken)
    assert listed(config) == before


def test_without_a_query_sync_says_where_to_write_one(federated: Deployment) -> None:
    with pytest.raises(PreconditionMissing, match=r"accounts\.query"):
        synced(federated.config)


def test_the_nobody_account_cannot_be_synced(config: Config, federated: Deployment) -> None:
    with federated.owner("cloud") as owner:
        owner.execute("INSERT INTO public.app_users VALUES (%s, '{}')", [uuid.UUID(int=0)])
    with pytest.raises(Refused, match="stands for every caller"):
        synced(config)


@pytest.mark.claim("N3")
def test_new_claims_and_roles_are_asked_about(config: Config, federated: Deployment) -> None:
    """The cloud's query could make anybody an admin: what no account has so far is for the hospital to admit."""
    asked: list[tuple[str, ...]] = []

    def refuse(changes: accounts.Changes) -> bool:
        asked.append(changes.new)
        return False

    accounts.sync(config, refuse)
    assert asked == [("claim clinic",)]
    assert listed(config) == {SITE_ID}
    synced(config)
    with federated.owner("cloud") as owner:
        owner.execute(
            'UPDATE public.app_users SET claims = \'{"admin": true, "role": "provider"}\' WHERE id = %s', [ONE]
        )
        owner.execute("UPDATE public.app_users SET claims = '{\"clinic\": 2}' WHERE id = %s", [TWO])
    with pytest.raises(Refused, match="name a role that is not allowed"):
        accounts.sync(config, refuse)
    callers = config.roles.model_copy(update={"callers": ("authenticated", "provider")})
    accounts.sync(config.model_copy(update={"roles": callers}), refuse)
    assert asked[1:] == [("claim admin", "role provider")]
    allowed = config.accounts.model_copy(update={"claims": ("clinic",), "roles": ("provider",)})
    with pytest.raises(Refused, match="hold admin"):
        synced(config.model_copy(update={"accounts": allowed}))
    allowed = config.accounts.model_copy(update={"claims": ("clinic", "admin"), "roles": ("provider",)})
    assert synced(config.model_copy(update={"accounts": allowed})) == (0, 2, 0)


def test_the_command_asks_or_refuses_and_a_dry_run_changes_nothing(
    config: Config, federated: Deployment, tmp_path: Path
) -> None:
    federated.root = copy_root(tmp_path)
    with federated.file.open("a") as file:
        file.write(f"\n[accounts]\nquery = '{QUERY}'\n")
    dry = federated.federation("account", "sync", "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert (dry.returncode, told["added"], told["new"], told["dry_run"]) == (0, 2, ["claim clinic"], True)
    refused = federated.federation("account", "sync")
    assert refused.returncode == 8
    assert "claim clinic" in refused.stderr
    assert "--yes" in refused.stderr
    assert listed(config) == {SITE_ID}
    assert federated.federation("account", "sync", "--yes").stdout == "2 added, 0 changed, 0 removed\n"
    assert federated.federation("account", "sync").stdout == "0 added, 0 changed, 0 removed\n"
