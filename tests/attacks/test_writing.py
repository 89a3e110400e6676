"""Attacks that write: at the victim's rows, into another hospital, past the binding's trigger."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from attack_world import (
    ANON,
    ATTACKERS,
    NAIVE,
    OPEN,
    OPEN_VIEW,
    OTHER_HOSPITAL,
    OURS,
    PATIENT,
    SERVICE,
    STRANGER,
    VICTIMS,
    A,
    B,
    Caller,
    Names,
    World,
    ask,
    begin,
    request,
)

from federation.servers.pair import SITE_ID


@dataclass(frozen=True)
class Attack:
    """Statements of one transaction, committed with us and rolled back on the naive set-up.

    ``silent`` if nothing comes back where it succeeds: the naive set-up's victim then has other rows than before.
    """

    name: str
    steps: tuple[str, ...]
    naive: Names = OPEN
    silent: bool = False


ATTACKS = [
    Attack("UPDATE of all", ("UPDATE {patients} SET token_number = '13' WHERE age = 77 RETURNING id, name",)),
    Attack("UPDATE sent as one", ("UPDATE {patients} SET token_number = '13' RETURNING *",)),
    Attack(  # the first row that fails is told, wherever it lies
        "UPDATE by a leaky filter",
        (
            "UPDATE {patients} SET name = 'x' "
            f"WHERE CASE WHEN starts_with(id || '', '{B.mark}') THEN (id || '')::integer = 1 ELSE false END",
        ),
        NAIVE,
    ),
    Attack(
        "UPDATE joined with others",
        (
            "UPDATE {patients} p SET name = o.name FROM {patients} o "
            "WHERE o.id <> p.id AND p.name LIKE '% 1' RETURNING p.id, o.id, o.name",
        ),
    ),
    Attack("DELETE", ("DELETE FROM {queues} WHERE patient_id IS NOT NULL RETURNING id",)),
    Attack(
        "DELETE joined",
        ("DELETE FROM {queues} q USING {patients} p WHERE q.patient_id = p.id AND p.age = 77 RETURNING q.id",),
    ),
    Attack(
        "a write in WITH",
        ("WITH w AS (UPDATE {patients} SET age = age + 1 RETURNING id, name) SELECT id, name FROM w",),
    ),
    Attack(
        "taking a row over",
        (
            "SELECT set_config('attack.sub', current_setting('request.jwt.claims')::jsonb ->> 'sub', true)",
            "UPDATE {patients} SET linked_user_id = current_setting('attack.sub')::uuid WHERE age = 77 RETURNING id",
        ),
    ),
    Attack(
        "copying others' rows",
        (
            "INSERT INTO {queues} (id, hospital_id, patient_id, queue_number) "
            f"SELECT gen_random_uuid(), '{SITE_ID}', id, 7 FROM {{patients}} WHERE age = 77 RETURNING patient_id",
        ),
    ),
    Attack("locking and reading", ("SELECT id FROM {patients} WHERE age = 77 FOR UPDATE",)),
    Attack(
        "LOCK TABLE, then reading",
        ("LOCK TABLE {patients} IN ACCESS SHARE MODE", "SELECT id FROM {patients}"),
        OPEN_VIEW,
    ),
    Attack(
        "through a cursor",
        (
            "DECLARE c CURSOR FOR SELECT id FROM {patients} FOR UPDATE",
            "FETCH ALL c",
            "UPDATE {patients} SET name = 'x' WHERE CURRENT OF c",
        ),
    ),
    Attack(
        "through a temporary view",
        (
            "CREATE TEMP VIEW mine AS SELECT * FROM {patients}",
            "UPDATE pg_temp.mine SET name = 'x' RETURNING id",
            "DROP VIEW pg_temp.mine",
        ),
    ),
    Attack("the foreign table itself", ("UPDATE {foreign_patients} SET name = 'x' RETURNING id",)),
    Attack("through a view of the owner's", ("UPDATE {owners_view} SET token_number = '13' RETURNING id, name",)),
    Attack(
        "MERGE, which has no foreign table for its target, into a temporary table",
        (
            "CREATE TEMP TABLE merged (id uuid, name text) ON COMMIT DROP",
            "MERGE INTO merged m USING {patients} p ON m.id = p.id WHEN NOT MATCHED THEN INSERT VALUES (p.id, p.name)",
            "SELECT * FROM merged",
        ),
    ),
    Attack(
        "ON CONFLICT DO NOTHING",
        (
            "INSERT INTO {patients} (id, hospital_id, name, linked_user_id) "
            "SELECT gen_random_uuid(), hospital_id, id || name, linked_user_id FROM {patients} WHERE age = 77 "
            "ON CONFLICT DO NOTHING RETURNING name",
        ),
    ),
    Attack("TRUNCATE", ("TRUNCATE {patients} CASCADE", "TRUNCATE {foreign_patients} CASCADE"), silent=True),
    Attack(
        "COPY into the table",
        tuple(
            f"COPY {{{table}}} (id, hospital_id, name, linked_user_id) FROM STDIN"
            for table in ("patients", "foreign_patients")
        ),
        silent=True,
    ),
]


@pytest.mark.claim("S6")
@pytest.mark.parametrize("savepoints", [False, True], ids=["plain", "savepoints"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_victims_rows_are_neither_written_nor_returned(world: World, attack: Attack, savepoints: bool) -> None:
    before = world.victims_rows()
    with world.undone(), world.pooled() as connection:
        request(connection, B, ["SELECT count(*) FROM public.hospital_patients"])
        for caller in ATTACKERS:
            steps = [OURS.fill(step) for step in attack.steps]
            output = request(connection, caller, steps, read_only=False, savepoints=savepoints, commit=True)
            assert not world.leaks(output), f"{caller.name}: {output}"
        assert world.victims_rows() == before


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_same_write_succeeds_on_the_naive_set_up(world: World, attack: Attack) -> None:
    with world.pooled() as connection:
        begin(connection, A, read_only=False)
        before = ask(connection, OPEN.fill(VICTIMS))
        output = "\n".join(ask(connection, attack.naive.fill(step)) for step in attack.steps)
        after = ask(connection, OPEN.fill(VICTIMS))
        connection.execute("ROLLBACK")
    if attack.silent:
        assert "ERROR" not in output + after
        assert after != before
    else:
        assert B.mark in output, output


MOVES = {
    "INSERT INTO {patients} (id, hospital_id, name, linked_user_id) "
    f"VALUES (gen_random_uuid(), '{OTHER_HOSPITAL}', 'Eve', '{A.sub}')": {A},
    "INSERT INTO {patients} (id, hospital_id, name, linked_user_id) "
    f"VALUES (gen_random_uuid(), '{SITE_ID}', 'Eve', '{B.sub}')": set(),
    f"INSERT INTO {{patients}} (id, hospital_id, name) VALUES (gen_random_uuid(), '{SITE_ID}', 'Eve')": set(),
    f"UPDATE {{patients}} SET hospital_id = '{OTHER_HOSPITAL}'": {A, B, PATIENT},
    f"UPDATE {{patients}} SET linked_user_id = '{B.sub}'": set(),
    "UPDATE {patients} SET linked_user_id = NULL": set(),
    "UPDATE {patients} SET hospital_id = gen_random_uuid(), linked_user_id = gen_random_uuid()": set(),
}
"""Rows for another hospital or account, and whose policy lets the row through: they are refused by the view's check."""


@pytest.mark.claim("S7")
@pytest.mark.parametrize("move", MOVES)
def test_no_row_is_put_or_moved_where_its_account_may_not_write(world: World, move: str) -> None:
    for caller in (*ATTACKERS, B):
        if B.sub in move and caller is B:
            continue
        with world.pooled() as connection:
            output = request(connection, caller, [OURS.fill(move)], read_only=False)
        if caller is STRANGER and move.startswith("UPDATE"):
            assert output.startswith("UPDATE 0\n"), "who has no rows moves none"
        else:
            assert f"ERROR | {'44000' if caller in MOVES[move] else '42501'} |" in output, f"{caller.name}: {output}"
    with world.pooled() as connection:  # the negative control: the naive set-up takes it
        assert "ERROR" not in request(connection, A, [OPEN.fill(move)], read_only=False)


TO_ANOTHER_HOSPITAL = {
    "INSERT": "INSERT INTO {patients} (hospital_id, name, linked_user_id) "
    f"VALUES ('{OTHER_HOSPITAL}', 'Asha herself', '{A.sub}') RETURNING *",
    "UPDATE": f"UPDATE {{patients}} SET hospital_id = '{OTHER_HOSPITAL}' WHERE age = 30 RETURNING *",
}
SITE_CHECK = (
    f"ALTER TABLE hospital_patients ADD CONSTRAINT site CHECK (hospital_id = '{SITE_ID}') NOT VALID",
    "ALTER TABLE hospital_patients DROP CONSTRAINT site",
)
POLICY_OF_THE_SITE = (
    "CREATE POLICY site ON hospital_patients AS RESTRICTIVE TO PUBLIC USING (true) "
    f"WITH CHECK (hospital_id = '{SITE_ID}')",
    "DROP POLICY site ON hospital_patients",
)


@pytest.mark.claim("S31")
@pytest.mark.parametrize("caller", [A, SERVICE], ids=lambda caller: caller.name)
@pytest.mark.parametrize("write", TO_ANOTHER_HOSPITAL)
def test_the_hospitals_own_refusal_of_another_hospitals_row_carries_no_row(
    world: World, write: str, caller: Caller
) -> None:
    """Its policy (42501) or its CHECK (23514), whichever there is, comes before the cloud's view has a row to quote."""
    statement = OURS.fill(TO_ANOTHER_HOSPITAL[write])
    for (made, dropped), refusal in ((SITE_CHECK, "23514"), (POLICY_OF_THE_SITE, "42501")):
        with world.remotely(made, dropped), world.pooled() as connection:
            output = request(connection, caller, [statement], read_only=False)
        assert f"ERROR | {refusal} |" in output, output
        assert "Failing row" not in output
        assert "Asha" not in output


@pytest.mark.claim("N14")
@pytest.mark.parametrize("caller", [A, SERVICE], ids=lambda caller: caller.name)
@pytest.mark.parametrize("write", TO_ANOTHER_HOSPITAL)
def test_where_the_hospital_does_not_refuse_it_the_views_check_quotes_the_callers_row(
    world: World, write: str, caller: Caller
) -> None:
    """It does to whoever sent the row, and to the cloud's log unless log_error_verbosity is terse (docs/secure.md)."""
    log = world.deployment.pair.cloud.log_text
    quoted = []
    for verbosity in ("default", "terse"):
        with world.deployment.superuser("cloud") as superuser:
            superuser.execute(f"ALTER ROLE authenticator SET log_error_verbosity = {verbosity}")  # type: ignore[arg-type]
        try:
            length = len(log())
            with world.pooled() as connection:
                output = request(connection, caller, [OURS.fill(TO_ANOTHER_HOSPITAL[write])], read_only=False)
            logged = log()[length:]
        finally:
            with world.deployment.superuser("cloud") as superuser:
                superuser.execute("ALTER ROLE authenticator RESET log_error_verbosity")
        assert "ERROR | 44000 |" in output
        assert re.search(r"Failing row contains \(.*Asha", output), output
        assert not world.leaks(output)
        assert "new row violates check option" in logged
        quoted.append("Failing row contains" in logged)
    assert quoted == [True, False]


@pytest.mark.claim("N7")
def test_a_caller_with_sql_can_lift_the_refusal_of_writes_of_both_kinds(world: World) -> None:
    """For their own transaction, by its mark: the refusal keeps an app from half a commit, and nobody from a row."""
    own = f"INSERT INTO {OURS.patients} (hospital_id, name, linked_user_id) VALUES ('{SITE_ID}', 'Asha', '{A.sub}')"
    lifting = "SELECT set_config('federation.wrote', '', true)"
    admitting = f"SELECT public.admit('{SITE_ID}')"
    found = "SELECT name FROM hospital_patients WHERE name IN ('Asha', 'Admitted') ORDER BY name"
    written = []
    with world.undone(), world.pooled() as connection, world.deployment.superuser("local") as superuser:
        for steps in ([own, admitting], [own, lifting, admitting]):
            output = request(connection, A, steps, read_only=False, commit=True)
            written.append(("ERROR | 0A000 |" in output, superuser.execute(found).fetchall()))
    assert written == [(True, []), (False, [("Admitted",), ("Asha",)])]


@pytest.mark.claim("S9")
def test_a_grant_too_many_on_the_private_schema_opens_no_row(world: World) -> None:
    """The foreign tables are out of reach, and if they were not, the hospital would still ask who it is."""
    table = "federation_link.hospital_patients"
    with world.deployment.owner("cloud") as owner:
        owner.execute("GRANT USAGE ON SCHEMA federation_link, federation_private TO authenticated, anon")
        try:
            with world.pooled() as connection:
                nobody = request(connection, A, [f"SELECT id FROM {table}"])
                naive = request(connection, A, ["SELECT id FROM naive.hospital_patients"])
                bound = request(
                    connection,
                    A,
                    ["SELECT count(*) FROM public.hospital_patients", f"SELECT count(*), min(id::text) FROM {table}"],
                )
                written = request(
                    connection,
                    A,
                    [f"UPDATE {table} SET name = 'x' RETURNING id", f"DELETE FROM {table} RETURNING id"],
                    read_only=False,
                )
                parts = [
                    request(connection, caller, [f"SELECT * FROM {part}"], read_only=False)
                    for caller in (A, ANON)
                    for part in ("federation_private.bind", "federation_private.site", "federation_private.probe")
                ]
                sent = request(
                    connection,
                    A,
                    [
                        "SELECT federation_private.send(false, true)",
                        f"SELECT id FROM {table}",
                        "SELECT id FROM public.hospital_patients",
                    ],
                    savepoints=True,
                    read_only=False,
                )
        finally:
            owner.execute("REVOKE USAGE ON SCHEMA federation_link, federation_private FROM authenticated, anon")
    assert B.mark in naive
    assert "no caller is bound" in nobody
    assert f"{A.rows} {A.mark}" in bound
    for output in (nobody, bound, written, sent, *parts):
        assert not world.leaks(output), output
    assert all("permission denied" in output for output in parts)


@pytest.mark.claim("N9")
def test_a_unique_key_tells_that_it_is_taken_and_nothing_else(world: World) -> None:
    """As it does under row-level security anywhere; who guesses a uuid right has been told it."""
    with world.deployment.superuser("local") as superuser:
        ((victims,),) = superuser.execute(
            "SELECT id FROM hospital_patients WHERE linked_user_id = %s LIMIT 1", [B.sub]
        ).fetchall()
    insert = (
        "INSERT INTO {patients} (id, hospital_id, name, linked_user_id) "
        f"VALUES ('{victims}', '{SITE_ID}', 'Eve', '{A.sub}')"
    )
    with world.pooled() as connection:
        begin(connection, A, read_only=False)
        ours = ask(connection, OURS.fill(insert))
        connection.execute("ROLLBACK")
        unharmed = request(connection, A, [OURS.fill(f"{insert} ON CONFLICT DO NOTHING RETURNING *")], read_only=False)
        naive = request(connection, A, [OPEN.fill(insert)], read_only=False)
    assert "| 23505 |" in ours
    assert not world.leaks(ours), ours
    assert unharmed.startswith("INSERT 0 0\n")
    assert not world.leaks(unharmed), unharmed
    assert f"Key (id)=({victims}) already exists" in naive
