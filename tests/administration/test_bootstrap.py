"""What an administrator runs once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from federation.administration import bootstrap
from federation.config import Config
from federation.databases import connect
from federation.environments import preconditions
from federation.errors import PreconditionMissing, Refused, Side, Unreachable
from federation.servers import Pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from federation.servers import Binaries, Server

    Psql: TypeAlias = Callable[[Server, str], CompletedProcess[str]]

PASSWORDS = {"owner": "Owner-pa'ss", "link": "Link-pa%ss", "service": 'Service-pa"ss'}

ROLE = """
SELECT rolcanlogin, rolsuper, rolbypassrls, rolinherit, rolcreatedb, rolcreaterole, rolconnlimit, d.setconfig
FROM pg_authid AS r LEFT JOIN pg_db_role_setting AS d ON d.setrole = r.oid AND d.setdatabase = 0
WHERE rolname = %s
"""


def local(pair: Pair, name: str, **more: str) -> Config:
    """A hospital of its own: database ``name``, owner ``name_owner``, link roles ``name_link``, ``name_service``."""
    url = pair.local.url(f"{name}_owner", PASSWORDS["owner"], name)
    return Config.load(
        None,
        pair.environment()
        | {
            "FEDERATION_LOCAL_URL": url,
            "FEDERATION_LINK_USER": f"{name}_link",
            "FEDERATION_LINK_PASSWORD": PASSWORDS["link"],
            "FEDERATION_SERVICE_USER": f"{name}_service",
            "FEDERATION_SERVICE_PASSWORD": PASSWORDS["service"],
        }
        | more,
    )


def cloud(server: Server, name: str, url: str, admin_url: str) -> Config:
    """A cloud with API roles of its own, named after ``name``."""
    environment = {
        "FEDERATION_CLOUD_URL": url,
        "FEDERATION_CLOUD_ADMIN_URL": admin_url,
        "FEDERATION_LINK_HOST": "hospital.example",
        "FEDERATION_LINK_PORT": "5432",
        "FEDERATION_LINK_DBNAME": "hospital",
        "FEDERATION_LINK_PASSWORD": "x",
        "FEDERATION_SERVICE_PASSWORD": "x",
        "FEDERATION_SITE_ID": "00000000-0000-0000-0000-000000000001",
    }
    roles = {
        "callers": (f"{name}_caller",),
        "bypass": (f"{name}_bypass",),
        "denied": (f"{name}_denied",),
        "sender": f"{name}_sender",
    }
    return Config.model_validate({**Config.load(None, environment).model_dump(by_alias=True), "roles": roles})


def is_ready(config: Config, side: Side) -> bool:
    with connect(config, side) as connection:
        preconditions.require(connection, config, side)
    return True


def state(server: Server, database: str, name: str) -> list[object]:
    """All that the bootstrap of ``name`` made, without the names and the salts."""
    with server.connect(database) as connection:
        rows = connection.execute(
            sql.SQL(
                """
            SELECT r.rolname, rolcanlogin, rolsuper, rolbypassrls, rolinherit, rolcreatedb, rolcreaterole,
                   rolconnlimit, rolpassword LIKE 'SCRAM%%', s.setconfig,
                   ARRAY(SELECT m.roleid::regrole::text FROM pg_auth_members AS m WHERE m.member = r.oid ORDER BY 1)
            FROM pg_authid AS r LEFT JOIN pg_db_role_setting AS s ON s.setrole = r.oid
            WHERE rolname LIKE {name}
            UNION ALL
            SELECT datname, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                   (SELECT array_agg(a::text ORDER BY a::text COLLATE "C") FROM unnest(datacl) AS a), NULL
            FROM pg_database WHERE datname = current_database()
            UNION ALL
            SELECT nspname, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                   (SELECT array_agg(a::text ORDER BY a::text COLLATE "C") FROM unnest(nspacl) AS a), NULL
            FROM pg_namespace WHERE nspname IN ('public', 'extensions')
            UNION ALL
            SELECT fdwname, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                   (SELECT array_agg(a::text ORDER BY a::text COLLATE "C") FROM unnest(fdwacl) AS a), NULL
            FROM pg_foreign_data_wrapper
            ORDER BY 1
            """
            ).format(name=sql.Literal(f"{name}%"))
        ).fetchall()
    return [repr(row).replace(name, "*") for row in rows]


def test_the_local_script_and_apply_do_the_same_and_so_does_a_second_run(pair: Pair, psql: Psql) -> None:
    applied, printed = local(pair, "applied"), local(pair, "printed")
    bootstrap.apply(applied, "local")
    script = bootstrap.render(printed, "local")
    result = psql(pair.local, script)
    assert result.returncode == 0, result.stderr
    first = state(pair.local, "applied", "applied")
    assert first == state(pair.local, "printed", "printed")
    again = bootstrap.apply(applied, "local")
    assert not [why for why in again.done if why.startswith(("role", "link role", "database", "schema"))]
    result = psql(pair.local, bootstrap.render(printed, "local"))
    assert result.returncode == 0, result.stderr
    assert first == state(pair.local, "applied", "applied") == state(pair.local, "printed", "printed")
    assert is_ready(applied, "local")
    assert is_ready(printed, "local")


@pytest.mark.claim("S21")
def test_the_link_roles_can_do_little_and_are_bounded(pair: Pair) -> None:
    bootstrap.apply(local(pair, "bounded"), "local")
    with pair.local.connect() as connection:
        for user, limit in (("bounded_link", 104), ("bounded_service", 53)):
            row = connection.execute(ROLE, (user,)).fetchone()
            assert row is not None
            assert row[:-1] == (True, False, False, False, False, False, limit)
            assert row[-1] == [
                "lock_timeout=5s",
                "statement_timeout=30s",
                "idle_in_transaction_session_timeout=60s",
                "idle_session_timeout=10min",
                "temp_file_limit=1GB",
                "lc_messages=C",
                "client_min_messages=error",
            ]
        assert connection.execute("SHOW lc_messages").fetchone() != ("C",)
    with psycopg.connect(pair.local.url("bounded_link", PASSWORDS["link"], "bounded")) as connection:
        assert connection.execute("SHOW temp_file_limit").fetchone() == ("1GB",)
        assert connection.execute("SHOW lc_messages").fetchone() == ("C",)
        for command in ("CREATE TEMPORARY TABLE t ()", "CREATE TABLE public.t ()", "CREATE SCHEMA s"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(command)
    with pair.local.connect() as connection:
        connection.execute("CREATE ROLE bounded_stranger LOGIN")
        row = connection.execute("SELECT has_database_privilege('bounded_stranger', 'bounded', 'CONNECT')").fetchone()
        assert row == (False,)


LIMITS = "SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname LIKE %s ORDER BY 1"


def test_the_limits_follow_from_max_connections_and_the_arithmetic_is_told(pair: Pair, psql: Psql) -> None:
    """The server of the tests has 200 connections: too few for 100 backends of each role, and that is said."""
    applied, printed = local(pair, "counted"), local(pair, "recounted")
    told = "\n".join(bootstrap.apply(applied, "local").notes)
    result = psql(pair.local, bootstrap.render(printed, "local"))
    for text, name in ((told, "counted"), (result.stderr, "recounted")):
        assert (
            "max_connections 200 - reserved 3 - kept for the hospital 40 = 157 for the link: "
            f"104 for role {name}_link, 53 for role {name}_service, of each 5 for releases" in text
        )
        assert f"the link serves 99 backends of the cloud as role {name}_link and 48 as role {name}_service" in text
        assert "for 100 of each set max_connections = 267" in text
        with pair.local.connect() as connection:
            rows = connection.execute(LIMITS, (f"{name}\\_%",)).fetchall()
        assert rows == [(f"{name}_link", 104), (f"{name}_owner", -1), (f"{name}_service", 53)]


def test_limits_of_federation_toml_are_taken_as_they_are(pair: Pair) -> None:
    config = local(pair, "fixed")
    limits = config.link.model_copy(update={"connection_limit": 7, "service_connection_limit": 3})
    bootstrap.apply(config.model_copy(update={"link": limits}), "local")
    with pair.local.connect() as connection:
        rows = connection.execute(LIMITS, ("fixed\\_%",)).fetchall()
    assert rows == [("fixed_link", 7), ("fixed_owner", -1), ("fixed_service", 3)]


@pytest.mark.parametrize(("most", "link", "service"), [(100, 51, 26), (30, 12, 6), (265, 105, 104), (267, 105, 105)])
def test_the_limits_leave_the_hospital_its_own(binaries: Binaries, most: int, link: int, service: int) -> None:
    """The reserve is a fifth, at least 20; each role has a place for the app beside those for releases, always."""
    with Pair(binaries, settings={"max_connections": str(most)}, memory=True) as small:
        bootstrap.apply(local(small, "small"), "local")
        with small.local.connect() as connection:
            rows = connection.execute(LIMITS, ("small\\_%",)).fetchall()
    assert rows == [("small_link", link), ("small_owner", -1), ("small_service", service)]


def test_the_owner_sees_and_may_end_sessions_for_a_release(pair: Pair) -> None:
    bootstrap.apply(local(pair, "seeing"), "local")
    query = (
        "SELECT pg_has_role('seeing_owner', 'pg_read_all_stats', 'USAGE'), "
        "pg_has_role('seeing_owner', 'pg_signal_backend', 'USAGE')"
    )
    with pair.local.connect() as connection:
        assert connection.execute(query).fetchone() == (True, True)


def test_a_second_run_sets_a_rotated_password(pair: Pair) -> None:
    bootstrap.apply(local(pair, "rotated"), "local")
    bootstrap.apply(local(pair, "rotated", FEDERATION_LINK_PASSWORD="another"), "local")
    psycopg.connect(pair.local.url("rotated_link", "another", "rotated")).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(pair.local.url("rotated_link", PASSWORDS["link"], "rotated"))


def test_an_owner_without_a_password_gets_none(pair: Pair) -> None:
    config = local(pair, "bare", FEDERATION_LOCAL_URL=f"postgresql://bare_owner@127.0.0.1:{pair.local.port}/bare")
    bootstrap.apply(config, "local")
    with pair.local.connect() as connection:
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'bare_owner'").fetchone()
    assert row == (None,)


def test_no_password_is_printed_or_logged(pair: Pair) -> None:
    config = local(pair, "hushed")
    script = bootstrap.render(config, "local")
    bootstrap.apply(config, "local")
    log = pair.local.log_text()
    assert 'CREATE ROLE "hushed_link"' in log
    for password in PASSWORDS.values():
        for form in (password, password.replace("'", "''"), quote(password, safe="")):
            assert form not in script
            assert form not in log


@pytest.mark.claim("S21")
@pytest.mark.parametrize("right", ["BYPASSRLS", "SUPERUSER", "REPLICATION", "IN ROLE pair_bypass"])
def test_a_link_role_that_row_level_security_does_not_judge_is_refused(pair: Pair, psql: Psql, right: str) -> None:
    name = f"unjudged_{right.split()[0].lower()}"
    with pair.local.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS pair_bypass")
        connection.execute("CREATE ROLE pair_bypass BYPASSRLS")
        connection.execute(f"CREATE ROLE {name}_service LOGIN {right}")
    config = local(pair, name)
    fault, remedy = (
        ("is a member of pair_bypass", f"REVOKE pair_bypass FROM {name}_service")
        if right.startswith("IN")
        else (f"has {right}", f"ALTER ROLE {name}_service NO{right}")
    )
    with pytest.raises(Refused, match=f"role {name}_service {fault}") as caught:
        bootstrap.apply(config, "local")
    assert remedy in str(caught.value.hint)
    assert "FEDERATION_SERVICE_USER" in str(caught.value.hint)
    result = psql(pair.local, bootstrap.render(config, "local"))
    assert result.returncode == 3
    assert f"role {name}_service {fault}" in result.stderr
    with pair.local.connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", (f"{name}_owner",)).fetchone()
        assert row == (0,)
        connection.execute(f"DROP ROLE {name}_service")


def test_the_link_roles_and_the_owner_are_three_roles(pair: Pair) -> None:
    with pytest.raises(PreconditionMissing, match="not three different roles"):
        bootstrap.statements(local(pair, "one", FEDERATION_LINK_USER="one_owner"), "local")


def test_names_with_every_sort_of_quote_stay_names(pair: Pair, psql: Psql, tmp_path: Path) -> None:
    name = "o\"d'd $fed$ :x %s {0} \\ =\n\\! touch ran"
    database = "o\"d'd $fed$ :x %s {0} \\ ="
    config = local(
        pair,
        "odd",
        FEDERATION_LOCAL_URL=pair.local.url(f"{name}o", "p", database),
        FEDERATION_LINK_USER=f"{name}l",
        FEDERATION_SERVICE_USER=f"{name}s",
    )
    result = psql(pair.local, bootstrap.render(config, "local"))
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "ran").exists()
    assert is_ready(config, "local")
    bootstrap.apply(config, "local")
    psycopg.connect(pair.local.url(f"{name}l", PASSWORDS["link"], database)).close()


def test_the_supabase_like_cloud_is_made_ready_by_its_superuser(pair: Pair, psql: Psql) -> None:
    pair.cloud.create_database("supa", owner="postgres")
    pair.prepare_cloud_database("supa")
    url = pair.environment(cloud_dbname="supa")["FEDERATION_CLOUD_URL"]
    config = cloud(pair.cloud, "supa", url, pair.cloud.url())
    assert {"extension postgres_fdw", "the owner may make a foreign server"} <= {*bootstrap.apply(config, "cloud").done}
    assert bootstrap.apply(config, "cloud").done == ()
    result = psql(pair.cloud, bootstrap.render(config, "cloud"))
    assert result.returncode == 0, result.stderr
    assert "GRANT" not in result.stdout
    assert is_ready(config, "cloud")
    with psycopg.connect(url) as owner:
        owner.execute("SET ROLE supa_sender")


def test_on_supabase_the_administrator_is_the_owner(pair: Pair) -> None:
    """Supabase's postgres_fdw grants USAGE on itself to postgres when it is created; no superuser is at hand."""
    pair.cloud.create_database("owned", owner="postgres")
    pair.prepare_cloud_database("owned")
    url = pair.environment(cloud_dbname="owned")["FEDERATION_CLOUD_URL"]
    config = cloud(pair.cloud, "owned", url, url)
    if pair.cloud.binaries.major < 16:  # there only a superuser makes a role that bypasses; Supabase has its own
        with pair.cloud.connect() as connection:
            connection.execute("CREATE ROLE owned_bypass NOLOGIN BYPASSRLS")
    with pytest.raises(PreconditionMissing, match="privilege is missing") as caught:
        bootstrap.apply(config, "cloud")
    assert "FEDERATION_CLOUD_ADMIN_URL" in str(caught.value.hint)
    with pair.cloud.connect("owned") as connection:
        connection.execute("CREATE EXTENSION postgres_fdw WITH SCHEMA extensions")
        connection.execute("GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO postgres WITH GRANT OPTION")
    bootstrap.apply(config, "cloud")
    assert bootstrap.apply(config, "cloud").done == ()
    assert is_ready(config, "cloud")
    with psycopg.connect(url) as owner:
        owner.execute("SET ROLE owned_sender")


def test_a_vanilla_cloud_gets_owner_database_and_api_roles(pair: Pair, psql: Psql) -> None:
    configs = {
        name: cloud(pair.local, name, pair.local.url(f"{name}_owner", "p", name), pair.local.url())
        for name in ("app_a", "app_b")
    }
    bootstrap.apply(configs["app_a"], "cloud")
    result = psql(pair.local, bootstrap.render(configs["app_b"], "cloud"))
    assert result.returncode == 0, result.stderr
    assert state(pair.local, "app_a", "app_a") == state(pair.local, "app_b", "app_b")
    for name, config in configs.items():
        assert is_ready(config, "cloud")
        assert bootstrap.apply(config, "cloud").done == ()
        with psycopg.connect(pair.local.url(f"{name}_owner", "p", name)) as owner:
            owner.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{name}_sender")))
    with pair.local.connect("app_a") as connection:
        rows = connection.execute(
            "SELECT rolname, rolcanlogin, rolbypassrls FROM pg_roles WHERE rolname LIKE 'app\\_a%' ORDER BY 1"
        ).fetchall()
    assert rows == [
        ("app_a_bypass", False, True),
        ("app_a_caller", False, False),
        ("app_a_denied", False, False),
        ("app_a_owner", True, False),
        ("app_a_sender", False, False),
    ]


def test_printing_for_the_cloud_needs_its_url_only() -> None:
    config = Config.load(None, {"FEDERATION_CLOUD_URL": "postgresql://app:hidden-word@cloud/app"})
    assert "hidden-word" not in bootstrap.render(config, "cloud")
    with pytest.raises(PreconditionMissing, match="FEDERATION_CLOUD_ADMIN_URL is not set"):
        bootstrap.apply(config, "cloud")


@pytest.mark.parametrize("missing", ["FEDERATION_LOCAL_URL", "FEDERATION_LINK_PASSWORD", "FEDERATION_SERVICE_PASSWORD"])
def test_printing_for_the_hospital_names_what_is_missing(missing: str) -> None:
    environment = {
        "FEDERATION_LOCAL_URL": "postgresql://owner@hospital/hospital",
        "FEDERATION_LINK_PASSWORD": "x",
        "FEDERATION_SERVICE_PASSWORD": "x",
    }
    del environment[missing]
    with pytest.raises(PreconditionMissing, match=f"{missing} is not set"):
        bootstrap.render(Config.load(None, environment), "local")


def test_a_wrong_administrators_password_names_the_administrators_url(pair: Pair) -> None:
    config = local(pair, "unknown", FEDERATION_LOCAL_ADMIN_URL=pair.local.url("postgres", "wrong"))
    with pytest.raises(Unreachable) as caught:
        bootstrap.apply(config, "local")
    assert "FEDERATION_LOCAL_ADMIN_URL" in str(caught.value.hint)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres.abcdefghijklmnopqrst:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres",
        "postgresql://postgres.abcdefghijklmnopqrst:p@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        "postgresql://postgres.abcdefghijklmnopqrst:p@pooler.example:5432/postgres",
    ],
)
def test_the_login_of_supabases_pooler_is_no_role(url: str) -> None:
    with pytest.raises(PreconditionMissing, match="no role") as caught:
        bootstrap.render(Config.load(None, {"FEDERATION_CLOUD_URL": url}), "cloud")
    assert (caught.value.exit_code, caught.value.side) == (9, "cloud")
    assert "FEDERATION_CLOUD_URL" in str(caught.value)
    assert "the direct connection's URL" in str(caught.value.hint)


@pytest.mark.parametrize("login", ["postgres", "app.owner", '"a.b"'])
def test_other_logins_are_roles(login: str) -> None:
    url = f"postgresql://{quote(login)}:p@db.abcdefghijklmnopqrst.supabase.co/postgres"
    assert bootstrap.render(Config.load(None, {"FEDERATION_CLOUD_URL": url}), "cloud")
