"""Attacks that write: at the victim's rows, into another hospital, past the binding's trigger."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from attack_world import ANON, ATTACKERS, NAIVE, OPEN, OTHER_HOSPITAL, OURS, A, B, Names, World, ask, begin, request

from federation.servers.pair import SITE_ID


@dataclass(frozen=True)
class Attack:
    """Statements of one transaction, committed with us and rolled back on the naive set-up.

    ``refused`` if PostgreSQL has no such thing for a foreign table or a view: then nobody's rows come out anywhere.
    """

    name: str
    steps: tuple[str, ...]
    naive: Names = OPEN
    refused: bool = False


ATTACKS = [
    Attack("UPDATE of all", ("UPDATE {patients} SET token_number = '13' WHERE age = 77 RETURNING id, name",)),
    Attack("UPDATE sent as one", ("UPDATE {patients} SET token_number = '13' RETURNING *",)),
    Attack("UPDATE by a leaky filter", ("UPDATE {patients} SET name = 'x' WHERE (id || '')::integer = 1",), NAIVE),
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
        refused=True,
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
    Attack(
        "MERGE",
        (
            "MERGE INTO {patients} p USING (SELECT 77 AS age) s ON p.age = s.age "
            "WHEN MATCHED THEN UPDATE SET name = 'x'",
        ),
        refused=True,
    ),
    Attack("TRUNCATE", ("TRUNCATE {patients}", "TRUNCATE {foreign_patients}"), refused=True),
    Attack("COPY into the table", ("COPY {patients} (id, hospital_id, name) FROM STDIN",), refused=True),
    Attack(
        "ON CONFLICT DO UPDATE",
        (
            "INSERT INTO {patients} (hospital_id, name) VALUES (gen_random_uuid(), 'x') "
            "ON CONFLICT (id) DO UPDATE SET name = 'x' RETURNING id",
        ),
        refused=True,
    ),
]


@pytest.mark.parametrize("savepoints", [False, True], ids=["plain", "savepoints"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_victims_rows_are_neither_written_nor_returned(world: World, attack: Attack, savepoints: bool) -> None:
    before = world.victims_rows()
    with world.pooled() as connection:
        request(connection, B, ["SELECT count(*) FROM public.hospital_patients"])
        for caller in ATTACKERS:
            commit = caller.rows == 0  # an account may write its own rows, and the other tests need them
            steps = [OURS.fill(step) for step in attack.steps]
            output = request(connection, caller, steps, read_only=False, savepoints=savepoints, commit=commit)
            assert not world.leaks(output), f"{caller.name}: {output}"
    assert world.victims_rows() == before


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if not attack.refused], ids=lambda attack: attack.name)
def test_the_same_write_succeeds_on_the_naive_set_up(world: World, attack: Attack) -> None:
    with world.pooled() as connection:
        steps = [attack.naive.fill(step) for step in attack.steps]
        output = request(connection, A, steps, read_only=False)
    assert B.mark in output, output


MOVES = [
    "INSERT INTO {patients} (id, hospital_id, name, linked_user_id) "
    f"VALUES (gen_random_uuid(), '{OTHER_HOSPITAL}', 'Eve', '{A.sub}')",
    "INSERT INTO {patients} (id, hospital_id, name, linked_user_id) "
    f"VALUES (gen_random_uuid(), '{SITE_ID}', 'Eve', '{B.sub}')",
    f"INSERT INTO {{patients}} (id, hospital_id, name) VALUES (gen_random_uuid(), '{SITE_ID}', 'Eve')",
    f"UPDATE {{patients}} SET hospital_id = '{OTHER_HOSPITAL}'",
    f"UPDATE {{patients}} SET linked_user_id = '{B.sub}'",
    "UPDATE {patients} SET linked_user_id = NULL",
    "UPDATE {patients} SET hospital_id = gen_random_uuid(), linked_user_id = gen_random_uuid()",
]


@pytest.mark.parametrize("move", MOVES)
def test_no_row_is_put_or_moved_where_its_account_may_not_write(world: World, move: str) -> None:
    for caller in (*ATTACKERS, B):
        if B.sub in move and caller is B:
            continue
        with world.pooled() as connection:
            output = request(connection, caller, [OURS.fill(move)], read_only=False)
        # Who has no rows moves none; everybody else is refused.
        assert re.search(r"\| (42501|44000) \|", output) or ("UPDATE 0" in output and caller.rows == 0), (
            f"{caller.name}: {output}"
        )
    with world.pooled() as connection:  # the negative control: the naive set-up takes it
        assert "ERROR" not in request(connection, A, [OPEN.fill(move)], read_only=False)


def test_a_grant_too_many_on_the_private_schema_opens_no_row(world: World) -> None:
    """The foreign tables are out of reach, and if they were not, the hospital would still ask who it is."""
    table = "federation_link.hospital_patients"
    with world.deployment.owner("cloud") as owner:
        owner.execute("GRANT USAGE ON SCHEMA federation_link, federation_private TO authenticated, anon")
        try:
            with world.pooled() as connection:
                nobody = request(connection, A, [f"SELECT id FROM {table}"])
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
    assert "no caller is bound" in nobody
    assert f"{A.rows} {A.mark}" in bound
    for output in (nobody, bound, written, sent, *parts):
        assert not world.leaks(output), output
    assert all("permission denied" in output for output in parts)


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
        naive = request(connection, A, [OPEN.fill(insert)], read_only=False)
    assert "| 23505 |" in ours
    assert not world.leaks(ours), ours
    assert f"Key (id)=({victims}) already exists" in naive
