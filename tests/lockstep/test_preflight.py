"""A run refuses databases that are not the ones it is for, or cannot be written, before it changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import at, mark, rewrite

from federation.lockstep import upgrade
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

ELSEWHERE = "00000000-0000-0000-0000-0000000000aa"
LOCAL, CLOUD = "FEDERATION_LOCAL_URL", "FEDERATION_CLOUD_URL"

both_ways = pytest.mark.parametrize("command", ["upgrade", "downgrade 0001 --yes", "downgrade base --yes"])
each_side = pytest.mark.parametrize("side", ["local", "cloud"])


@pytest.fixture
def second(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases, of which the second and the third do nothing, on two databases at the second."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        empty = dict.fromkeys(("0002", "0003"), ("pass", "pass"))
        rewrite(deployment, {"local": empty, "cloud": empty})
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        yield deployment


def refused(deployment: Deployment, command: str, code: int, **environ: str) -> str:
    """What a run says that ends with ``code`` and has changed nothing: no release, no history, no mark."""
    with deployment.owner("local") as owner:  # a mark that a run would set, if it took this for its hospital
        owner.execute("UPDATE federation.guard SET cloud_release = '0003'")
    before = deployment.run("federation", "history").stdout
    result = deployment.run("federation", *command.split(), **environ)
    assert result.returncode == code, result.stderr
    assert deployment.run("federation", "history").stdout == before
    assert (at(deployment), mark(deployment)) == (("0002", "0002"), "0003")
    return result.stderr


@both_ways
def test_urls_that_are_exchanged_are_refused(second: Deployment, command: str) -> None:
    exchanged = {LOCAL: second.environ[CLOUD], CLOUD: second.environ[LOCAL]}
    said = refused(second, command, 8, **exchanged)
    assert said.startswith("federation: local: this is a cloud's database")
    assert "check FEDERATION_LOCAL_URL" in said


def test_status_does_not_take_the_one_database_for_the_other(second: Deployment) -> None:
    exchanged = {LOCAL: second.environ[CLOUD], CLOUD: second.environ[LOCAL]}
    result = second.federation("status", **exchanged)
    assert result.returncode == 8, result.stderr
    assert "local: this is a cloud's database" in result.stdout
    assert "cloud: this is a hospital's database" in result.stdout
    assert "next:" not in result.stdout


@both_ways
def test_a_hospital_of_another_site_is_refused(second: Deployment, command: str) -> None:
    said = refused(second, command, 8, FEDERATION_SITE_ID=ELSEWHERE)
    assert f"local: this is the database of site {SITE_ID}, and FEDERATION_SITE_ID is {ELSEWHERE}" in said


@both_ways
def test_a_cloud_of_another_site_is_refused(second: Deployment, command: str) -> None:
    with second.owner("cloud") as owner:
        owner.execute("UPDATE federation_private.site SET id = %s", [ELSEWHERE])
    said = refused(second, command, 8)
    assert f"cloud: this is the cloud of site {ELSEWHERE}, and FEDERATION_SITE_ID is" in said
    assert "check FEDERATION_CLOUD_URL and FEDERATION_SITE_ID; nothing was changed" in said


@both_ways
@each_side
def test_a_database_that_is_read_only_is_said_before_the_other_one_has_changed(
    second: Deployment, side: str, command: str
) -> None:
    name = {"local": second.local_dbname, "cloud": second.cloud_dbname}[side]
    setting = f"ALTER DATABASE {name} {{}}"
    with second.owner("local") as owner:
        owner.execute("UPDATE federation.guard SET cloud_release = '0003'")
    before = second.run("federation", "history").stdout
    with second.superuser(side) as dba:
        dba.execute(setting.format("SET default_transaction_read_only = on"))
        result = second.run("federation", *command.split())
        dba.execute(setting.format("RESET default_transaction_read_only"))
    assert result.returncode == 9, result.stderr
    assert result.stderr.startswith(f"federation: {side}: the database is read-only — ")
    assert f"FEDERATION_{side.upper()}_URL" in result.stderr
    assert second.run("federation", "history").stdout == before
    assert (at(second), mark(second)) == (("0002", "0002"), "0003")


@both_ways
def test_the_right_databases_are_taken(second: Deployment, command: str) -> None:
    """The control."""
    result = second.run("federation", *command.split())
    assert result.returncode == 0, result.stderr
