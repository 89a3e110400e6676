"""A run refuses databases that are not the ones it is for, or cannot be written, before it changes anything."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import at, mark, rewrite

from federation.errors import Refused
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


LINK_ALONE = """op.execute("CREATE SCHEMA federation_link")
    op.create_foreign_server("hospital")
    op.create_user_mapping("public", "hospital", LINK)
    op.create_user_mapping("current_user", "hospital", SERVICE)
    op.create_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))
    op.execute("COMMENT ON SCHEMA federation_link IS 'for table note'")  # each note follows in 0002"""
LONGER = 'op.create_table("note_log", sa.Column("id", sa.Uuid, primary_key=True))'
IN_THE_CLOUD = f"op.create_rls_view({three.NOTE.format(more='')})"
OWN_SQL = 'op.execute("CREATE TABLE note (id uuid, site uuid)")'


@contextmanager
def beside_the_apps_table(
    deployments: Deployments, root: Path, side: str, *, local: str = "pass", cloud: str = "pass"
) -> Iterator[Deployment]:
    """A first release of the link alone, but for what is added, beside a table of an exported name on ``side``."""
    binding = f'op.create_local_binding("v1")\n    {LONGER}\n    {local}'
    chains = {"local": {"0001": (binding, "pass")}, "cloud": {"0001": (f"{LINK_ALONE}\n    {cloud}", "pass")}}
    with deployments.at_base(three.write(root, **chains)) as deployment:
        with deployment.owner(side) as owner:
            owner.execute("CREATE TABLE public.note (id uuid, site uuid)")
        yield deployment


@each_side
def test_a_table_that_a_release_only_mentions_is_not_in_its_way(
    deployments: Deployments, tmp_path: Path, side: str
) -> None:
    with beside_the_apps_table(deployments, tmp_path, side) as deployment:
        assert upgrade(deployment.config).release == "0001"


@pytest.mark.parametrize(
    ("side", "made"),
    [
        ("local", {"local": three.LOCAL["0001"][0].partition("\n")[2].strip()}),
        ("local", {"local": OWN_SQL}),
        ("cloud", {"cloud": IN_THE_CLOUD}),
    ],
    ids=["an operation of Alembic's", "SQL of its own", "an operation of the toolkit's"],
)
def test_a_table_that_a_release_makes_is_in_its_way(
    deployments: Deployments, tmp_path: Path, side: str, made: dict[str, str]
) -> None:
    """The control of the test above."""
    with beside_the_apps_table(deployments, tmp_path, side, **made) as deployment:
        with pytest.raises(Refused, match=r"in the way: table public\.note") as raised:
            upgrade(deployment.config)
        assert raised.value.side == side
        assert at(deployment) == (None, None)
