"""A dead or silent hospital: an error within the bound of docs/failures.md, never an empty list, and then it heals.

The callers are what PostgREST's pool holds: connections that stay open, one transaction a request. The servers are
this module's own, since they are killed and frozen.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from deployments import Deployment, Deployments
from frozen import frozen
from waiting import until

from federation.administration import link
from federation.config import Config
from federation.servers import Binaries, Pair, find_binaries
from federation.servers.pair import SITE_ID
from federation.servers.proxy import Proxy

FOUND = find_binaries()

CONNECT = 2
"""Seconds; libpq takes no less."""
STATEMENT = 3
"""Seconds that the hospital gives a statement of the link."""
LOCK = 0.5
CALLER = 1.0
"""Seconds that the cloud gives a caller's statement."""
CLEANUP = 30
"""Seconds that postgres_fdw gives a cancelled remote query to end (CONNECTION_CLEANUP_TIMEOUT), from 17 on in all."""
SLACK = 20
"""Seconds, for a machine that is busy; with each of the other limits less than CLEANUP, which nobody is to wait for."""

ROWS = 1500
"""More than one fetch of 1000."""
READ = "SELECT name FROM hospital_patients"
SLOW = "SELECT count(*) FROM hospital_queues"
WRITE = f"INSERT INTO hospital_patients (hospital_id, name) VALUES ('{SITE_ID}', 'Eve')"
WROTE = "SELECT count(*) FROM hospital_patients WHERE name = 'Eve'"

Step = str | Callable[[], object]


@dataclass(frozen=True)
class Failure:
    """How a request ended: SQLSTATE and seconds."""

    sqlstate: str | None
    seconds: float


class Caller:
    """A connection of PostgREST's pool."""

    def __init__(self, deployment: Deployment) -> None:
        self.connection = psycopg.connect(deployment.pair.authenticator_url(deployment.cloud_dbname))
        self.pid = self.connection.info.backend_pid

    def limit(self, statement_timeout: float) -> None:
        """From now on."""
        with self.connection.transaction():
            self.connection.execute("SELECT set_config('statement_timeout', %s, false)", [f"{statement_timeout}s"])

    def request(self, *steps: Step) -> list[Any]:
        """The rows of the last statement, committed; what is no statement is called between the others."""
        rows: list[Any] = []
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE authenticated")
            claims = json.dumps({"sub": SITE_ID, "role": "authenticated"})
            cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
            for step in steps:
                if isinstance(step, str):
                    cursor.execute(step)  # type: ignore[arg-type]
                    rows = cursor.fetchall() if cursor.description else []
                else:
                    step()
        return rows

    def failure(self, *steps: Step) -> Failure:
        """How the request failed; the seconds are those since the last step that is no statement."""
        began = time.monotonic()

        def timed(step: Callable[[], object]) -> Callable[[], None]:
            def call() -> None:
                nonlocal began
                step()
                began = time.monotonic()

            return call

        try:
            got = self.request(*(step if isinstance(step, str) else timed(step) for step in steps))
        except psycopg.Error as error:
            failure = Failure(error.sqlstate, time.monotonic() - began)
        else:
            pytest.fail(f"no error, but {len(got)} rows")
        assert self.connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        return failure

    def reads(self) -> bool:
        """Whether the next request has every row, on the same connection."""
        return len(self.request(READ)) >= ROWS


@dataclass
class Hospital:
    """A deployment of this module's, and what is done to its hospital."""

    deployment: Deployment
    major: int
    running: ExitStack
    pool: ThreadPoolExecutor

    def caller(self, statement_timeout: float = STATEMENT + SLACK, *, warm: bool = True) -> Caller:
        """One whose link session is open, unless it is not ``warm``."""
        caller = Caller(self.deployment)
        self.running.callback(caller.connection.close)
        assert not warm or caller.reads()
        caller.limit(statement_timeout)
        return caller

    def during(self, caller: Caller, act: Callable[[], object]) -> Future[Failure]:
        """The caller's failure where ``act`` happens while the hospital works on the statement."""
        with self.deployment.superuser("local") as superuser:  # there before the caller's time begins to run
            failure = self.pool.submit(caller.failure, SLOW)
            until(lambda: failure.done() or self.asleep(superuser))
        act()
        return failure

    def asleep(self, superuser: psycopg.Connection[Any]) -> bool:
        query = "SELECT FROM pg_stat_activity WHERE datname = %s AND wait_event = 'PgSleep'"
        return bool(superuser.execute(query, [self.deployment.local_dbname]).rowcount)

    def terminate(self) -> None:
        """End the link's sessions, and return when they are gone."""
        self._local(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE datname = %s AND usename LIKE 'federation%%'"
        )

    def stop(self) -> None:
        self.deployment.pair.local.stop("fast")

    def crash(self) -> None:
        self.deployment.pair.local.stop("immediate")

    def start(self) -> None:
        self.deployment.pair.local.start()

    def frozen(self) -> AbstractContextManager[Callable[[], None]]:
        """What freezes the hospital's processes, which are thawed at the end."""
        return frozen(self.deployment.pair.local)

    def waits(self, caller: Caller, seconds: float = 0, query: str = "%") -> bool:
        """Whether the cloud still works on such a query of the caller's, and has for so long."""
        with self.deployment.superuser("cloud") as superuser:
            return bool(
                superuser.execute(
                    "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE %s "
                    "AND clock_timestamp() - query_start > make_interval(secs => %s)",
                    [caller.pid, query, seconds],
                ).fetchall()
            )

    def cancel(self, caller: Caller) -> None:
        with self.deployment.superuser("cloud") as superuser:
            superuser.execute("SELECT pg_cancel_backend(%s)", [caller.pid])

    def _local(self, query: str) -> list[Any]:
        with self.deployment.superuser("local") as superuser:
            return superuser.execute(query, [self.deployment.local_dbname]).fetchall()  # type: ignore[arg-type]


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds the backends in /proc")


@pytest.fixture(scope="module", params=FOUND, ids=lambda binaries: binaries.version)
def binaries(request: pytest.FixtureRequest) -> Binaries:
    """In place of the session's, whose tests run one version after the other: here they wait for each other."""
    found: Binaries = request.param
    return found


def with_link(config: Config, **settings: object) -> Config:
    limits = {
        "connect_timeout": CONNECT,
        "statement_timeout": f"{STATEMENT}s",
        "lock_timeout": f"{round(LOCK * 1000)}ms",
    }
    changed = {**config.link.model_dump(), **limits, **settings}
    return Config.model_validate({**config.model_dump(by_alias=True), "link": changed})


@contextmanager
def a_hospital(deployments: Deployments, **settings: object) -> Iterator[Hospital]:
    with deployments.at_head() as deployment, ExitStack() as running, ThreadPoolExecutor() as pool:
        with deployment.owner("local") as owner:
            owner.execute(
                "INSERT INTO hospital_patients (hospital_id, name) "
                "SELECT %s, 'Asha ' || n FROM generate_series(1, %s) n",
                [SITE_ID, ROWS],
            )
            owner.execute(
                "INSERT INTO hospital_queues (hospital_id, patient_id, queue_number) "
                "SELECT hospital_id, id, 1 FROM hospital_patients LIMIT 1"
            )
            owner.execute("CREATE POLICY slow ON hospital_queues AS RESTRICTIVE USING (pg_sleep(60) IS NOT NULL)")
        link.apply(with_link(deployment.config, **settings))
        with deployment.superuser("local") as superuser:
            superuser.execute("CHECKPOINT")  # synchronous_commit is off: a crash would lose what has just been loaded
        yield Hospital(deployment, deployments.pair.local.binaries.major, running, pool)


@dataclass
class Silence:
    """Callers of a hospital that has fallen silent, by the moment in which it did; and it still is."""

    deployments: Deployments
    hospital: Hospital
    proxy: Proxy
    callers: dict[str, Caller]
    failures: dict[str, Future[Failure]]


@contextmanager
def a_silence(deployments: Deployments) -> Iterator[Silence]:
    with (
        Proxy(deployments.pair.local.port) as proxy,
        a_hospital(deployments, port=proxy.port) as hospital,
        ExitStack() as stack,
    ):
        stack.callback(proxy.speak)
        warm = {moment: hospital.caller(CALLER) for moment in ("before", "between", "commit")}
        callers = warm | {"cold": hospital.caller(CALLER, warm=False), "during": hospital.caller(CALLER + 1)}

        def wait_for_silence(come: threading.Event) -> None:
            come.set()
            until(lambda: proxy.silent)

        between, commit = threading.Event(), threading.Event()
        submit, failures = hospital.pool.submit, {}
        failures["between"] = submit(callers["between"].failure, READ, lambda: wait_for_silence(between), READ)
        failures["commit"] = submit(callers["commit"].failure, WRITE, lambda: wait_for_silence(commit))
        assert between.wait(60)
        assert commit.wait(60)
        failures["during"] = hospital.during(callers["during"], proxy.silence)
        for moment in ("cold", "before"):
            failures[moment] = submit(callers[moment].failure, READ)
        yield Silence(deployments, hospital, proxy, callers, failures)


@pytest.fixture(scope="module")
def silences() -> Iterator[dict[str, Silence]]:
    """One for each version, begun before the other tests: the cloud takes its half minute, and meanwhile they run."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        pairs = list(pool.map(stack.enter_context, map(Pair, FOUND)))
        yield {pair.local.binaries.version: stack.enter_context(a_silence(Deployments(pair))) for pair in pairs}


@pytest.fixture(scope="module")
def silence(silences: dict[str, Silence], binaries: Binaries) -> Silence:
    return silences[binaries.version]


@pytest.fixture(scope="module")
def hospital(silence: Silence) -> Iterator[Hospital]:
    with a_hospital(silence.deployments) as hospital:
        yield hospital


MOMENTS = ("cold", "before", "during", "between", "commit")


def fail_in(hospital: Hospital, moment: str, act: Callable[[], object]) -> tuple[Caller, Failure]:
    """A caller, and its failure where ``act`` happens in this moment of its request."""
    caller = hospital.caller(warm=moment != "cold")
    if moment == "during":
        return caller, hospital.during(caller, act).result()
    if moment == "between":
        return caller, caller.failure(READ, act, READ)
    if moment == "commit":
        return caller, caller.failure(WRITE, act)
    act()
    return caller, caller.failure(READ)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["stop", "crash"])
def test_a_hospital_that_ends_is_an_error_at_once(hospital: Hospital, how: str, moment: str) -> None:
    try:
        caller, failure = fail_in(hospital, moment, getattr(hospital, how))
    finally:
        hospital.start()
    assert failure.sqlstate == ("08001" if moment in {"cold", "before"} else "08006")
    assert failure.seconds < SLACK
    assert caller.reads()
    assert caller.request(WROTE) == [(0,)]


@pytest.mark.parametrize("moment", ["during", "between", "commit"])
def test_a_link_session_that_ends_within_a_transaction_is_an_error_at_once(hospital: Hospital, moment: str) -> None:
    caller, failure = fail_in(hospital, moment, hospital.terminate)
    assert failure.sqlstate == "08006"
    assert failure.seconds < SLACK
    assert caller.reads()
    assert caller.request(WROTE) == [(0,)]


def test_a_link_session_that_ends_between_two_requests_is_not_noticed(hospital: Hospital) -> None:
    caller = hospital.caller()
    hospital.terminate()
    assert caller.reads()


def test_a_server_that_was_restarted_between_two_requests_is_not_noticed(hospital: Hospital) -> None:
    caller = hospital.caller()
    hospital.crash()
    hospital.start()
    assert caller.reads()


def test_rows_that_came_before_the_failure_are_no_result(hospital: Hospital) -> None:
    """A client's cursor has taken a first part; the rest is an error, and not the end of the rows."""
    caller, taken = hospital.caller(), "FETCH 1000 FROM rows"
    failure = caller.failure(f"DECLARE rows CURSOR FOR {READ}", taken, hospital.terminate, taken)
    assert failure.sqlstate == "08006"
    assert caller.reads()


def test_a_port_where_nobody_listens_is_an_error_at_once(hospital: Hospital) -> None:
    with socket.socket() as unused:  # bound and not listening: refused
        unused.bind(("127.0.0.1", 0))
        with leads_to(hospital, unused.getsockname()[1]):
            caller = hospital.caller(warm=False)
            failure = caller.failure(READ)
    assert failure.sqlstate == "08001"
    assert failure.seconds < SLACK
    assert caller.reads()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog may refuse")
def test_an_address_that_answers_no_packet_is_an_error_in_time(hospital: Hospital) -> None:
    """Up to 15 after connect_timeout; from 16 on postgres_fdw does without, and the caller's own limit counts."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # what comes after the backlog is dropped, as by a firewall
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with leads_to(hospital, full.getsockname()[1]):
            caller = hospital.caller(CALLER, warm=False)
            failure = caller.failure(READ)
    assert failure.sqlstate == ("08001" if hospital.major < 16 else "57014")
    assert failure.seconds < CONNECT + SLACK
    assert caller.reads()


@contextmanager
def leads_to(hospital: Hospital, port: int) -> Iterator[None]:
    """The link leads to another port; `link apply` would prove it first, and refuse."""

    def alter(value: int) -> None:
        with hospital.deployment.owner("cloud") as owner:
            owner.execute(f"ALTER SERVER hospital OPTIONS (SET port '{value}')")  # type: ignore[arg-type]

    alter(port)
    try:
        yield
    finally:
        alter(hospital.deployment.pair.local.port)


@pytest.mark.parametrize("statement", [READ, "UPDATE hospital_patients SET age = 1 WHERE name = 'Asha 1'"])
def test_a_lock_at_the_hospital_is_waited_for_as_long_as_the_link_says(hospital: Hospital, statement: str) -> None:
    caller = hospital.caller()
    with hospital.deployment.owner("local") as owner, owner.transaction():
        if statement == READ:
            owner.execute("LOCK hospital_patients")
        else:
            owner.execute("SELECT FROM hospital_patients WHERE name = 'Asha 1' FOR UPDATE")
        failure = caller.failure(statement)
    assert failure.sqlstate == "55P03"
    assert LOCK <= failure.seconds < LOCK + SLACK
    assert caller.reads()


def test_a_statement_ends_when_the_link_says(hospital: Hospital) -> None:
    caller = hospital.caller(statement_timeout=0)
    failure = caller.failure(SLOW)
    assert failure.sqlstate == "57014"
    assert STATEMENT <= failure.seconds < STATEMENT + SLACK
    assert caller.reads()


def test_a_callers_own_limit_ends_the_statement_at_the_hospital_too(hospital: Hospital) -> None:
    caller = hospital.caller(CALLER)
    failure = caller.failure(SLOW)
    assert failure.sqlstate == "57014"
    assert CALLER <= failure.seconds < CALLER + SLACK
    with hospital.deployment.superuser("local") as superuser:
        assert not hospital.asleep(superuser)
    assert caller.reads()


@needs_proc
@pytest.mark.parametrize("moment", ["cold", "before"])
def test_a_frozen_hospital_is_an_error_in_time(hospital: Hospital, moment: str) -> None:
    caller = hospital.caller(CALLER, warm=moment != "cold")
    with hospital.frozen() as freeze:
        freeze()
        failure = caller.failure(READ)
    assert failure.sqlstate == ("08001" if moment == "cold" and hospital.major < 16 else "57014")
    assert failure.seconds < max(CALLER, CONNECT) + SLACK
    assert caller.reads()


@needs_proc
@pytest.mark.parametrize("moment", ["during", "between"])
def test_what_a_thawed_hospital_still_says_is_no_result(hospital: Hospital, moment: str) -> None:
    """The cloud has given up, and its query is still to be cancelled."""
    limit = CALLER + 1  # within which the test has to see that the statement runs
    caller = hospital.caller(limit)
    with hospital.frozen() as freeze:
        if moment == "during":
            failure = hospital.during(caller, freeze)
        else:
            failure = hospital.pool.submit(caller.failure, READ, freeze, READ)
        until(lambda: hospital.waits(caller, limit + 0.2))
    assert failure.result().sqlstate == "57014"
    assert failure.result().seconds < limit + SLACK
    assert caller.reads()


@needs_proc
def test_a_commit_that_waits_for_a_frozen_hospital_ends_when_it_is_cancelled(hospital: Hospital) -> None:
    """statement_timeout does not count there. The hospital may have committed: an error says nothing about that."""
    caller = hospital.caller(CALLER)
    with hospital.frozen() as freeze:
        failure = hospital.pool.submit(caller.failure, WRITE, freeze)
        until(lambda: hospital.waits(caller, CALLER + 0.2, query="COMMIT"))
        hospital.cancel(caller)
        assert failure.result().sqlstate == "57014"
    assert caller.reads()
    until(lambda: caller.request(WROTE) == [(1,)])
    caller.request("DELETE FROM hospital_patients WHERE name = 'Eve'")


@needs_proc
@pytest.mark.pg(">= 17")
def test_from_17_on_transaction_timeout_ends_such_a_commit_and_its_connection(hospital: Hospital) -> None:
    caller, limit = hospital.caller(), f"SELECT set_config('transaction_timeout', '{CALLER}s', true)"
    began = time.monotonic()
    with hospital.frozen() as freeze, pytest.raises(psycopg.errors.TransactionTimeout):
        caller.request(limit, WRITE, freeze)
    assert time.monotonic() - began < CALLER + SLACK
    after = hospital.caller(warm=False)
    assert after.reads()
    until(lambda: after.request(WROTE) == [(1,)])
    after.request("DELETE FROM hospital_patients WHERE name = 'Eve'")


def test_a_silent_hospital_is_an_error_within_the_callers_limit_where_nothing_is_to_be_cancelled(
    silence: Silence,
) -> None:
    for moment in ("cold", "before"):
        failure = silence.failures[moment].result()
        assert failure.sqlstate == ("08001" if moment == "cold" and silence.hospital.major < 16 else "57014"), moment
        assert failure.seconds < max(CALLER, CONNECT) + SLACK, moment


@pytest.mark.pg(">= 17")
def test_a_silent_hospital_in_the_middle_of_a_transaction_is_an_error_half_a_minute_later(silence: Silence) -> None:
    for moment in ("during", "between"):
        failure = silence.failures[moment].result()
        assert failure.sqlstate == "57014", moment
        assert CLEANUP <= failure.seconds < CALLER + 1 + CLEANUP + SLACK, moment


@pytest.mark.pg("< 17")
def test_before_17_a_silent_hospital_in_the_middle_of_a_transaction_is_waited_for(silence: Silence) -> None:
    """PQcancel has no limit there, and cancelling the caller does not reach it."""
    for moment in ("during", "between"):
        caller = silence.callers[moment]
        until(lambda caller=caller: silence.hospital.waits(caller, CALLER + 2))  # type: ignore[misc]
        silence.hospital.cancel(caller)
        assert silence.hospital.waits(caller)
        assert not silence.failures[moment].done()


def test_when_the_silence_ends_every_caller_has_an_error_and_reads_again(silence: Silence) -> None:
    until(lambda: silence.hospital.waits(silence.callers["commit"], query="COMMIT"))
    silence.hospital.cancel(silence.callers["commit"])
    assert silence.failures["commit"].result().sqlstate == "57014"
    silence.proxy.speak()
    for moment, caller in silence.callers.items():
        assert silence.failures[moment].result().sqlstate in {"57014", "08001"}, moment
        assert caller.reads(), moment
