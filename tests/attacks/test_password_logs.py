"""The link's passwords stay out of the cloud's log and statistics, also while a mapping waits for a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import psycopg
import pytest
from deployments import Deployment, Deployments
from psycopg import sql
from waiting import until

from federation.administration import link
from federation.databases import connect
from federation.errors import FederationError, PreconditionMissing
from federation.operations.user_mappings import send_mapping
from federation.servers import Binaries, Pair

Verb = Literal["CREATE", "ALTER"]
PLANTED = "planted-pa55word"

ONE_STATEMENT = sql.SQL(
    """
DO $$ BEGIN
    EXECUTE {} || quote_literal((SELECT password FROM pg_temp.federation_secret)) || ')';
EXCEPTION WHEN OTHERS THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
END $$"""
)
"""The naive block: the statement that waits is the one that holds the password."""

ALTER = "ALTER USER MAPPING FOR PUBLIC SERVER hospital OPTIONS (SET user 'federation_link', SET password "
CREATE = "CREATE USER MAPPING FOR anon SERVER hospital OPTIONS (user 'federation_link', password "


@pytest.fixture(scope="module")
def own_servers(binaries: Binaries) -> Iterator[Deployments]:
    """Servers that log every statement. The controls leave passwords in the log, where other tests look for them."""
    with Pair(binaries, settings={"log_statement": "all"}, memory=True) as pair, Deployments(pair) as deployments:
        yield deployments


@pytest.fixture
def federated(own_servers: Deployments) -> Iterator[Deployment]:
    with own_servers.at_head() as deployment:
        yield deployment


def naive(connection: psycopg.Connection[Any], head: str) -> None:
    connection.execute("CREATE TEMPORARY TABLE federation_secret (password text) ON COMMIT DROP")
    with connection.cursor().copy("COPY pg_temp.federation_secret FROM STDIN") as copy:
        copy.write_row((PLANTED,))
    connection.execute(ONE_STATEMENT.format(sql.Literal(head)))


@contextmanager
def held(federated: Deployment, verb: str) -> Iterator[None]:
    """Another session has changed the same mapping and not committed."""
    with psycopg.connect(federated.url("cloud")) as other:
        if verb == "ALTER":
            other.execute("ALTER USER MAPPING FOR PUBLIC SERVER hospital OPTIONS (SET user 'federation_link')")
        else:
            other.execute("CREATE USER MAPPING FOR anon SERVER hospital OPTIONS (user 'federation_link')")
        yield
        other.rollback()


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pg_blocking_pids(pid) <> '{}'"


def waiter(federated: Deployment) -> int:
    return int(until(lambda: federated.look("cloud", WAITING))[0][0])


def cancelled(federated: Deployment) -> None:
    federated.look("cloud", "SELECT pg_cancel_backend(%s)", [waiter(federated)])


def terminated(federated: Deployment) -> None:
    federated.look("cloud", "SELECT pg_terminate_backend(%s)", [waiter(federated)])


def timed_out(federated: Deployment) -> None:
    waiter(federated)


def wait_logged(federated: Deployment) -> None:
    pid = waiter(federated)
    until(lambda: f"process {pid} still waiting for" in federated.pair.cloud.log_text())
    federated.look("cloud", "SELECT pg_cancel_backend(%s)", [pid])


ENDINGS: dict[str, tuple[Callable[[Deployment], None], tuple[str, ...]]] = {
    "cancelled": (cancelled, ()),
    "terminated": (terminated, ()),
    "statement_timeout": (timed_out, ("statement_timeout = '300ms'",)),
    "log_lock_waits": (wait_logged, ("log_lock_waits = on", "deadlock_timeout = '50ms'")),
}
each_ending = pytest.mark.parametrize("ending", ENDINGS)
each_verb = pytest.mark.parametrize("verb", get_args(Verb))


@contextmanager
def ended(federated: Deployment, ending: str, verb: Verb, work: Callable[[], None]) -> Iterator[str]:
    """What the cloud has logged from when ``work`` waited until it was ended."""
    end, settings = ENDINGS[ending]
    for setting in settings:
        federated.look("cloud", f"ALTER DATABASE {federated.cloud_dbname} SET {setting}")
    already = len(federated.pair.cloud.log_text())
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except (FederationError, psycopg.Error) as error:
            failed.append(error)

    with held(federated, verb):
        thread = threading.Thread(target=run)
        thread.start()
        end(federated)
        thread.join()
    assert failed, "it was not ended while it waited"
    yield federated.pair.cloud.log_text()[already:]


@pytest.mark.claim("S34")
@each_verb
@each_ending
def test_a_mapping_that_is_ended_while_it_waits_leaves_no_password(
    federated: Deployment, ending: str, verb: Verb
) -> None:
    config = federated.config
    user, _ = config.link_login("link")

    def work() -> None:
        role = sql.SQL("PUBLIC" if verb == "ALTER" else "anon")
        with connect(config, "cloud") as connection:
            send_mapping(connection, verb, role, "hospital", user, PLANTED)

    with ended(federated, ending, verb, work) as log:
        assert f'{verb} USER MAPPING FOR {"PUBLIC" if verb == "ALTER" else "anon"} SERVER "hospital"' in log
        assert PLANTED not in log


@each_verb
@each_ending
def test_one_statement_with_the_password_would_leave_it(federated: Deployment, ending: str, verb: Verb) -> None:
    """The control: the same ends show the password of a block that waits with it."""

    def work() -> None:
        with psycopg.connect(federated.url("cloud")) as connection:
            naive(connection, ALTER if verb == "ALTER" else CREATE)

    with ended(federated, ending, verb, work) as log:
        assert PLANTED in log


def test_the_mapping_holds_the_password_afterwards(federated: Deployment) -> None:
    for verb in get_args(Verb):
        with connect(federated.config, "cloud") as connection, connection.begin():
            send_mapping(connection, verb, sql.SQL("anon"), "hospital", "x", f"{verb}'s \\ %")
        found = federated.look("cloud", "SELECT umoptions FROM pg_user_mappings WHERE usename = 'anon'")
        assert found == [(["user=x", f"password={verb}'s \\ %"],)]


@pytest.fixture(scope="module")
def with_statistics(binaries: Binaries) -> Iterator[Deployments]:
    """A pair of servers that keep the text of statements."""
    if not list(binaries.bindir.parent.rglob("pg_stat_statements.*")):
        pytest.skip(f"PostgreSQL {binaries.version} of this machine comes without pg_stat_statements")
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with Pair(binaries, settings=settings, memory=True) as pair, Deployments(pair) as deployments:
        yield deployments


@pytest.fixture
def counted(with_statistics: Deployments) -> Iterator[Deployment]:
    with with_statistics.at_head() as deployment:
        deployment.look("cloud", "CREATE EXTENSION pg_stat_statements SCHEMA public")
        deployment.look("cloud", f"ALTER DATABASE {deployment.cloud_dbname} SET pg_stat_statements.track = 'all'")
        yield deployment


def kept(counted: Deployment, secret: str) -> int:
    found = counted.look("cloud", "SELECT query FROM public.pg_stat_statements WHERE strpos(query, %s) > 0", [secret])
    return len(found)


@pytest.mark.claim("S34")
def test_a_password_that_the_statistics_would_keep_is_not_sent(counted: Deployment) -> None:
    """Who may not switch them off gives no password away, and is told what a superuser runs."""
    with pytest.raises(PreconditionMissing, match=r"pg_stat_statements\.track") as caught:
        link.apply(counted.config)
    assert caught.value.exit_code == 9
    assert "ALTER ROLE postgres IN DATABASE" in str(caught.value.hint)
    assert kept(counted, counted.config.link_login("link")[1]) == 0


def test_what_the_hint_says_lets_it_through(counted: Deployment) -> None:
    with pytest.raises(PreconditionMissing) as caught:
        link.apply(counted.config)
    counted.look("cloud", str(caught.value.hint).partition(": ")[2])
    link.apply(counted.config)
    assert kept(counted, counted.config.link_login("link")[1]) == 0
    assert kept(counted, "federation_secret") > 0, "nothing is counted: nothing is tested"


def test_who_may_switch_the_statistics_off_does_so(counted: Deployment) -> None:
    counted.look("cloud", "GRANT SET ON PARAMETER pg_stat_statements.track TO postgres")
    try:
        link.apply(counted.config)
    finally:
        counted.look("cloud", "REVOKE SET ON PARAMETER pg_stat_statements.track FROM postgres")
    assert kept(counted, counted.config.link_login("link")[1]) == 0
    assert kept(counted, "federation_secret") > 0, "nothing is counted: nothing is tested"


def test_statistics_of_nested_statements_would_keep_it(counted: Deployment) -> None:
    """The control."""
    with psycopg.connect(counted.url("cloud")) as connection:
        naive(connection, ALTER)
        connection.rollback()
    assert kept(counted, PLANTED) == 1
