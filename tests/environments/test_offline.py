"""``--sql``: the same catalogs as online, no secret in it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from federation.administration import bootstrap
from federation.config import Config
from federation.lockstep import downgrade, upgrade

if TYPE_CHECKING:
    from deployments import Deployment


def psql(
    deployment: Deployment, side: str, script: str, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    binaries = deployment.pair.local.binaries
    return subprocess.run(
        [str(binaries.program("psql")), "-X", "-q", "-v", "ON_ERROR_STOP=1", *arguments],
        input=script,
        env={**os.environ, **deployment.environ, **environ, **connection(deployment, side)},
        capture_output=True,
        text=True,
        check=False,
    )


def connection(deployment: Deployment, side: str) -> dict[str, str]:
    url = deployment.config.url(side)  # type: ignore[arg-type]
    return {
        "PGHOST": str(url.host),
        "PGPORT": str(url.port),
        "PGUSER": str(url.username),
        "PGPASSWORD": str(url.password),
        "PGDATABASE": str(url.database),
    }


def script(deployment: Deployment, side: str, *words: str) -> str:
    result = deployment.alembic(side, *words, "--sql")
    assert result.returncode == 0, result.stderr
    for name, value in deployment.environ.items():
        if name.endswith("PASSWORD"):
            assert value not in result.stdout
    return result.stdout


def test_offline_sql_makes_what_online_makes_and_unmakes_it(deployment: Deployment) -> None:
    before = {side: deployment.dump(side) for side in ("local", "cloud")}
    upgrade(deployment.config)
    online = {side: deployment.dump(side) for side in ("local", "cloud")}
    downgrade(deployment.config, "base")
    for side in ("local", "cloud"):  # base keeps an empty version table, which the script meets
        result = psql(deployment, side, script(deployment, side, "upgrade", "head"))
        assert result.returncode == 0, result.stderr
    assert {side: deployment.dump(side) for side in online} == online
    for side in ("cloud", "local"):
        result = psql(deployment, side, script(deployment, side, "downgrade", "0004:base"))
        assert result.returncode == 0, result.stderr
    assert {side: deployment.dump(side) for side in before} == before


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_a_script_names_its_steps_and_what_each_does(deployment: Deployment, side: str) -> None:
    for words, steps in (
        (("upgrade", "0002"), ["upgrade  -> 0001", "upgrade 0001 -> 0002"]),
        (("downgrade", "0002:base"), ["downgrade 0002 -> 0001", "downgrade 0001 -> "]),
        (("stamp", "0001:0002"), ["stamp_revision 0001 -> 0002"]),
    ):
        running = [line for line in script(deployment, side, *words).splitlines() if line.startswith("-- Running")]
        assert [line.removeprefix("-- Running ") for line in running] == steps


def test_a_script_from_base_stops_at_a_database_that_holds_a_release(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    result = psql(deployment, "local", script(deployment, "local", "upgrade", "head"))
    assert result.returncode == 3
    assert "the script takes base to 0001, and this database is at 0001" in result.stderr


@pytest.mark.claim("S35")
def test_a_password_may_come_as_a_psql_variable_and_hold_anything(deployment: Deployment) -> None:
    odd = r"""it's a "pass\word" with %s, :x, $$ and é"""
    environ = deployment.environ | {"FEDERATION_LINK_PASSWORD": odd}
    bootstrap.apply(Config.load(deployment.root / "federation.toml", environ), "local")
    try:
        assert psql(deployment, "local", script(deployment, "local", "upgrade", "head")).returncode == 0
        text = script(deployment, "cloud", "upgrade", "head")
        refused = psql(deployment, "cloud", text, FEDERATION_SERVICE_PASSWORD="")
        assert refused.returncode == 3, "a wrong password went unnoticed"
        result = psql(deployment, "cloud", text, "-v", f"FEDERATION_LINK_PASSWORD={odd}")
        assert result.returncode == 0, result.stderr
        with deployment.as_user() as caller:
            assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)
        assert r"pass\word" not in deployment.pair.cloud.log_text()
    finally:
        bootstrap.apply(deployment.config, "local")


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_offline_sql_needs_no_server(deployment: Deployment, side: str) -> None:
    url = "postgresql://owner:hunter2@127.0.0.1:1/hospital"
    result = deployment.alembic(side, "upgrade", "head", "--sql", FEDERATION_LOCAL_URL=url, FEDERATION_CLOUD_URL=url)
    assert result.returncode == 0, result.stderr
    assert "hunter2" not in result.stdout
