"""The hospital's list of accounts follows a query on the cloud."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from federation.administration import accounts
from federation.errors import FederationError, PreconditionMissing, Refused
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
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


def listed(config: Config) -> set[str]:
    return {str(account["sub"]) for account in accounts.list_(config)}


def test_sync_adds_changes_and_removes_what_an_earlier_sync_brought(config: Config, federated: Deployment) -> None:
    accounts.add(config, BY_HAND)
    assert accounts.sync(config) == {"added": 2, "changed": 0, "removed": 0}
    assert accounts.sync(config) == {"added": 0, "changed": 0, "removed": 0}
    assert listed(config) == {SITE_ID, str(ONE), str(TWO), str(BY_HAND)}
    with federated.owner("cloud") as owner:
        owner.execute("DELETE FROM public.app_users WHERE id = %s", [ONE])
        owner.execute("UPDATE public.app_users SET claims = '{\"clinic\": 2}'")
    assert accounts.sync(config) == {"added": 0, "changed": 1, "removed": 1}
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
        accounts.sync(broken)
    assert listed(config) == before


def test_without_a_query_sync_says_where_to_write_one(federated: Deployment) -> None:
    with pytest.raises(PreconditionMissing, match=r"accounts\.query"):
        accounts.sync(federated.config)


def test_the_nobody_account_cannot_be_synced(config: Config, federated: Deployment) -> None:
    with federated.owner("cloud") as owner:
        owner.execute("INSERT INTO public.app_users VALUES (%s, '{}')", [uuid.UUID(int=0)])
    with pytest.raises(Refused, match="stands for every caller"):
        accounts.sync(config)
