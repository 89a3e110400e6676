"""The app's backends hold every session that the hospital admits: what the app gets, and that releases go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from deployments import Deployment, Deployments
from waiting import until

from federation.errors import Unreachable
from federation.lockstep import downgrade, upgrade
from federation.servers import Binaries, Pair
from federation.servers.pair import SITE_ID

LINK, SERVICE = "federation_link", "federation_service"
ROLES = {"authenticated": LINK, "service_role": SERVICE}


@pytest.fixture(scope="module")
def large(binaries: Binaries) -> Iterator[Deployments]:
    """Servers that serve 100 backends of each role."""
    with Pair(binaries, settings={"max_connections": "300"}, memory=True) as pair, Deployments(pair) as deployments:
        yield deployments


@pytest.fixture
def pooled(large: Deployments, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    with large.make_pair("0003") as deployment:
        assert isinstance(deployment, Deployment)
        deployment.enter(monkeypatch)
        yield deployment
        for role in ROLES.values():
            deployment.look("local", f"ALTER ROLE {role} CONNECTION LIMIT 105")


@pytest.fixture
def pool() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def backend(pooled: Deployment, pool: ExitStack) -> psycopg.Connection[Any]:
    return pool.enter_context(psycopg.connect(pooled.authenticator_url))


def request(backend: psycopg.Connection[Any], role: str) -> str | None:
    """What a request of the app's gets: nothing but rows, or an error's SQLSTATE and DETAIL."""
    claims = json.dumps({"sub": SITE_ID, "role": role})
    try:
        with backend.transaction():
            backend.execute(f"SET LOCAL ROLE {role}")
            backend.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
            backend.execute("SELECT count(*) FROM hospital_patients")
    except psycopg.Error as error:
        return f"{error.sqlstate}: {error.diag.message_detail}"
    return None


def held(pooled: Deployment) -> dict[str, int]:
    query = "SELECT usename, count(*) FROM pg_stat_activity WHERE usename = ANY (%s) GROUP BY 1"
    return dict(pooled.look("local", query, [[*ROLES.values()]]))


def test_a_hundred_backends_of_both_roles_are_served_and_so_is_a_release(pooled: Deployment, pool: ExitStack) -> None:
    query = "SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1"
    assert pooled.look("local", query, [[LINK, SERVICE]]) == [(LINK, 105), (SERVICE, 105)]
    backends = [backend(pooled, pool) for _ in range(100)]
    for role in ROLES:
        assert {request(one, role) for one in backends} == {None}
    assert held(pooled) == {LINK: 100, SERVICE: 100}
    assert upgrade(pooled.config).release == "0004"
    # The release's own sessions end with it, and none of the app's has ended.
    until(lambda: held(pooled) == {LINK: 100, SERVICE: 100})

    # At the limit: whoever has a session keeps it, the next backend gets an error, and again after a while.
    for role, link_role in ROLES.items():
        pooled.look("local", f"ALTER ROLE {link_role} CONNECTION LIMIT 100")
        late = backend(pooled, pool)
        for _ in range(2):
            told = request(late, role)
            assert told is not None
            assert told.startswith("08001: ")
            assert f'too many connections for role "{link_role}"' in told
    assert {request(one, role) for one in backends for role in ROLES} == {None}

    # The release makes room of what is idle; nobody waits, and a backend whose session it took connects anew.
    downgrade(pooled.config, "0003")
    assert upgrade(pooled.config).release == "0004"
    until(lambda: max(held(pooled).values()) < 100)
    assert min(held(pooled).values()) >= 90
    assert {request(one, role) for one in backends for role in ROLES} == {None}
    assert held(pooled) == {LINK: 100, SERVICE: 100}


@pytest.fixture
def full(pooled: Deployment, pool: ExitStack) -> Deployment:
    """Both roles are at a limit of one."""
    for role, link_role in ROLES.items():
        pooled.look("local", f"ALTER ROLE {link_role} CONNECTION LIMIT 1")
        assert request(backend(pooled, pool), role) is None
    return pooled


def test_where_no_session_is_idle_the_release_names_role_limit_and_remedy(pooled: Deployment, pool: ExitStack) -> None:
    pooled.look("local", f"ALTER ROLE {LINK} CONNECTION LIMIT 1")
    busy = backend(pooled, pool)
    busy.execute("SET ROLE authenticated")
    busy.execute("SELECT set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": SITE_ID})])
    busy.execute("SELECT count(*) FROM hospital_patients")
    with pytest.raises(Unreachable, match=f"{LINK}, whose limit is 1") as caught:
        upgrade(pooled.config)
    assert caught.value.exit_code == 6
    assert "federation bootstrap local" in str(caught.value.hint)
    busy.execute("SELECT count(*) FROM hospital_patients")
    busy.rollback()
    assert upgrade(pooled.config).release == "0004"


def test_without_the_right_to_end_sessions_a_full_link_is_named(full: Deployment) -> None:
    """The control: it is the ended sessions that let a release through."""
    full.look("local", "REVOKE pg_signal_backend FROM hospital_owner")
    try:
        with pytest.raises(Unreachable, match=f"{LINK}, whose limit is 1 and {SERVICE}, whose limit is 1"):
            upgrade(full.config)
    finally:
        full.look("local", "GRANT pg_signal_backend TO hospital_owner")
    assert upgrade(full.config).release == "0004"


def test_other_commands_name_the_role_that_is_full(full: Deployment) -> None:
    result = full.federation("link", "apply")
    assert result.returncode == 6
    assert f"the hospital admits no more sessions of role {SERVICE}, which is at its CONNECTION LIMIT" in result.stderr
    assert "the old settings stay in force" in result.stderr
    assert "passwords" not in result.stderr
