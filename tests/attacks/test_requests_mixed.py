"""10,000 requests of random callers over pooled connections, 5,000 for each version of PostgreSQL that is tested."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from attack_world import (
    ANON,
    NAIVE,
    OURS,
    PATIENT,
    SERVICE,
    STRANGER,
    A,
    B,
    Caller,
    Names,
    World,
    ask,
    ask_at_once,
    begin,
    marks,
    own,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

CALLERS = (A, B, PATIENT, STRANGER, ANON, SERVICE)
BY_CLAIMS = {(caller.role, caller.sub or ""): caller for caller in CALLERS}

NOW = """
    SELECT 'now={number} ' || current_user || ' '
        || coalesce(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub', '')
"""
"""Said before each statement: which it is, and who the caller is by then, after switches, savepoints and errors."""

WRITER = "'[' || current_user || ' ' || coalesce(current_setting('request.jwt.claims')::jsonb ->> 'sub', '') || ']'"
WRITERS = f"replace(coalesce(token_number, ''), {WRITER}, '') || {WRITER}"
"""What a write leaves in the row: who wrote it, beside those who did before."""

LEAK = """
    CREATE FUNCTION pg_temp.leak(row_text text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
    $$ BEGIN RAISE NOTICE 'seen: %', row_text; RETURN true; END $$
"""
PREPARED = (
    "PREPARE by_name(text) AS SELECT id, name FROM {patients} WHERE name > $1 LIMIT 3",
    "PREPARE joined AS SELECT p.id, q.id FROM {patients} p JOIN {queues} q ON q.patient_id = p.id LIMIT 3",
    "PREPARE writing AS UPDATE {patients} SET token_number = {writers} WHERE name LIKE '% 7' RETURNING id",
)

STATEMENTS = (
    # what an app asks
    "SELECT id, name FROM {patients} LIMIT 5",
    "SELECT 'count=' || count(*) FROM {patients} WHERE name <> 'Mixed'",
    "SELECT id FROM {patients} ORDER BY created_at DESC, id LIMIT 2",
    "SELECT p.name, q.id FROM {patients} p LEFT JOIN {queues} q ON q.patient_id = p.id ORDER BY p.id LIMIT 3",
    "SELECT min(id::text), max(id::text) FROM {queues}",
    "SELECT id, name FROM {patients} WHERE name ILIKE '%1%' LIMIT 2",
    "SELECT public.how_many() > 0, id FROM {patients} LIMIT 2",
    "SELECT * FROM public.patients_of_claims() LIMIT 2",
    "EXECUTE by_name('')",
    "EXECUTE joined",
    "EXECUTE writing",
    "INSERT INTO {patients} (id, hospital_id, name, linked_user_id) "
    "VALUES (('{mark}' || substr(gen_random_uuid()::text, 9))::uuid, '00000000-0000-0000-0000-000000000001', 'Mixed', "
    "'{sub}') RETURNING id",
    "UPDATE {patients} SET token_number = {writers} WHERE age > 20 AND name LIKE '% 1' RETURNING id",
    "UPDATE {patients} SET token_number = {writers} WHERE (id || name) LIKE '% 2'",
    "DELETE FROM {patients} WHERE name = 'Mixed' RETURNING id",
    # what it does not
    "SELECT id FROM {patients} p WHERE pg_temp.leak(p.id || p.name) LIMIT 3",
    "SELECT id FROM {patients} WHERE (id || '')::integer = 1",
    "SELECT id FROM {patients} WHERE (name || '')::integer = 1",
    "SELECT id FROM {patients} WHERE 1 / (age - 77) = 9",
    "SELECT 1 FROM {patients} WHERE name LIKE id || '\\'",
    "SELECT id FROM {patients} WHERE name LIKE '% 3' FOR UPDATE",
    "UPDATE {patients} SET linked_user_id = '00000000-0000-0000-0000-00000000000b' "
    "WHERE current_user <> 'service_role'",
    "DECLARE c CURSOR FOR SELECT id FROM {patients}",
    "FETCH 2 FROM c",
    "CLOSE c",
    "SELECT 1/0",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "DO $$ BEGIN PERFORM 1 FROM {patients}; RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$",
    "DO $$ BEGIN PERFORM federation.bind_to_write(); PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END $$",
    "SELECT set_config('federation.account', '00000000-0000-0000-0000-00000000000b', true)",
    "SELECT set_config('federation.bound', '00000000-0000-0000-0000-00000000000b@' || transaction_timestamp(), true)",
    "SELECT set_config('federation.bound', '', true), set_config('federation.wrote', '', true)",
    "SELECT set_config('federation.bound', '{sub}@' || transaction_timestamp(), true)",
    "SELECT set_config('federation.listed', 'true', true)",
    "SELECT set_config('request.jwt.claim.sub', '00000000-0000-0000-0000-00000000000b', true)",
    "SELECT set_config('request.jwt.claims', '{other}', true)",
    "SET LOCAL ROLE service_role",
    "SET LOCAL ROLE authenticated",
    "SET LOCAL row_security = off",
    "SET LOCAL plan_cache_mode = force_generic_plan",
    "SET LOCAL statement_timeout = '2ms'",
    "SELECT extensions.postgres_fdw_disconnect_all()",
    "SELECT federation.bind_claims() IS NULL",
    "SELECT * FROM federation_private.bind",
)


@dataclass(frozen=True)
class Request:
    """One transaction. ``other`` is whose claims a statement may switch to; ``message``: all sent as one."""

    connection: int
    caller: Caller
    other: Caller
    statements: tuple[str, ...]
    read_only: bool
    commit: bool
    message: bool


REQUESTS = st.lists(
    st.builds(
        Request,
        st.integers(0, 1),
        st.sampled_from(CALLERS),
        st.sampled_from(CALLERS),
        st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=4).map(tuple),
        st.booleans(),
        st.booleans(),
        st.sampled_from((True, True, True, False)),
    ),
    min_size=50,
    max_size=50,
)


def filled(statement: str, one: Request, names: Names) -> str:
    for name, value in (
        ("mark", one.caller.mark),
        ("sub", one.caller.sub or ""),
        ("other", one.other.claims),
        ("writers", WRITERS),
    ):
        statement = statement.replace(f"{{{name}}}", value)
    return names.fill(statement)


def send(connection: psycopg.Connection[Any], one: Request, names: Names) -> str:
    """All that came out of one request; the connection is outside a transaction afterwards."""
    statements = [
        text
        for number, statement in enumerate(one.statements)
        for text in (NOW.replace("{number}", str(number)), filled(statement, one, names))
    ]
    end = "COMMIT" if one.commit else "ROLLBACK"
    if one.message:
        seen = ask_at_once(
            connection,
            f"BEGIN {'READ ONLY' if one.read_only else ''}; SET LOCAL ROLE {one.caller.role}; "
            f"SELECT set_config('request.jwt.claims', '{one.caller.claims}', true); {'; '.join(statements)}; {end}",
        )
    else:
        begin(connection, one.caller, read_only=one.read_only)
        seen = "\n".join([*(ask(connection, statement) for statement in statements), ask(connection, end)])
    while connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        ask(connection, "ROLLBACK")  # again, if a statement_timeout of 2 ms ends this one too
    return seen


def wrongs(world: World, one: Request, output: str) -> list[str]:
    """What came out while somebody was the caller and is not theirs: rows, counts, and whatever tells of the victim."""
    found = []
    cursors: set[str] = set()  # whose rows a cursor may hold: its opener's, or theirs who read it first
    unread = False
    for part in output.split("now=")[1:]:
        who, _, said = part.partition("\n")
        number, role, sub = who.split(" ")
        statement = one.statements[int(number)]
        caller = SERVICE if role == "service_role" else BY_CLAIMS.get((role, sub), STRANGER)
        allowed = own(caller)
        if said.startswith("DECLARE CURSOR"):
            cursors, unread = own(caller), True
        elif said.startswith("FETCH"):
            if unread:
                cursors, unread = cursors | own(caller), False
            allowed = cursors
        victims = world.leaks(said.replace(filled(statement, one, OURS), ""))
        if not marks(said) <= allowed or (victims and "B" not in allowed):
            found.append(said)
        expected = {sum(other.rows for other in CALLERS if other.name in own(caller))}
        if "'federation." in str(one.statements):  # who forges the binding's marks can lose sight of their own rows
            expected.add(0)
        found += [said for n in re.findall(r"count=(\d+)", said) if int(n) not in expected]
    return [f"{one}\n{said}" for said in found]


@contextmanager
def pool(world: World, names: Names) -> Iterator[list[psycopg.Connection[Any]]]:
    """Two connections, and on each what an earlier caller prepared."""
    with world.pooled() as first, world.pooled() as second:
        for connection, caller in ((first, A), (second, B)):
            begin(connection, caller, read_only=False)
            for statement in (LEAK, *PREPARED):
                connection.execute(names.fill(statement.replace("{writers}", WRITERS)))  # type: ignore[arg-type]
            connection.execute("COMMIT")
        yield [first, second]


WRITES = re.compile("UPDATE|INSERT|DELETE|writing")
SETTINGS = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # what the pool went through before belongs to a failure; less of it is another story
)


@pytest.mark.claim("S19")
def test_each_caller_of_a_pool_sees_their_own_rows_whatever_the_others_do(world: World) -> None:
    sent = []

    with pool(world, OURS) as connections:

        @settings(SETTINGS, max_examples=100)
        @given(REQUESTS)
        def send_all(requests: list[Request]) -> None:
            for one in requests:
                found = wrongs(world, one, send(connections[one.connection], one, OURS))
                assert not found, found[0]
            sent.append(len(requests))

        send_all()
    assert sum(sent) >= 5_000
    with world.deployment.superuser("local") as superuser:
        written = superuser.execute(
            "SELECT DISTINCT left(id::text, 8), w[1] FROM hospital_patients, "
            "regexp_matches(token_number, '\\[(.*?)\\]', 'g') AS w"
        ).fetchall()
        superuser.execute("DELETE FROM hospital_patients WHERE name = 'Mixed'")
        superuser.execute("UPDATE hospital_patients SET token_number = NULL")
    owners = {(caller.mark, f"{caller.role} {caller.sub}") for caller in (A, B, PATIENT)}
    assert owners & set(written), "nobody wrote anything"
    assert [row for row in written if row not in owners and not row[1].startswith("service_role ")] == []


def test_the_same_requests_on_the_naive_set_up_show_others_rows(world: World) -> None:
    found: list[str] = []

    with pool(world, NAIVE) as connections:

        @settings(SETTINGS, max_examples=100)
        @given(REQUESTS)
        def send_all(requests: list[Request]) -> None:
            for one in requests:
                if any(B.mark in wrong for wrong in found):
                    return
                statements = tuple(text for text in one.statements if not WRITES.search(text))
                reading = replace(one, statements=statements)
                found.extend(wrongs(world, reading, send(connections[one.connection], reading, NAIVE)))

        send_all()
    assert any(B.mark in wrong for wrong in found)


SEEN_THROUGH = {
    "rows": ("SELECT id FROM {patients} WHERE name LIKE '% 3' FOR UPDATE",),
    "a count": ("SELECT 'count=' || count(*) FROM {patients} WHERE name <> 'Mixed'",),
    "a cursor": ("DECLARE c CURSOR FOR SELECT id FROM {patients} ORDER BY id DESC", "FETCH 2 FROM c"),
    "an error with an id": ("SELECT id FROM {patients} WHERE age = 77 AND (id || '')::integer = 1",),
    "an error with a name": ("SELECT id FROM {patients} WHERE age = 77 AND (name || '')::integer = 1",),
    "a notice": ("SELECT id FROM {patients} p WHERE age = 77 AND pg_temp.leak(p.id || p.name) LIMIT 3",),
    "an error after rows": ("SELECT id FROM {patients} WHERE name LIKE '% 3' FOR UPDATE", "SELECT 1/0"),
}


@pytest.mark.claim("S19")
@pytest.mark.parametrize("message", [True, False], ids=["one message", "statements"])
@pytest.mark.parametrize("statements", SEEN_THROUGH.values(), ids=SEEN_THROUGH)
def test_a_hospital_that_shows_all_to_everybody_would_be_found_out(
    world: World, statements: tuple[str, ...], message: bool
) -> None:
    """The judge's own negative control: each kind of answer that requests bring, from a hospital without policies."""
    one = Request(0, A, A, statements, read_only=False, commit=False, message=message)
    with pool(world, OURS) as connections:
        assert wrongs(world, one, send(connections[0], one, OURS)) == []
        with world.remotely(
            "CREATE POLICY everything ON hospital_patients USING (true)", "DROP POLICY everything ON hospital_patients"
        ):
            assert wrongs(world, one, send(connections[0], one, OURS)) != []


def test_a_cursor_that_nobody_opened_or_its_opener_left_is_still_judged(world: World) -> None:
    victims = f"FETCH 2\n{B.mark}-0000-4000-8000-000000000000\n"
    opened = "DECLARE CURSOR\n"
    one = Request(0, A, B, ("DECLARE c CURSOR FOR SELECT 1", "FETCH 2 FROM c"), True, False, False)
    by_a, by_b = f"authenticated {A.sub}\n", f"authenticated {B.sub}\n"
    assert wrongs(world, one, f"now=1 {by_a}{victims}")
    assert wrongs(world, one, f"now=0 {by_a}{opened}now=1 {by_a}{victims}")
    assert not wrongs(world, one, f"now=0 {by_b}{opened}now=1 {by_a}{victims}"), "its opener's"
    assert not wrongs(world, one, f"now=0 {by_a}{opened}now=1 {by_b}{victims}"), "theirs who read it first"
