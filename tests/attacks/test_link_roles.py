"""The roles that carry the link are what they must be, and nobody else may become them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pytest
from deployments import OTHER
from psycopg import sql

from federation.administration import bootstrap
from federation.administration.bootstrap import link_roles
from federation.administration.bootstrap.statement import Statement
from federation.check import check
from federation.config import Config
from federation.databases import connect
from federation.environments import preconditions
from federation.errors import PreconditionMissing, Refused, Side
from federation.roles import settings

if TYPE_CHECKING:
    from deployments import Deployment


@dataclass(frozen=True)
class Planted:
    """A mistake or a squatter: what a superuser of ``side`` ran, what takes it back, and what is said of it."""

    side: Side
    plant: str
    undo: str
    role: str
    fault: str
    remedy: str


def member(side: Side, role: str, of: str) -> Planted:
    grant, revoke = f"GRANT {of} TO {role}", f"REVOKE {of} FROM {role}"
    return Planted(side, grant, revoke, role, f"is a member of {of}", revoke)


def mallory(side: Side, role: str) -> Planted:
    grant = f"CREATE ROLE mallory LOGIN; GRANT {role} TO mallory"
    return Planted(side, grant, "DROP ROLE mallory", role, "has the member mallory", f"REVOKE {role} FROM mallory")


def attribute(side: Side, role: str, name: str) -> Planted:
    alter = f"ALTER ROLE {role} {name}"
    return Planted(side, alter, alter.replace(name, f"NO{name}"), role, f"has {name}", f"ALTER ROLE {role} NO{name}")


LINK, SERVICE, SENDER = "federation_link", "federation_service", "federation_sender"
PLANTED = {
    "runs programs": member("local", LINK, "pg_execute_server_program"),
    "reads everything": member("local", LINK, "pg_read_all_data"),
    "is the service too": member("local", LINK, SERVICE),
    "is the owner too": member("local", LINK, "hospital_owner"),
    "service acts as a caller": member("local", SERVICE, "authenticated"),
    "a caller reads everything": member("local", "authenticated", "pg_read_all_data"),
    "mallory is the service": mallory("local", SERVICE),
    "mallory is the link": mallory("local", LINK),
    "replicates": attribute("local", LINK, "REPLICATION"),
    "bypasses": attribute("local", SERVICE, "BYPASSRLS"),
    "a caller bypasses": attribute("local", "authenticated", "BYPASSRLS"),
    "owns a table": Planted(
        "local",
        f"CREATE TABLE public.theirs (); ALTER TABLE public.theirs OWNER TO {LINK}",
        "DROP TABLE public.theirs",
        LINK,
        "owns 1 object",
        f"REASSIGN OWNED BY {LINK}",
    ),
    "the sender logs in": Planted(
        "cloud",
        f"ALTER ROLE {SENDER} LOGIN",
        f"ALTER ROLE {SENDER} NOLOGIN",
        SENDER,
        "can log in",
        f"ALTER ROLE {SENDER} NOLOGIN",
    ),
    "mallory is the sender": mallory("cloud", SENDER),
    "the sender reads everything": member("cloud", SENDER, "pg_read_all_data"),
    "the sender bypasses": attribute("cloud", SENDER, "BYPASSRLS"),
}
MENDED = {
    "the link may inherit": attribute("local", LINK, "INHERIT"),
    "makes roles": attribute("local", LINK, "CREATEROLE"),
    "makes databases": attribute("local", SERVICE, "CREATEDB"),
}
"""What bootstrap mends by itself."""


def replace_link(config: Config, **settings: object) -> Config:
    return Config.model_validate({**config.model_dump(by_alias=True), "link": {**config.link.model_dump(), **settings}})


def requires(federated: Deployment, side: Side) -> None:
    with connect(federated.config, side) as connection:
        preconditions.require(connection, federated.config, side)


@pytest.fixture
def plant(federated: Deployment) -> Iterator[ExitStack]:
    """Roles are the whole server's: what a test plants is taken back."""
    with ExitStack() as stack:
        yield stack


def put(federated: Deployment, plant: ExitStack, planted: Planted) -> None:
    plant.callback(federated.look, planted.side, planted.undo)
    federated.look(planted.side, planted.plant)


@pytest.mark.claim("S22")
@pytest.mark.parametrize("name", PLANTED)
def test_a_role_that_is_more_than_it_must_be_is_refused_everywhere(
    federated: Deployment, plant: ExitStack, name: str
) -> None:
    planted = PLANTED[name]
    put(federated, plant, planted)
    with pytest.raises(Refused, match=f"role {planted.role} {planted.fault}") as refused:
        bootstrap.apply(federated.config, planted.side)
    assert planted.remedy in str(refused.value.hint)
    with pytest.raises(PreconditionMissing, match=f"role {planted.role} {planted.fault}") as missing:
        requires(federated, planted.side)
    assert planted.remedy in missing.value.message
    # A member of the sender is found beside it, as one who reads everything (test_readers).
    found = [d for d in check(federated.config) if d.what == "role" and d.name != "mallory"]
    assert [(d.side, d.name) for d in found] == [(planted.side, planted.role)]
    assert planted.fault in found[0].detail
    assert planted.remedy in found[0].detail


@pytest.mark.parametrize("name", MENDED)
def test_bootstrap_mends_what_it_may(federated: Deployment, plant: ExitStack, name: str) -> None:
    planted = MENDED[name]
    put(federated, plant, planted)
    with pytest.raises(PreconditionMissing, match=f"role {planted.role} {planted.fault}"):
        requires(federated, planted.side)
    bootstrap.apply(federated.config, planted.side)
    requires(federated, planted.side)
    assert [d for d in check(federated.config) if d.what == "role"] == []


def test_the_roles_as_bootstrap_makes_them_are_right(federated: Deployment) -> None:
    """The control of the tests above: nothing is found, and a second run of bootstrap is not refused."""
    sides: tuple[Side, Side] = ("local", "cloud")
    for side in sides:
        bootstrap.apply(federated.config, side)
        requires(federated, side)
    assert [d for d in check(federated.config) if d.what == "role"] == []


def test_what_the_link_role_could_do_as_a_member(federated: Deployment, plant: ExitStack) -> None:
    """The control: the exploits work where they are planted."""
    put(federated, plant, PLANTED["reads everything"])
    with federated.link_role() as link:
        link.execute("SET ROLE pg_read_all_data")
        assert link.execute("SELECT count(*) FROM federation.account").fetchone() == (2,)
    put(federated, plant, PLANTED["runs programs"])
    with federated.link_role() as link:
        link.execute("SET ROLE pg_execute_server_program")
        link.execute("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'")


@pytest.mark.pg(">=16")
def test_a_membership_that_inherits_is_made_one_that_does_not(federated: Deployment, plant: ExitStack) -> None:
    plant.callback(federated.look, "local", f"GRANT authenticated TO {LINK} WITH INHERIT FALSE")
    federated.look("local", f"GRANT authenticated TO {LINK} WITH INHERIT TRUE")
    with pytest.raises(PreconditionMissing, match="inherits the privileges of authenticated"):
        requires(federated, "local")
    bootstrap.apply(federated.config, "local")
    requires(federated, "local")


@pytest.mark.pg(">=16")
def test_who_made_a_link_role_beforehand_is_named(federated: Deployment, plant: ExitStack) -> None:
    """Such a creator may make members of it, which would be found; that it may is a warning."""
    federated.look("local", "CREATE ROLE creator CREATEROLE")
    plant.callback(federated.look, "local", "DROP ROLE creator")
    federated.look("local", "SET ROLE creator; CREATE ROLE early_link LOGIN; RESET ROLE")
    plant.callback(federated.look, "local", "DROP OWNED BY early_link; DROP ROLE early_link")
    config = federated.config
    early = replace_link(config, user="early_link")
    notes = bootstrap.apply(early, "local").notes
    assert any("role early_link was made by creator, who may make members of it" in note for note in notes)


@pytest.mark.claim("S23", "N2")
def test_settings_that_the_link_role_planted_are_found_and_reset(federated: Deployment, plant: ExitStack) -> None:
    """Who once had the password gives the role settings that outlive it: here a role that others' policies let in."""
    plant.callback(bootstrap.apply, federated.config, "local")
    with federated.link_role() as link:
        link.execute(f"ALTER ROLE {LINK} IN DATABASE {federated.local_dbname} SET role = 'authenticated'")
        link.execute(f"ALTER ROLE {LINK} SET statement_timeout = 0")
        link.execute(f"ALTER ROLE {LINK} SET work_mem = '1GB'")
    with federated.link_role() as link:
        assert link.execute("SELECT current_user").fetchone() == ("authenticated",), "the exploit does not work"
    found = [d for d in check(federated.config) if d.what == "role"]
    assert [(d.name, d.detail.partition(":")[0]) for d in found] == [
        (LINK, "has the setting role in this database"),
        (LINK, "has the setting statement_timeout"),
        (LINK, "has the setting work_mem"),
    ]
    bootstrap.apply(federated.config, "local")
    assert [d for d in check(federated.config) if d.what == "role"] == []
    with federated.link_role() as link:
        query = "SELECT current_user, current_setting('statement_timeout'), current_setting('work_mem')"
        assert link.execute(query).fetchone() == (LINK, "30s", "4MB")


def test_a_limit_that_is_missing_is_found(federated: Deployment, plant: ExitStack) -> None:
    plant.callback(bootstrap.apply, federated.config, "local")
    federated.look("local", f"ALTER ROLE {SERVICE} RESET lock_timeout")
    found = [d for d in check(federated.config) if d.what == "role"]
    assert [(d.name, d.detail) for d in found] == [
        (SERVICE, "lacks the setting lock_timeout = 5s: federation bootstrap local")
    ]


@pytest.mark.claim("S21")
@pytest.mark.parametrize("dbname", ["postgres", "template1"])
def test_the_limits_hold_in_every_database_of_the_server(federated: Deployment, plant: ExitStack, dbname: str) -> None:
    user, password = federated.config.link_login("link")
    names = [*settings(federated.config)]
    with psycopg.connect(federated.pair.local.url(user, password, dbname)) as link:
        rows = link.execute("SELECT name, source FROM pg_settings WHERE name = ANY (%s)", [names]).fetchall()
    assert dict(rows) == dict.fromkeys(names, "user")
    # The control: limits of the site's database alone, as they once were.
    plant.callback(bootstrap.apply, federated.config, "local")
    federated.look("local", f"ALTER ROLE {user} RESET ALL")
    with psycopg.connect(federated.pair.local.url(user, password, dbname)) as link:
        assert link.execute("SHOW statement_timeout").fetchone() == ("0",)


@pytest.mark.claim("S32")
def test_a_notice_of_the_hospital_stays_out_of_the_clouds_log(federated: Deployment, plant: ExitStack) -> None:
    federated.look(
        "local",
        """
        CREATE FUNCTION public.talk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE NOTICE 'told of %', new.name; RETURN new; END $$;
        CREATE TRIGGER talk BEFORE UPDATE ON public.hospital_patients FOR EACH ROW EXECUTE FUNCTION public.talk()
        """,
    )
    federated.load({"hospital_patients": [{"name": "Quiet"}]})

    def told() -> bool:
        before = len(federated.pair.cloud.log_text())
        with federated.as_user() as caller:
            assert caller.execute("UPDATE hospital_patients SET age = 7").rowcount == 1
        return "told of Quiet" in federated.pair.cloud.log_text()[before:]

    assert not told()
    # Neither the role's setting nor the server's option alone lets it through; without both it comes.
    plant.callback(bootstrap.apply, federated.config, "local")
    federated.look("local", f"ALTER ROLE {LINK} RESET client_min_messages")
    assert not told()
    federated.look("cloud", "ALTER SERVER hospital OPTIONS (SET options '-c lock_timeout=5s')")
    assert told(), "the control: nothing is tested"
    bootstrap.apply(federated.config, "local")
    assert not told()


def second_site(federated: Deployment) -> dict[str, str]:
    """Variables of a site with a database of its own on the hospital's server, and the same link roles."""
    return federated.environ | {
        "FEDERATION_LOCAL_URL": federated.pair.local.url("second_owner", "x", "second"),
        "FEDERATION_LINK_PASSWORD": "second's",
    }


@pytest.mark.claim("S24")
def test_link_roles_of_another_site_on_the_server_are_refused(federated: Deployment, plant: ExitStack) -> None:
    """Its cloud would be locked out by the new passwords, and who has these would read its rows."""
    second = second_site(federated)
    with pytest.raises(Refused, match=rf"link role {LINK} is in use by database \w+_local") as refused:
        bootstrap.apply(Config.load(federated.file, second), "local")
    assert "FEDERATION_LINK_USER and FEDERATION_SERVICE_USER" in str(refused.value.hint)
    assert federated.look("local", "SELECT FROM pg_roles WHERE rolname = 'second_owner'") == []
    with federated.as_user() as caller:
        caller.execute("SELECT FROM hospital_patients")

    second |= {"FEDERATION_LINK_USER": "second_link", "FEDERATION_SERVICE_USER": "second_service"}
    config = Config.load(federated.file, second)
    plant.callback(federated.look, "local", "DROP ROLE second_link, second_service, second_owner")
    plant.callback(federated.look, "local", "DROP DATABASE second")
    bootstrap.apply(config, "local")
    bootstrap.apply(config, "local")


def test_where_they_are_not_refused_the_first_site_is_locked_out(
    federated: Deployment, plant: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    nothing = Statement("nothing is refused", sql.SQL("SELECT"), "maintenance")
    monkeypatch.setattr(link_roles, "_refuse_shared", lambda *_: nothing)
    plant.callback(bootstrap.apply, federated.config, "local")
    plant.callback(federated.look, "local", "DROP ROLE second_owner")
    plant.callback(federated.look, "local", "DROP DATABASE second")
    bootstrap.apply(Config.load(federated.file, second_site(federated)), "local")
    with pytest.raises(psycopg.Error, match="could not connect to server") as dark, federated.as_user() as caller:
        caller.execute("SELECT FROM hospital_patients")
    assert dark.value.sqlstate == "08001"


@pytest.mark.claim("S24")
def test_link_roles_of_another_site_are_refused_whoever_owns_its_database(federated: Deployment) -> None:
    other = federated.environ | {"FEDERATION_SITE_ID": OTHER}
    with pytest.raises(Refused, match=f"link role {LINK} is in use by another site"):
        bootstrap.apply(Config.load(federated.file, other), "local")


def test_a_copy_of_the_sites_own_database_is_no_other_site(federated: Deployment, plant: ExitStack) -> None:
    """As after a restore: the old database stands beside the new one for a while."""
    plant.callback(federated.look, "local", "DROP DATABASE restored")
    url = federated.url("local").rpartition("/")[0] + "/restored"
    bootstrap.apply(Config.load(federated.file, federated.environ | {"FEDERATION_LOCAL_URL": url}), "local")
