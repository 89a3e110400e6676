"""The link's address and passwords, set anew without a release."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from federation.administration import bootstrap, link
from federation.config import Config
from federation.errors import PreconditionMissing, Refused, Unreachable

if TYPE_CHECKING:
    from deployments import Deployment, Deployments


def changed(config: Config, **settings: Any) -> Config:
    return Config.model_validate({**config.model_dump(by_alias=True), "link": {**config.link.model_dump(), **settings}})


def options(federated: Deployment) -> dict[str, str]:
    query = "SELECT option_name, option_value FROM pg_foreign_server, pg_options_to_table(srvoptions)"
    return dict(federated.look("cloud", query))  # type: ignore[arg-type]


def mappings(federated: Deployment) -> dict[str, list[str]]:
    return dict(federated.look("cloud", "SELECT usename, umoptions FROM pg_user_mappings"))  # type: ignore[arg-type]


def answers(federated: Deployment) -> bool:
    """Whether the app's owner reads over the link, in a new session."""
    with federated.owner("cloud") as connection:
        table = connection.execute(
            "SELECT relnamespace::regnamespace::text, relname FROM pg_class "
            "WHERE relkind = 'f' AND relnamespace = 'federation_link'::regnamespace LIMIT 1"
        ).fetchone()
        assert table is not None
        connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(*table)))
    return True


def test_it_sets_what_the_environment_says_and_proves_both_link_roles(federated: Deployment) -> None:
    before = options(federated)
    result = link.apply(federated.config)
    assert result["server"] == "hospital"
    assert result["address"] == {
        "host": "127.0.0.1",
        "port": str(federated.pair.local.port),
        "dbname": federated.local_dbname,
        "sslmode": "prefer",
    }
    assert result["mappings"] == {
        "public": "federation_link",
        "postgres": "federation_service",
        "service_role": "federation_service",
    }
    assert result["proved"] == ["federation_service", "federation_link"]
    assert options(federated) == before


def test_a_rotated_password_takes_hold(federated: Deployment) -> None:
    rotated = changed(federated.config, password="new-l'ink", service_password="new-serv%ice")
    bootstrap.apply(rotated, "local")
    try:
        with pytest.raises(psycopg.OperationalError):
            answers(federated)
        with pytest.raises(Unreachable, match="password authentication failed") as caught:
            link.apply(federated.config)  # the environment still holds the old ones
        assert "FEDERATION_LINK_HOST" in str(caught.value.hint)
        assert link.apply(rotated)["proved"] == ["federation_service", "federation_link"]
        assert answers(federated)
        for log in (federated.pair.cloud.log_text(), federated.pair.local.log_text()):
            for secret in ("new-l'ink", "new-l''ink", "new-serv%ice"):
                assert secret not in log
    finally:
        bootstrap.apply(federated.config, "local")  # the roles are the server's, and other tests' too
    link.apply(federated.config)
    assert answers(federated)


def test_an_address_where_nobody_listens_does_not_replace_the_old_one(federated: Deployment) -> None:
    before = options(federated), mappings(federated)
    with socket.socket() as unused:  # bound and not listening: refused at once
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="does not reach the hospital") as caught:
            link.apply(changed(federated.config, port=unused.getsockname()[1]))
    assert caught.value.exit_code == 6
    assert "stay in force" in str(caught.value.hint)
    assert (options(federated), mappings(federated)) == before
    assert answers(federated)


def test_a_hospital_that_is_silent_is_given_up(federated: Deployment) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Unreachable, match="does not reach the hospital"):
            link.apply(changed(federated.config, port=silent.getsockname()[1], connect_timeout=1))
    assert answers(federated)


def test_a_wrong_password_does_not_replace_the_right_one(federated: Deployment) -> None:
    before = mappings(federated)
    for wrong in ({"password": "wrong"}, {"service_password": "wrong"}):
        with pytest.raises(Unreachable, match="password authentication failed"):
            link.apply(changed(federated.config, **wrong))
    assert mappings(federated) == before


@pytest.mark.claim("S29")
def test_a_database_that_does_not_list_the_site_is_refused(federated: Deployment) -> None:
    other = Config.model_validate(
        {**federated.config.model_dump(by_alias=True), "site_id": "00000000-0000-0000-0000-0000000000ff"}
    )
    with pytest.raises(Refused, match="does not list site"):
        link.apply(other)
    assert answers(federated)


def test_address_options_that_no_longer_apply_go_and_the_migrations_own_stay(federated: Deployment) -> None:
    before = options(federated)
    with federated.owner("cloud") as owner:
        owner.execute(
            "ALTER SERVER hospital OPTIONS (ADD hostaddr '192.0.2.1', ADD channel_binding 'require', "
            "ADD fdw_tuple_cost '0.2', DROP keepalives_idle)"
        )
    link.apply(federated.config)
    assert options(federated) == before | {"fdw_tuple_cost": "0.2"}


def test_before_the_first_release_there_is_no_server(federated: Deployment) -> None:
    with pytest.raises(PreconditionMissing, match="no foreign server elsewhere") as caught:
        link.apply(changed(federated.config, server="elsewhere"))
    assert "federation upgrade" in str(caught.value.hint)


def test_without_an_exported_table_it_proves_both_link_roles_all_the_same(deployments: Deployments) -> None:
    """What is left are the toolkit's own foreign tables, on which the service role has no privilege at the hospital."""
    with deployments.at_head() as deployment:
        with deployment.owner("cloud") as owner:
            owner.execute("DROP SCHEMA federation_link CASCADE")
            table = owner.execute(
                "SELECT ftrelid::regclass::text FROM pg_foreign_table WHERE has_table_privilege(ftrelid, 'SELECT')"
            ).fetchone()
            assert table is not None, "nothing is left to ask"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(f"SELECT FROM {table[0]} LIMIT 0")  # type: ignore[arg-type]
        assert link.apply(deployment.config)["proved"] == ["federation_service", "federation_link"]
        with pytest.raises(Unreachable, match="password authentication failed"):
            link.apply(changed(deployment.config, service_password="wrong"))
