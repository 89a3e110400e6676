"""What is missing is one clear sentence with what to do, its exit code, and nothing changed: by either command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from federation.databases import sessions
from federation.errors import PreconditionMissing
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from deployments import Deployment


def both_ways(deployment: Deployment, side: str, code: int, *words: str, **environ: str) -> None:
    """Plain Alembic and the runner say the same, once, without a traceback, and change nothing."""
    before = [deployment.dump(one) for one in ("local", "cloud")]
    for result in (
        deployment.alembic(side, "upgrade", "head", **environ),
        deployment.federation("upgrade", **environ),
    ):
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        for word in words:
            assert word in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert [deployment.dump(one) for one in ("local", "cloud")] == before
    for one in ("local", "cloud"):
        with deployment.superuser(one) as connection:
            assert connection.execute("SELECT to_regnamespace('federation')").fetchone() == (None,)


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_a_missing_url_is_named(deployment: Deployment, side: str) -> None:
    variable = f"FEDERATION_{side.upper()}_URL"
    both_ways(deployment, side, 9, f"{variable} is not set", "export", **{variable: ""})


def test_a_missing_site_is_named(deployment: Deployment) -> None:
    both_ways(deployment, "local", 9, "FEDERATION_SITE_ID is not set", FEDERATION_SITE_ID="")


def test_a_missing_link_password_is_named(deployment: Deployment) -> None:
    both_ways(deployment, "cloud", 9, "FEDERATION_SERVICE_PASSWORD is not set", "_FILE", FEDERATION_SERVICE_PASSWORD="")


def test_a_loopback_link_is_named(deployment: Deployment) -> None:
    both_ways(deployment, "cloud", 9, "FEDERATION_LINK_HOST", FEDERATION_LINK_HOST="")


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_an_unreachable_server_is_named(deployment: Deployment, side: str) -> None:
    variable = f"FEDERATION_{side.upper()}_URL"
    both_ways(
        deployment,
        side,
        6,
        f"{side}: ",
        variable,
        **{variable: "postgresql://owner:hunter2@127.0.0.1:1/x", "FEDERATION_LINK_PORT": "1"},
    )


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_a_wrong_password_is_named_and_not_shown(deployment: Deployment, side: str) -> None:
    variable = f"FEDERATION_{side.upper()}_URL"
    url = deployment.config.url(side).set(drivername="postgresql", password="hunter2")  # type: ignore[arg-type]
    both_ways(
        deployment, side, 6, "refuses the login", variable, **{variable: url.render_as_string(hide_password=False)}
    )


def test_a_database_that_does_not_exist_is_named(deployment: Deployment) -> None:
    url = deployment.config.url("local").set(drivername="postgresql", database="nowhere")
    both_ways(
        deployment,
        "local",
        6,
        "nowhere",
        "federation bootstrap local",
        FEDERATION_LOCAL_URL=url.render_as_string(hide_password=False),
    )


def test_a_missing_link_role_is_named(deployment: Deployment) -> None:
    both_ways(
        deployment,
        "local",
        9,
        "role nobody_made_this does not exist",
        "federation bootstrap local",
        FEDERATION_LINK_USER="nobody_made_this",
    )


def test_a_missing_extension_is_named(deployment: Deployment) -> None:
    with deployment.superuser("cloud") as superuser:
        superuser.execute("DROP EXTENSION postgres_fdw")
    both_ways(deployment, "cloud", 9, "extension postgres_fdw is not installed", "federation bootstrap cloud")


def test_a_missing_privilege_is_named(deployment: Deployment) -> None:
    with deployment.superuser("cloud") as superuser:
        superuser.execute("REVOKE USAGE ON FOREIGN DATA WRAPPER postgres_fdw FROM postgres")
    both_ways(deployment, "cloud", 9, "no USAGE on foreign data wrapper postgres_fdw", "federation bootstrap cloud")


def test_a_missing_create_on_the_schema_is_named(deployment: Deployment) -> None:
    with deployment.superuser("local") as superuser:
        superuser.execute("ALTER SCHEMA public OWNER TO postgres")
        superuser.execute("REVOKE CREATE ON SCHEMA public FROM pg_database_owner, hospital_owner")
    both_ways(deployment, "local", 9, "may not create in schema public", "federation bootstrap local")


def test_a_missing_membership_is_named(deployment: Deployment) -> None:
    with deployment.superuser("cloud") as superuser:
        superuser.execute("CREATE ROLE another_sender")
    try:
        config = deployment.config
        config = config.model_copy(update={"roles": config.roles.model_copy(update={"sender": "another_sender"})})
        with pytest.raises(PreconditionMissing, match="may not SET ROLE another_sender"):
            upgrade(config)
    finally:
        with deployment.superuser("cloud") as superuser:
            superuser.execute("DROP ROLE another_sender")


def test_a_link_role_that_bypasses_row_level_security_is_refused(deployment: Deployment) -> None:
    with deployment.superuser("local") as superuser:
        superuser.execute("CREATE ROLE all_seeing LOGIN BYPASSRLS")
    try:
        both_ways(deployment, "local", 9, "role all_seeing has BYPASSRLS", FEDERATION_LINK_USER="all_seeing")
    finally:
        with deployment.superuser("local") as superuser:
            superuser.execute("DROP ROLE all_seeing")


def test_an_old_server_is_refused(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OLDEST_SERVER", 99)
    with pytest.raises(PreconditionMissing, match="PostgreSQL 99 or later is needed"):
        upgrade(deployment.config)


def test_a_misspelt_environment_is_alembics_to_refuse(deployment: Deployment) -> None:
    result = deployment.alembic("lokal", "upgrade", "head")
    assert result.returncode == 255


def test_errors_are_json_with_json(deployment: Deployment) -> None:
    result = deployment.federation("upgrade", "--json", FEDERATION_SITE_ID="")
    assert result.returncode == 9
    assert json.loads(result.stdout) == {
        "schema_version": 1,
        "error": "PreconditionMissing",
        "exit_code": 9,
        "message": "FEDERATION_SITE_ID is not set",
        "side": None,
        "release": None,
        "hint": "export FEDERATION_SITE_ID=<the hospital's uuid>",
    }


def test_status_shows_the_side_that_answers(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    result = deployment.federation("status", "--json", FEDERATION_CLOUD_URL="postgresql://a:b@127.0.0.1:1/x")
    assert result.returncode == 6
    seen = json.loads(result.stdout)
    assert (seen["local"], seen["state"]) == ("0001", "unknown")
    assert [error["side"] for error in seen["errors"]] == ["cloud"]
