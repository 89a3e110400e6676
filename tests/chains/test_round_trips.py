"""Up, down and up again leaves what was there, by the runner and by plain Alembic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic import command

from federation.environments import alembic_config
from federation.lockstep import Releases, downgrade, upgrade
from federation.lockstep.forget import forget

if TYPE_CHECKING:
    from deployments import Deployment

RELEASES = ("0001", "0002", "0003", "0004")

CLUSTER = """
    SELECT 'role', to_jsonb(r) - 'oid' FROM pg_roles r
    UNION ALL SELECT 'membership', jsonb_build_array(roleid::regrole, member::regrole, admin_option)
        FROM pg_auth_members
    UNION ALL SELECT 'default', jsonb_build_array(defaclrole::regrole, defaclobjtype, defaclacl::text)
        FROM pg_default_acl
    UNION ALL SELECT 'extension', jsonb_build_array(extname, extversion) FROM pg_extension
    UNION ALL SELECT 'wrapper', jsonb_build_array(fdwname, fdwacl::text) FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'setting', jsonb_build_array(setrole::regrole, setconfig) FROM pg_db_role_setting
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


def everything(deployment: Deployment) -> dict[str, object]:
    """Both databases' schemas but for schema federation, and what their clusters hold beside them."""
    seen: dict[str, object] = {}
    for side in ("local", "cloud"):
        seen[f"{side} schema"] = deployment.dump(side)
        with deployment.superuser(side) as connection:
            seen[f"{side} cluster"] = sorted(map(str, connection.execute(CLUSTER).fetchall()))
    return seen


def books(deployment: Deployment, side: str) -> set[str]:
    """What schema federation holds."""
    with deployment.superuser(side) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'federation'::regnamespace "
            "AND relkind IN ('r', 'v', 'f') UNION ALL "
            "SELECT proname FROM pg_proc WHERE pronamespace = 'federation'::regnamespace"
        ).fetchall()
    return {name for (name,) in rows}


def test_base_is_what_was_there_before_and_forget_removes_the_rest(deployment: Deployment) -> None:
    before = everything(deployment)
    upgrade(deployment.config)
    assert everything(deployment) != before, "the comparison sees nothing"
    downgrade(deployment.config, "base")
    assert everything(deployment) == before
    for side in ("local", "cloud"):
        functions = {"guard_version"} if side == "local" else {"guard_version", "settle"}
        tables = {"alembic_version", "history", "pair", "run"} | ({"guard", "storage"} if side == "local" else set())
        assert books(deployment, side) == tables | functions
    forget(deployment.config)
    for side in ("local", "cloud"):
        with deployment.superuser(side) as connection:
            (schema,) = connection.execute("SELECT to_regnamespace('federation')").fetchone() or ()
        assert schema is None


def test_each_release_up_down_and_up_again_leaves_the_same_catalogs(deployment: Deployment) -> None:
    config, seen = deployment.config, {"base": everything(deployment)}
    for release in RELEASES:
        upgrade(config, release)
        seen[release] = everything(deployment)
        downgrade(config, "-1")
        assert everything(deployment) == seen[list(seen)[-2]], f"{release} down"
        upgrade(config, release)
        assert everything(deployment) == seen[release], f"{release} up again"
    assert len({str(value) for value in seen.values()}) == len(seen), "releases look alike: the comparison sees nothing"


def test_plain_alembic_goes_the_same_way(deployment: Deployment) -> None:
    before = everything(deployment)
    local, cloud = (alembic_config(deployment.config, side) for side in ("local", "cloud"))
    command.upgrade(local, "head")
    command.upgrade(cloud, "head")
    by_alembic = everything(deployment)
    for release in (*reversed(RELEASES[:-1]), "base"):
        command.downgrade(cloud, release)
        command.downgrade(local, release)
    assert everything(deployment) == before
    upgrade(deployment.config)
    assert everything(deployment) == by_alembic


def test_a_cloud_release_is_the_same_whether_local_is_there_or_at_head(deployment: Deployment) -> None:
    config = deployment.config
    seen = {}
    for release in RELEASES:
        upgrade(config, release)
        seen[release] = deployment.dump("cloud")
    downgrade(config, "base")
    command.upgrade(alembic_config(config, "local"), "head")
    for release in RELEASES:
        command.upgrade(alembic_config(config, "cloud"), release)
        assert deployment.dump("cloud") == seen[release]


def test_what_stands_on_a_view_survives_the_releases_and_grants_come_back(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    with deployment.owner("cloud") as owner:
        owner.execute("GRANT SELECT ON public.hospital_patients TO authenticator")
        owner.execute(
            "CREATE FUNCTION public.patient(public.hospital_queues) RETURNS SETOF public.hospital_patients ROWS 1 "
            "LANGUAGE sql STABLE AS 'SELECT p.* FROM public.hospital_patients p WHERE p.id = $1.patient_id'"
        )
    upgrade(deployment.config)
    with deployment.owner("cloud") as owner:
        owner.execute("SELECT public.patient(q) FROM public.hospital_queues q")
        owner.execute("DROP FUNCTION public.patient(public.hospital_queues)")
    downgrade(deployment.config, "0001")
    with deployment.owner("cloud") as owner:
        granted = owner.execute(
            "SELECT has_table_privilege('authenticator', 'public.hospital_patients', 'SELECT')"
        ).fetchone()
    assert granted == (True,)


def test_a_release_that_something_else_stands_on_is_not_undone(deployment: Deployment) -> None:
    upgrade(deployment.config)
    with deployment.owner("cloud") as owner:
        owner.execute("CREATE VIEW public.phones AS SELECT phone FROM public.hospital_patients")
    before = everything(deployment)
    result = deployment.federation("downgrade", "0003", "--yes")
    assert result.returncode == 8, result.stderr
    assert "view phones depends on view hospital_patients" in result.stderr
    assert everything(deployment) == before


def test_both_chains_hold_the_same_releases(deployment: Deployment) -> None:
    assert Releases.load(deployment.config).ids == RELEASES


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_check_finds_nothing_at_head_and_writes_nothing_at_base(deployment: Deployment, side: str) -> None:
    result = deployment.alembic(side, "check")
    assert result.returncode == 255, result.stderr
    for words in (("current",), ("history",)):
        assert deployment.alembic(side, *words).returncode == 0
    with deployment.superuser(side) as connection:
        assert connection.execute("SELECT to_regnamespace('federation')").fetchone() == (None,)
    upgrade(deployment.config)
    result = deployment.alembic(side, "check")
    assert result.returncode == 0, result.stderr + result.stdout
