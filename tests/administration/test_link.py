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
    from deployments import Deployments

    from federation.servers import Pair


def changed(config: Config, **settings: Any) -> Config:
    return Config.model_validate({**config.model_dump(by_alias=True), "link": {**config.link.model_dump(), **settings}})


def options(pair: Pair) -> dict[str, str]:
    with pair.cloud.connect() as connection:
        return dict(
            connection.execute(
                "SELECT option_name, option_value FROM pg_foreign_server, pg_options_to_table(srvoptions)"
            ).fetchall()
        )


def mappings(pair: Pair) -> dict[str, list[str]]:
    with pair.cloud.connect() as connection:
        return dict(connection.execute("SELECT usename, umoptions FROM pg_user_mappings").fetchall())


def answers(config: Config) -> bool:
    """Whether the app's owner reads over the link, in a new session."""
    assert config.cloud_url is not None
    with psycopg.connect(config.cloud_url.get_secret_value()) as connection:
        table = connection.execute(
            "SELECT relnamespace::regnamespace::text, relname FROM pg_class "
            "WHERE relkind = 'f' AND relnamespace = 'federation_link'::regnamespace LIMIT 1"
        ).fetchone()
        assert table is not None
        connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(*table)))
    return True


def test_it_sets_what_the_environment_says_and_proves_both_link_roles(pair: Pair, federated: Config) -> None:
    before = options(pair)
    result = link.apply(federated)
    assert result["server"] == "hospital"
    assert result["address"] == {
        "host": "127.0.0.1",
        "port": str(pair.local.port),
        "dbname": "hospital",
        "sslmode": "prefer",
    }
    assert result["mappings"] == {
        "public": "federation_link",
        "postgres": "federation_service",
        "service_role": "federation_service",
    }
    assert result["proved"] == ["federation_service", "federation_link"]
    assert options(pair) == before


def test_a_rotated_password_takes_hold(pair: Pair, federated: Config) -> None:
    rotated = changed(federated, password="new-l'ink", service_password="new-serv%ice")
    bootstrap.apply(rotated, "local")
    with pytest.raises(psycopg.OperationalError):
        answers(federated)
    with pytest.raises(Unreachable, match="password authentication failed") as caught:
        link.apply(federated)  # the environment still holds the old ones
    assert "FEDERATION_LINK_HOST" in str(caught.value.hint)
    assert link.apply(rotated)["proved"] == ["federation_service", "federation_link"]
    assert answers(rotated)
    for log in (pair.cloud.log_text(), pair.local.log_text()):
        for secret in ("new-l'ink", "new-l''ink", "new-serv%ice"):
            assert secret not in log
    bootstrap.apply(federated, "local")
    link.apply(federated)
    assert answers(federated)


def test_an_address_where_nobody_listens_does_not_replace_the_old_one(pair: Pair, federated: Config) -> None:
    before = options(pair), mappings(pair)
    with socket.socket() as unused:  # bound and not listening: refused at once
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="does not reach the hospital") as caught:
            link.apply(changed(federated, port=unused.getsockname()[1]))
    assert caught.value.exit_code == 6
    assert "stay in force" in str(caught.value.hint)
    assert (options(pair), mappings(pair)) == before
    assert answers(federated)


def test_a_hospital_that_is_silent_is_given_up(pair: Pair, federated: Config) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Unreachable, match="does not reach the hospital"):
            link.apply(changed(federated, port=silent.getsockname()[1], connect_timeout=1))
    assert answers(federated)


def test_a_wrong_password_does_not_replace_the_right_one(pair: Pair, federated: Config) -> None:
    before = mappings(pair)
    for wrong in ({"password": "wrong"}, {"service_password": "wrong"}):
        with pytest.raises(Unreachable, match="password authentication failed"):
            link.apply(changed(federated, **wrong))
    assert mappings(pair) == before


def test_a_database_that_does_not_list_the_site_is_refused(pair: Pair, federated: Config) -> None:
    other = Config.model_validate(
        {**federated.model_dump(by_alias=True), "site_id": "00000000-0000-0000-0000-0000000000ff"}
    )
    with pytest.raises(Refused, match="does not list site"):
        link.apply(other)
    assert answers(federated)


def test_address_options_that_no_longer_apply_go_and_the_migrations_own_stay(pair: Pair, federated: Config) -> None:
    before = options(pair)
    with psycopg.connect(pair.environment()["FEDERATION_CLOUD_URL"]) as owner:
        owner.execute(
            "ALTER SERVER hospital OPTIONS (ADD hostaddr '192.0.2.1', ADD channel_binding 'require', "
            "ADD fdw_tuple_cost '0.2', DROP keepalives_idle)"
        )
    link.apply(federated)
    assert options(pair) == before | {"fdw_tuple_cost": "0.2"}
    with psycopg.connect(pair.environment()["FEDERATION_CLOUD_URL"]) as owner:
        owner.execute("ALTER SERVER hospital OPTIONS (DROP fdw_tuple_cost)")


def test_before_the_first_release_there_is_no_server(pair: Pair, federated: Config) -> None:
    with pytest.raises(PreconditionMissing, match="no foreign server elsewhere") as caught:
        link.apply(changed(federated, server="elsewhere"))
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
