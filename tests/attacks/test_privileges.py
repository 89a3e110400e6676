"""Nobody holds a privilege on the toolkit's own objects that is not declared, whatever default privileges give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from federation.check import check
from federation.databases import SIDES
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from deployments import Deployment

    from federation.errors import Side

PLANTED: dict[str, tuple[Side, str, list[str], str]] = {
    "a caller invents accounts": (
        "local",
        "GRANT SELECT, INSERT, UPDATE ON federation.account TO federation_link",
        ["INSERT", "SELECT", "UPDATE"],
        "federation.account",
    ),
    "a caller moves the guard": (
        "local",
        "GRANT UPDATE ON federation.guard TO federation_link",
        ["UPDATE"],
        "federation.guard",
    ),
    "the service writes a column of the guard": (
        "local",
        "GRANT UPDATE (local_release) ON federation.guard TO federation_service",
        ["UPDATE"],
        "federation.guard.local_release",
    ),
    "the service binds": (
        "local",
        "GRANT EXECUTE ON FUNCTION federation.take(uuid, text) TO federation_service",
        ["EXECUTE"],
        "federation.take(uuid,text)",
    ),
    "everybody asks for the claims": (
        "local",
        "GRANT EXECUTE ON FUNCTION auth.jwt() TO PUBLIC",
        ["EXECUTE"],
        "auth.jwt()",
    ),
    "anon sends": (
        "cloud",
        "GRANT EXECUTE ON FUNCTION federation_private.send(boolean, boolean) TO anon",
        ["EXECUTE"],
        "federation_private.send(boolean,boolean)",
    ),
    "anon binds": (
        "cloud",
        "GRANT EXECUTE ON FUNCTION federation.bind_claims() TO anon",
        ["EXECUTE"],
        "federation.bind_claims()",
    ),
    "anon enters": ("cloud", "GRANT USAGE ON SCHEMA federation TO anon", ["USAGE"], "federation"),
    "a caller names another site": (
        "cloud",
        "GRANT INSERT, UPDATE ON federation_private.site TO authenticated",
        ["INSERT", "UPDATE"],
        "federation_private.site",
    ),
    "the sender makes objects": (
        "cloud",
        "GRANT CREATE ON SCHEMA federation_private TO federation_sender",
        ["CREATE"],
        "federation_private",
    ),
    "a caller writes history": (
        "cloud",
        "GRANT DELETE, INSERT, UPDATE ON federation.history TO authenticated",
        ["DELETE", "INSERT", "UPDATE"],
        "federation.history",
    ),
    "everybody reads the release": (
        "cloud",
        "GRANT SELECT ON federation.alembic_version TO PUBLIC",
        ["SELECT"],
        "federation.alembic_version",
    ),
    "the sender hands on": (
        "cloud",
        "GRANT SELECT ON federation_private.bind TO federation_sender WITH GRANT OPTION",
        ["SELECT WITH GRANT OPTION"],
        "federation_private.bind",
    ),
    "a stranger uses the server": (
        "cloud",
        "GRANT USAGE ON FOREIGN SERVER hospital TO dashboard_user",
        ["USAGE"],
        "hospital",
    ),
    "a stranger enters the link's schema": (
        "cloud",
        "GRANT USAGE ON SCHEMA federation_link TO dashboard_user",
        ["USAGE"],
        "federation_link",
    ),
}
"""A grant too many, and what is found: privileges and object."""


@pytest.fixture
def stranger(federated: Deployment) -> None:
    """A role of the cloud's that no declaration names."""
    federated.look("cloud", "DROP ROLE IF EXISTS dashboard_user; CREATE ROLE dashboard_user")


def test_as_a_release_makes_them_no_privilege_is_found(federated: Deployment) -> None:
    assert check(federated.config) == []


@pytest.mark.claim("S25")
@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("name", PLANTED)
def test_a_grant_too_many_is_found_with_what_takes_it_back(federated: Deployment, name: str) -> None:
    side, grant, privileges, on = PLANTED[name]
    with federated.superuser(side) as superuser:  # some are not the owner's to make
        superuser.execute(grant)
        found = check(federated.config)
        assert {(d.side, d.what, d.name) for d in found} == {(side, "privilege", on)}, found
        role = grant.partition(" TO ")[2].partition(" WITH")[0]
        details = [d.detail.partition(": ") for d in found]
        expected = [f"{role} holds {privilege}" for privilege in privileges]
        if "GRANT OPTION" in grant:
            expected.append(f"{role} lacks SELECT")
        assert [told for told, _, _ in details] == expected
        for _, _, remedy in details:
            superuser.execute(remedy)
    assert check(federated.config) == []


def test_a_grant_that_is_missing_is_found(federated: Deployment) -> None:
    with federated.owner("local") as owner:
        owner.execute("REVOKE UPDATE (cloud_release) ON federation.guard FROM federation_service")
        (found,) = check(federated.config)
        assert (found.what, found.name) == ("privilege", "federation.guard.cloud_release")
        told, _, remedy = found.detail.partition(": ")
        assert told == "federation_service lacks UPDATE"
        owner.execute(remedy)
    assert check(federated.config) == []


@pytest.mark.usefixtures("stranger")
def test_a_role_that_no_declaration_names_is_found_on_foreign_tables(federated: Deployment) -> None:
    with federated.owner("cloud") as owner:
        owner.execute("GRANT SELECT (id) ON federation_link.hospital_patients TO dashboard_user")
    found = check(federated.config)
    assert [(d.what, d.name, d.detail) for d in found] == [
        ("grant", "federation_link.hospital_patients", "SELECT from dashboard_user")
    ]


def generous(deployment: Deployment, side: Side) -> None:
    """Default privileges without IN SCHEMA: whatever the owner makes is authenticated's, too, and everybody's."""
    with deployment.owner(side) as owner:
        for what in ("TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"):
            owner.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO authenticated, PUBLIC")


@pytest.mark.claim("S25")
def test_default_privileges_give_nothing_of_what_a_release_makes(deployment: Deployment) -> None:
    for side in SIDES:
        generous(deployment, side)
    upgrade(deployment.config)
    found = [(d.side, d.what, d.name, d.detail) for d in check(deployment.config)]
    # The app's own tables at the hospital are Alembic's to make, and these grants are found by what declares them.
    assert [row for row in found if row[0] == "cloud" or row[1] != "grant"] == []
    with deployment.superuser("cloud") as caller:
        caller.execute("SET ROLE authenticated")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="history"):
            caller.execute("DELETE FROM federation.history")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="federation_private"):
            caller.execute("SELECT FROM federation_private.site")
    with deployment.link_role() as link:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="account"):
            link.execute("UPDATE federation.account SET claims = '{}'")
        link.rollback()


def test_default_privileges_would_give_what_nobody_takes_back(deployment: Deployment) -> None:
    """The control: of an object that is made without the toolkit's REVOKE they give everything, and check finds it."""
    upgrade(deployment.config)
    generous(deployment, "cloud")
    with deployment.owner("cloud") as owner:
        owner.execute("CREATE TABLE federation.naive (id int)")
    with deployment.superuser("cloud") as caller:
        caller.execute("SET ROLE authenticated; INSERT INTO federation.naive VALUES (1)")
    found = {(d.what, d.name, d.detail.partition(" ")[0]) for d in check(deployment.config)}
    assert found == {("privilege", "federation.naive", role) for role in ("PUBLIC", "authenticated")}, found
