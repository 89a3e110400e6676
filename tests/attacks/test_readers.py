"""A role of the cloud that reads everything can act as any listed account: it is named until it is acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from federation.check import check
from federation.config import Config

if TYPE_CHECKING:
    from deployments import Deployment

READER = "supabase_read_only_user"


@pytest.fixture
def reader(federated: Deployment) -> Iterator[str]:
    """As Supabase makes it: https://supabase.com/docs/guides/database/postgres/roles"""
    federated.look("cloud", f"CREATE ROLE {READER} LOGIN BYPASSRLS PASSWORD 'ro'")
    yield READER
    federated.look("cloud", f"DROP OWNED BY {READER}; DROP ROLE {READER}")


def named(config: Config) -> list[str]:
    return [d.name for d in check(config) if d.what == "role"]


@pytest.mark.claim("N4")
def test_a_member_of_pg_read_all_data_is_found_and_can_be_acknowledged(federated: Deployment, reader: str) -> None:
    assert check(federated.config) == []
    federated.look("cloud", f"GRANT pg_read_all_data TO {reader}")
    assert named(federated.config) == [reader]
    roles = federated.config.roles.model_copy(update={"read_all": (reader,)})
    assert check(federated.config.model_copy(update={"roles": roles})) == []


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT SELECT ON pg_catalog.pg_user_mapping TO {}",
        "GRANT postgres TO {}",
        "GRANT federation_sender TO {}",
        "ALTER ROLE {0} NOINHERIT; GRANT pg_read_all_data TO {0}",
    ],
)
def test_other_ways_to_the_same_are_found(federated: Deployment, reader: str, grant: str) -> None:
    federated.look("cloud", grant.format(reader))
    assert reader in named(federated.config)


def test_what_such_a_role_can_do(federated: Deployment, reader: str) -> None:
    """The control: without any grant of the toolkit's it reads as the site, and reads the passwords."""
    federated.load({"hospital_patients": 3})
    federated.look("cloud", f"GRANT pg_read_all_data TO {reader}")
    with psycopg.connect(federated.pair.cloud.url(reader, "ro", federated.cloud_dbname)) as session:
        session.execute(
            "SELECT taken FROM federation_private.bind WHERE sub = (SELECT id FROM federation_private.site)"
        )
        assert session.execute("SELECT count(*) FROM federation_link.hospital_patients").fetchone() == (3,)
        row = session.execute("SELECT string_agg(umoptions::text, '') FROM pg_user_mapping").fetchone()
        assert row is not None
        assert federated.config.link_login("link")[1] in row[0]
