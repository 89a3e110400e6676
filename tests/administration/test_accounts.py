"""Who may be bound at the hospital."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from federation.administration import accounts
from federation.errors import PreconditionMissing, Refused

if TYPE_CHECKING:
    from deployments import Deployment

    from federation.config import Config

NOBODY = UUID(int=0)


def listed(config: Config) -> dict[str, dict[str, object]]:
    return {str(account["sub"]): account for account in accounts.list_(config)}


def test_at_first_the_sites_own_account_is_listed(config: Config) -> None:
    assert listed(config)[str(config.site())]["site"] is True
    assert str(NOBODY) not in listed(config)


def test_an_account_is_added_replaced_and_removed(config: Config) -> None:
    sub = uuid4()
    claims: dict[str, Any] = {"sub": str(sub), "role": "authenticated"}
    assert accounts.add(config, sub) == {"sub": str(sub), "claims": claims, "replaced": False}
    assert listed(config)[str(sub)]["claims"] == claims
    replaced = accounts.add(config, sub, {"role": "authenticated", "ward": {"floor": 3}})
    claims = {"sub": str(sub), "role": "authenticated", "ward": {"floor": 3}}
    assert replaced == {"sub": str(sub), "claims": claims, "replaced": True}
    assert listed(config)[str(sub)]["claims"] == claims
    assert accounts.remove(config, sub) == {"sub": str(sub), "removed": True}
    assert accounts.remove(config, sub) == {"sub": str(sub), "removed": False}
    assert str(sub) not in listed(config)


def test_claims_of_another_account_are_refused(config: Config) -> None:
    with pytest.raises(Refused, match="another account"):
        accounts.add(config, uuid4(), {"sub": str(uuid4())})


@pytest.mark.parametrize("role", ["service_role", "hospital_owner", "authenticated ", ["authenticated"], None])
def test_a_role_that_federation_toml_does_not_allow_is_refused(config: Config, role: Any) -> None:
    sub = uuid4()
    with pytest.raises(Refused, match="name a role that is not allowed") as caught:
        accounts.add(config, sub, {"role": role})
    assert "allowed are authenticated" in str(caught.value.hint)
    assert str(sub) not in listed(config)


def test_roles_and_claims_that_federation_toml_allows_are_admitted_and_no_others(config: Config) -> None:
    sub = uuid4()
    allowing = config.accounts.model_copy(update={"roles": ("provider",), "claims": ("ward",)})
    config = config.model_copy(update={"accounts": allowing})
    assert accounts.add(config, sub, {"role": "provider", "ward": 1})["replaced"] is False
    with pytest.raises(Refused, match="hold admin") as caught:
        accounts.add(config, sub, {"ward": 1, "admin": True})
    assert "accounts.claims of federation.toml allows ward" in str(caught.value.hint)
    accounts.remove(config, sub)


def test_claims_may_spell_their_own_account_in_capitals(config: Config) -> None:
    sub = uuid4()
    assert accounts.add(config, sub, {"sub": str(sub).upper()})["claims"] == {
        "sub": str(sub),
        "role": "authenticated",
    }
    accounts.remove(config, sub)


@pytest.mark.parametrize("claims", [[], "text", 1, True, {"a": float("nan")}, {"a": "\0"}, {"a": "\ud800"}])
def test_claims_that_are_no_object_are_refused(config: Config, claims: Any) -> None:
    with pytest.raises(Refused, match="not a JSON object"):
        accounts.add(config, uuid4(), claims)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "NaN"])
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="not a JSON object"):
        accounts.parse_claims(text)


def test_nobody_and_the_sites_own_account_stay(config: Config) -> None:
    for change in (accounts.add, accounts.remove):
        with pytest.raises(Refused, match="does not list"):
            change(config, NOBODY)
    with pytest.raises(Refused, match="goes with the binding"):
        accounts.remove(config, config.site())


def test_before_the_first_release_there_is_no_list(deployment: Deployment) -> None:
    with pytest.raises(PreconditionMissing, match=r"no federation\.account") as caught:
        accounts.list_(deployment.config)
    assert "federation upgrade" in str(caught.value.hint)
