"""Attacks by way of the session: who used the connection, the transaction or the statement before."""

from __future__ import annotations

import json
import re

import psycopg
import pytest
from attack_world import (
    ABROAD,
    ANON,
    EVERYBODYS,
    IMMUTABLE,
    NAIVE,
    OPEN,
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
    begin,
    marks,
    own,
    request,
)

MANY = (A, B, SERVICE, PATIENT, STRANGER, A, SERVICE, B, PATIENT, A) * 2


def claims(caller: Caller) -> str:
    return f"SELECT set_config('request.jwt.claims', '{caller.claims}', true)"


PREPARED = (
    "PREPARE one(text) AS SELECT id, name FROM {patients} WHERE name > $1",
    "PREPARE two AS SELECT p.id FROM {patients} p JOIN {queues} q ON q.patient_id = p.id",
    "PREPARE three AS UPDATE {patients} SET token_number = '13' RETURNING id",
    "PREPARE four AS SELECT count(*) FROM {patients}",
)


def switching(world: World, names: Names, mode: str, callers: tuple[Caller, ...]) -> list[tuple[Caller, str]]:
    """Statements that the first caller prepared, run for one caller after the other on one connection."""
    seen = []
    with world.pooled() as connection:
        connection.execute(f"SET plan_cache_mode = {mode}")  # type: ignore[arg-type]
        begin(connection, callers[0], read_only=False)
        for statement in PREPARED:
            connection.execute(names.fill(statement))  # type: ignore[arg-type]
        connection.execute("COMMIT")
        for caller in callers:
            seen.append((caller, request(connection, caller, ["EXECUTE one('')", "EXECUTE two", "EXECUTE four"])))
            seen.append((caller, request(connection, caller, ["EXECUTE three"], read_only=False)))
    return seen


@pytest.mark.claim("S13")
@pytest.mark.parametrize("mode", ["auto", "force_generic_plan", "force_custom_plan"])
def test_a_prepared_statement_serves_each_caller_of_a_pooled_connection_their_own_rows(world: World, mode: str) -> None:
    for caller, output in switching(world, OURS, mode, MANY):
        assert marks(output) == own(caller), f"{caller.name}: {output[:2000]}"
        assert "ERROR" not in output or caller is STRANGER


def test_with_an_immutable_identity_a_prepared_statement_serves_the_firsts_rows_to_the_second(world: World) -> None:
    """The negative control."""
    with world.pooled() as connection:
        request(connection, B, ["PREPARE one AS SELECT id FROM naive.by_immutable", *["EXECUTE one"] * 7], commit=True)
        connection.execute("SET plan_cache_mode = force_generic_plan")
        request(
            connection, B, [IMMUTABLE.fill("PREPARE again AS SELECT id FROM {patients}"), "EXECUTE again"], commit=True
        )
        assert marks(request(connection, A, ["EXECUTE again"])) == {"B"}


@pytest.mark.claim("S11")
@pytest.mark.parametrize("second", [A, PATIENT, STRANGER], ids=lambda caller: caller.name)
@pytest.mark.parametrize(
    "statement", ["SELECT id, name FROM {patients}", "UPDATE {patients} SET name = 'x' RETURNING id"]
)
def test_of_two_callers_in_one_transaction_the_second_gets_nothing(
    world: World, second: Caller, statement: str
) -> None:
    read_only = statement.startswith("SELECT")
    steps = [statement, claims(second), statement, *["SAVEPOINT s", statement]]
    with world.pooled() as connection:
        begin(connection, B, read_only=read_only)
        assert marks(ask(connection, OURS.fill(statement))) == {"B"}
        connection.execute("SAVEPOINT s")
        connection.execute(claims(second))  # type: ignore[arg-type]
        refused = ask(connection, OURS.fill(statement))
        connection.execute("ROLLBACK TO s")
        assert marks(ask(connection, OURS.fill(statement))) == {"B"}, "the first goes on"
        connection.execute("ROLLBACK")
        assert "another caller is bound" in refused
        assert marks(refused) == set()
        # The negative control: the naive view changes hands without a word.
        naive = request(connection, B, [NAIVE.fill(step) for step in steps], read_only=read_only)
    assert "B" in marks(naive)
    assert "another caller" not in naive


@pytest.mark.claim("S12")
def test_two_roles_in_one_transaction_see_what_each_may(world: World) -> None:
    read = OURS.fill("SELECT id FROM {patients}")
    with world.pooled() as connection:
        begin(connection, A)
        for role, seen in (("authenticated", "A"), ("service_role", "AB"), ("anon", ""), ("authenticated", "A")) * 3:
            connection.execute("SAVEPOINT s")
            connection.execute(f"SET LOCAL ROLE {role}")  # type: ignore[arg-type]
            output = ask(connection, read)
            connection.execute("ROLLBACK TO s")
            assert marks(output) - {"patient"} == set(seen), role
        connection.execute("ROLLBACK")
        # The negative control: the tutorial asks for no role.
        assert "B" in marks(request(connection, ANON, [OPEN.fill("SELECT id FROM {patients}")]))


@pytest.mark.claim("S12")
def test_a_statement_that_mixes_own_rows_with_a_security_definer_function_keeps_them_apart(world: World) -> None:
    """The function counts all, as its author means it to; the caller's own part of the statement stays the caller's."""
    statement = "SELECT id, public.how_many() FROM {patients} WHERE public.how_many() > 0 ORDER BY id"
    joined = (
        "SELECT p.id, h FROM public.how_many() h, {patients} p UNION ALL SELECT id, public.how_many() FROM {patients}"
    )
    with world.pooled() as connection:
        for caller in (A, B, PATIENT, STRANGER, A):
            for one in (statement, joined):
                output = request(connection, caller, [OURS.fill(one), OURS.fill("SELECT id FROM {patients}")])
                assert marks(output) == own(caller), output[:500]
                assert not caller.rows or "612000" in output
        assert "B" in marks(request(connection, A, [OPEN.fill(statement)]))


@pytest.mark.claim("S14")
@pytest.mark.parametrize("between", [
    ["SAVEPOINT s", "SELECT 1/0", "ROLLBACK TO s"],
    ["SAVEPOINT s", "SELECT count(*) FROM {patients}", "ROLLBACK TO s"],
    ["SAVEPOINT s", "SELECT count(*) FROM {patients}", "RELEASE s"],
    ["DO $$ BEGIN PERFORM count(*) FROM {patients}; RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$"],
    ["DO $$ BEGIN PERFORM federation.bind_claims(); RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$"],
    ["DO $$ BEGIN PERFORM federation.bind_to_write(); PERFORM 1/0; EXCEPTION WHEN OTHERS THEN NULL; END $$"],
    ["SAVEPOINT s", "SAVEPOINT t", "SELECT count(*) FROM {patients}", "RELEASE t", "ROLLBACK TO s", "SAVEPOINT u"],
    ["SET LOCAL federation.bound = ''"],
    ["SET LOCAL federation.listed = 'true'"],
    ["SET LOCAL TimeZone = 'Asia/Kolkata'", "SET LOCAL DateStyle = 'SQL, DMY'"],
    ["SELECT extensions.postgres_fdw_disconnect('hospital')", "SELECT extensions.postgres_fdw_disconnect_all()"],
], ids=lambda steps: steps[-1][:40])  # fmt: skip
def test_savepoints_and_exceptions_between_the_bind_and_the_query_leave_it_whole(
    world: World, between: list[str]
) -> None:
    def read_after(caller: Caller, names: Names, first: list[str]) -> str:
        steps = [names.fill(step) for step in (*first, *between, "SELECT id FROM {patients}")]
        begin(connection, caller)
        output = "\n".join(ask(connection, step) for step in steps)
        connection.execute("ROLLBACK")
        return output

    with world.pooled() as connection:
        for caller in (B, A, STRANGER, PATIENT, A):
            for first in ([], ["SELECT id FROM {patients}"]):
                output = read_after(caller, OURS, first)
                assert marks(output) == own(caller), output
        assert "B" in marks(read_after(A, OPEN, [])), "the negative control"


def test_a_bind_that_is_cancelled_in_its_midst_is_undone_on_both_sides(world: World) -> None:
    read = OURS.fill("SELECT id FROM {patients}")
    with world.deployment.superuser("local") as superuser, world.pooled() as connection:
        begin(connection, A)
        superuser.execute("BEGIN; LOCK TABLE federation.account IN ACCESS EXCLUSIVE MODE")
        connection.execute("SAVEPOINT s; SET LOCAL statement_timeout = '300ms'")
        cancelled = ask(connection, read)
        superuser.execute("COMMIT")
        connection.execute("ROLLBACK TO s")
        connection.execute(claims(PATIENT))  # type: ignore[arg-type]
        patients = ask(connection, read)
        naive = ask(connection, OPEN.fill("SELECT id FROM {patients}"))
        connection.execute("ROLLBACK")
        assert "57014" in cancelled
        assert marks(patients) == {"patient"}, patients
        assert "B" in marks(naive), "the negative control"
        assert marks(request(connection, A, [read])) == {"A"}


@pytest.mark.claim("S14")
def test_a_rolled_back_binding_and_its_role_are_gone_from_the_hospitals_session_too(world: World) -> None:
    """A policy TO authenticated that lets all through: who is listed takes the role, and gives it back."""
    everything = OURS.fill("SELECT id FROM {patients}")
    with world.remotely(
        "CREATE POLICY everything ON hospital_patients TO authenticated USING (true)",
        "DROP POLICY everything ON hospital_patients",
    ), world.pooled() as connection:  # fmt: skip
        assert marks(request(connection, A, [everything])) == {"A", "B", "patient"}, "the negative control"
        forged = (
            f"SELECT set_config('federation.bound', '{STRANGER.sub}@' || transaction_timestamp(), true), "
            "set_config('federation.listed', 'true', true)"
        )
        for undone in (
            ["SAVEPOINT s", everything, "ROLLBACK TO s"],
            [f"DO $$ BEGIN PERFORM 1 FROM {OURS.patients}; RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$"],
        ):
            begin(connection, A)
            for step in undone:
                ask(connection, step)
            connection.execute(claims(STRANGER))  # type: ignore[arg-type]
            connection.execute(forged)  # type: ignore[arg-type]
            left = ask(connection, everything)
            connection.execute("ROLLBACK")
            assert "no caller is bound" in left
            assert marks(left) == set(), left
        assert marks(request(connection, STRANGER, [forged, everything])) == set()


@pytest.mark.claim("S15")
def test_a_cursor_is_its_openers_over_all_its_batches(world: World) -> None:
    """fetch_size is made 7: the rows come in more than forty batches, and the claims change between two of them."""
    with world.deployment.owner("cloud") as owner:
        owner.execute("ALTER FOREIGN TABLE federation_link.hospital_patients OPTIONS (ADD fetch_size '7')")
        owner.execute("ALTER FOREIGN TABLE naive.hospital_patients OPTIONS (ADD fetch_size '7')")
    try:
        with world.pooled() as connection:
            begin(connection, A)
            connection.execute("DECLARE c NO SCROLL CURSOR FOR SELECT id, public.how_many() FROM hospital_patients")
            seen = ""
            for n in range(A.rows):
                if n % 20 == 3:
                    connection.execute(claims((B, PATIENT, STRANGER, A)[n % 4]))  # type: ignore[arg-type]
                seen += ask(connection, "FETCH 1 FROM c")
            assert marks(seen) == {"A"}
            assert seen.count(A.mark) == A.rows
            assert "another caller is bound" in ask(connection, f"{claims(B)}; SELECT id FROM public.hospital_patients")
            connection.execute("ROLLBACK")
            # A cursor that was opened and not read yet belongs to whoever reads it first, and to nobody else after.
            begin(connection, A)
            connection.execute("DECLARE c CURSOR FOR SELECT id FROM public.hospital_patients")
            assert marks(ask(connection, "SELECT id FROM public.hospital_patients")) == {"A"}
            connection.execute(claims(B))  # type: ignore[arg-type]
            late = ask(connection, "FETCH ALL FROM c")
            assert marks(late) == set(), late
            connection.execute("ROLLBACK")
            # The negative control: the naive view asks anew at each row.
            begin(connection, A)
            connection.execute("DECLARE c CURSOR FOR SELECT id FROM naive.mine")
            connection.execute(claims(B))  # type: ignore[arg-type]
            assert marks(ask(connection, "FETCH ALL FROM c")) == {"B"}
            connection.execute("ROLLBACK")
    finally:
        with world.deployment.owner("cloud") as owner:
            for table in ("federation_link.hospital_patients", "naive.hospital_patients"):
                owner.execute(f"ALTER FOREIGN TABLE {table} OPTIONS (DROP fetch_size)")  # type: ignore[arg-type]


@pytest.mark.claim("S15")
def test_a_cursor_with_hold_holds_its_openers_rows_only(world: World) -> None:
    """What its opener left in the session is another matter: it outlives the transaction anywhere (docs/secure.md)."""
    hold = "DECLARE {0} CURSOR WITH HOLD FOR SELECT id FROM {1}"
    with world.pooled() as connection:
        request(connection, B, ["SELECT count(*) FROM public.hospital_patients"])
        request(
            connection, A, [hold.format("ours", OURS.patients), hold.format("tutorial", OPEN.patients)], commit=True
        )
        assert marks(ask(connection, "FETCH ALL FROM ours")) == {"A"}
        assert marks(ask(connection, "FETCH ALL FROM tutorial")) == {"A", "B", "patient"}


@pytest.mark.claim("S15")
def test_a_cursor_with_hold_that_service_role_would_fill_at_commit_is_refused(world: World) -> None:
    """Its scan began on the session of callers under row-level security, and nobody has been bound there."""
    with world.pooled() as connection:
        seen = []
        for names in (OURS, OPEN):
            begin(connection, A, read_only=False)
            ask(connection, names.fill("DECLARE held CURSOR WITH HOLD FOR SELECT id FROM {patients}"))
            connection.execute("SET LOCAL ROLE service_role")
            seen.append(ask(connection, "COMMIT") + ask(connection, "FETCH ALL FROM held"))
    assert "no caller is bound" in seen[0]
    assert marks(seen[0]) == set()
    assert "B" in marks(seen[1])


@pytest.mark.claim("S15")
@pytest.mark.parametrize("bound", [False, True], ids=["nobody bound", "its opener bound"])
def test_a_cursor_that_a_security_definer_function_reads_is_still_its_openers(world: World, bound: bool) -> None:
    """The function's owner bypasses row-level security; the rows are those of who opened the cursor, or none."""
    steps = [
        *(["SELECT count(*) FROM {patients}"] if bound else []),
        "DECLARE opened CURSOR FOR SELECT id FROM {patients}",
        "SELECT seen FROM public.fetch_from('opened') AS seen",
    ]
    with world.pooled() as connection:
        ours, naive = (request(connection, A, [names.fill(step) for step in steps]) for names in (OURS, OPEN))
    assert marks(ours) == ({"A"} if bound else set()), ours
    assert bound or "no caller is bound" in ours
    assert "B" in marks(naive)


LATE = """
    CREATE FUNCTION pg_temp.late() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE ids text;
    BEGIN
        SELECT string_agg(id::text, ',') INTO ids FROM {patients};
        RAISE NOTICE 'seen as %: %', current_user, ids;
        RETURN NULL;
    END $$;
    CREATE TEMP TABLE later (n integer);
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON pg_temp.later DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION pg_temp.late()
"""
"""A trigger of the caller's own that reads at COMMIT."""


def read_at_commit(world: World, names: Names, last: str) -> str:
    """A reads, has a trigger read again at COMMIT, and does ``last`` before it."""
    steps = ["SELECT min(id::text) FROM {patients} WHERE age < 77", "INSERT INTO pg_temp.later VALUES (1)", last]
    with world.pooled() as connection:
        request(connection, A, [names.fill(LATE)], read_only=False, commit=True)
        return request(connection, A, [names.fill(step) for step in steps], read_only=False, commit=True)


@pytest.mark.claim("S11")
def test_a_deferred_trigger_that_fires_under_anothers_claims_reads_nothing(world: World) -> None:
    ours, naive = (read_at_commit(world, names, claims(B)) for names in (OURS, NAIVE))
    assert "another caller is bound" in ours
    assert marks(ours) == {"A"}
    assert "B" in marks(naive)


@pytest.mark.claim("N7")
def test_a_deferred_trigger_reads_as_whom_its_postgresql_runs_it(world: World) -> None:
    """Up to 17 as the role of COMMIT, be it service_role; from 18 as the role that had queued it (docs/secure.md)."""
    seen = read_at_commit(world, OURS, "SET LOCAL ROLE service_role")
    if world.deployment.pair.cloud.binaries.major >= 18:
        assert "seen as authenticated" in seen
        assert marks(seen) == {"A"}
    else:
        assert "seen as service_role" in seen
        assert "B" in marks(seen)
    assert "B" in marks(read_at_commit(world, OPEN, "SET LOCAL ROLE service_role"))


@pytest.mark.claim("S11")
def test_claims_changed_in_the_midst_of_a_statement_bind_nobody_else(world: World) -> None:
    """One scan is the caller's; the next begins when its rows have changed the claims."""
    statement = (
        f"SELECT id, set_config('request.jwt.claims', '{B.claims}', true) IS NULL, "
        "(SELECT min(q.id::text) FROM {patients} q WHERE q.id <> p.id) FROM {patients} p"
    )
    with world.pooled() as connection:
        ours, naive = (request(connection, A, [names.fill(statement)]) for names in (OURS, NAIVE))
    assert "another caller is bound" in ours
    assert marks(ours) == set()
    assert "B" in marks(naive)


@pytest.mark.claim("S16")
def test_two_transactions_of_one_message_have_one_time_and_two_callers(world: World) -> None:
    """transaction_timestamp() is the message's: the mark of the first would fit the second, if it were left behind."""

    def of(caller: Caller, table: str) -> str:
        return (
            f"BEGIN; SET LOCAL ROLE authenticated; {claims(caller)}; SELECT id, transaction_timestamp() FROM {table}; "
            "COMMIT;"
        )

    with world.pooled() as connection:
        for first, second in ((B, A), (A, B), (B, STRANGER), (STRANGER, A), (PATIENT, A), (A, A)):
            output = ask(connection, of(first, OURS.patients) + of(second, OURS.patients))
            assert marks(output) == own(first) | own(second)
            assert "ERROR" not in output
            parts = output.rsplit("BEGIN", 1)
            assert marks(parts[0]) == own(first)
            assert marks(parts[1]) == own(second)
            assert len(set(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", output))) == 1
        assert "B" in marks(ask(connection, of(A, OPEN.patients)).rsplit("BEGIN", 1)[1])


@pytest.mark.claim("S17")
def test_a_mark_left_behind_for_a_transaction_to_come_binds_nobody(world: World) -> None:
    """Settings of the session outlive their author; the hospital then says that nobody is bound."""
    with world.pooled() as connection:
        leave = (
            f"SELECT set_config('federation.bound', '{A.sub}@' || transaction_timestamp(), false), "
            f"set_config('federation.listed', 'true', false), set_config('federation.account', '{B.sub}', false);"
        )
        output = ask(
            connection,
            f"{leave} COMMIT; BEGIN; SET LOCAL ROLE authenticated; {claims(A)}; SELECT id FROM {OURS.patients}; COMMIT",
        )
        connection.execute("ROLLBACK")
        assert "no caller is bound" in output
        assert marks(output) == set()
        assert marks(request(connection, A, [OURS.fill("SELECT id FROM {patients}")])) == {"A"}, "its time has passed"
        # The negative control: what decides by a setting of the session has changed hands.
        assert marks(request(connection, A, ["SELECT id FROM naive.by_setting"])) == {"B"}


@pytest.mark.claim("S16")
def test_plans_that_run_beside_each_other_bind_first(world: World) -> None:
    """Asynchronous scans in the cloud, parallel workers at the hospital."""
    union = "SELECT id FROM {patients} UNION ALL SELECT id FROM {queues} UNION ALL SELECT id FROM {patients}"
    with world.deployment.superuser("local") as superuser:
        name = "debug_parallel_query" if superuser.info.server_version >= 160000 else "force_parallel_mode"
        for setting in (f"{name} = on", "parallel_setup_cost = 0", "min_parallel_table_scan_size = 0"):
            superuser.execute(f"ALTER ROLE federation_link SET {setting}")  # type: ignore[arg-type]
    with world.deployment.owner("cloud") as owner:
        owner.execute("ALTER SERVER hospital OPTIONS (ADD async_capable 'true')")
        owner.execute("ALTER SERVER naive OPTIONS (ADD async_capable 'true')")
    try:
        with world.pooled() as connection:
            plan = request(connection, A, ["EXPLAIN " + OURS.fill(union)])
            assert "Async Foreign Scan" in plan
            for caller in (B, A, STRANGER, PATIENT, A):
                assert marks(request(connection, caller, [OURS.fill(union)])) == own(caller)
            assert "B" in marks(request(connection, A, [OPEN.fill(union)]))
    finally:
        with world.deployment.owner("cloud") as owner:
            owner.execute("ALTER SERVER hospital OPTIONS (DROP async_capable)")
            owner.execute("ALTER SERVER naive OPTIONS (DROP async_capable)")
        with world.deployment.superuser("local") as superuser:
            for setting in (name, "parallel_setup_cost", "min_parallel_table_scan_size"):
                superuser.execute(f"ALTER ROLE federation_link RESET {setting}")  # type: ignore[arg-type]


ODD_CLAIMS = [
    "", "null", "[]", '"text"', "7", "{}", '{"sub": null}', '{"sub": ""}', '{"sub": 7}', '{"sub": ["x"]}', "{not json",
    json.dumps({"sub": {"sub": B.sub}}), json.dumps([{"sub": B.sub}]), json.dumps({"Sub": B.sub}),
    json.dumps({"sub": f"{B.sub}\\u0000"}), json.dumps({"sub": f" {B.sub} x"}), json.dumps({"sub": B.sub[:-1]}),
    json.dumps({"sub": f"{A.sub}' OR true --"}), json.dumps({"sub": "\N{ARABIC-INDIC DIGIT ONE}" * 32}),
    json.dumps({"sub": STRANGER.sub, "role": "service_role", "linked_user_id": B.sub, "x": "y" * 3_000_000}),
    '{"sub": "00000000-0000-0000-0000-000000000000"}', "[" * 20_000,
    json.dumps({"role": "federation_service"}), f'{{"sub": "{B.sub}", "sub": "{STRANGER.sub}"}}',
]  # fmt: skip


@pytest.mark.claim("S18")
@pytest.mark.parametrize("given", ODD_CLAIMS, ids=lambda given: given[:40] or "empty")
def test_odd_claims_are_nobodys(world: World, given: str) -> None:
    with world.pooled() as connection:
        request(connection, B, ["SELECT count(*) FROM public.hospital_patients"])
        begin(connection, A)
        connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [given])
        naive = ask(connection, "SELECT min(id::text) FROM naive.hospital_patients WHERE age = 77")
        output = ask(connection, "SELECT id FROM public.hospital_patients")
        connection.execute("ROLLBACK")
        assert "B" in marks(naive), "the negative control"
        assert marks(output) == set()
        assert "ERROR" in output or output == "SELECT 0"
        assert not world.leaks(output.replace(B.sub or "", ""))


@pytest.mark.claim("S18")
@pytest.mark.parametrize(
    "given", [f'{{"sub": "{STRANGER.sub}", "sub": "{A.sub}"}}', json.dumps({"sub": f"{{{A.sub}}}".upper()})]
)
def test_claims_mean_to_the_hospital_what_they_mean_in_the_cloud(world: World, given: str) -> None:
    """Whatever the cloud's auth.uid() makes of them, another account's rows it is not."""
    with world.pooled() as connection:
        begin(connection, A)
        connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [given])
        assert str(A.sub) in ask(connection, "SELECT auth.uid()")
        assert marks(ask(connection, "SELECT id FROM public.hospital_patients")) == {"A"}
        connection.execute("ROLLBACK")


PARTS = [
    "SELECT federation_private.send(true, false)",
    "SELECT * FROM federation_private.bind",
    "SELECT * FROM federation_private.site",
    "SELECT * FROM federation_private.probe",
    "SELECT * FROM federation_link.hospital_patients",
    "INSERT INTO federation_link.hospital_patients (name) VALUES ('Eve')",
    "CREATE FUNCTION federation.of_ones_own() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "CREATE OR REPLACE FUNCTION federation.bind_claims() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "ALTER FUNCTION federation.bind_claims() SECURITY DEFINER",
    "DROP VIEW public.hospital_patients CASCADE",
    "CREATE RULE r AS ON INSERT TO public.hospital_patients DO ALSO NOTHING",
    "ALTER VIEW public.hospital_patients SET (security_invoker = false)",
    "GRANT SELECT ON public.hospital_patients TO anon",
    "CREATE USER MAPPING FOR CURRENT_USER SERVER hospital OPTIONS (user 'x', password 'x')",
    "ALTER USER MAPPING FOR PUBLIC SERVER hospital OPTIONS (SET user 'federation_service')",
    "DROP USER MAPPING FOR PUBLIC SERVER hospital",
    "ALTER SERVER hospital OPTIONS (SET host '192.0.2.1')",
    "IMPORT FOREIGN SCHEMA public FROM SERVER hospital INTO pg_temp",
    "CREATE FOREIGN TABLE pg_temp.t (id uuid) SERVER hospital",
    "CREATE VIEW pg_temp.sent AS SELECT federation_private.send(true, false)",
    "CREATE OPERATOR pg_temp.!!! (FUNCTION = federation_private.send, LEFTARG = boolean, RIGHTARG = boolean)",
    "SET SESSION AUTHORIZATION postgres",
    "SET ROLE federation_sender",
    "SET ROLE postgres",
    "SET session_replication_role = replica",
    "SELECT * FROM pg_user_mapping",
    "SELECT stavalues1 FROM pg_statistic",
    "ANALYZE federation_link.hospital_patients",
    "TRUNCATE federation_link.hospital_patients",
    "SELECT * FROM federation.history",
    "UPDATE federation.alembic_version SET version_num = '0000'",
    "ALTER TABLE federation_private.probe DISABLE ROW LEVEL SECURITY",
    "CREATE POLICY p ON federation_private.probe USING (true)",
]


@pytest.mark.claim("S9")
@pytest.mark.parametrize("part", PARTS)
def test_nobody_calls_reads_or_changes_a_part_of_the_binding(world: World, part: str) -> None:
    with world.pooled() as connection:
        for caller in (A, STRANGER, ANON, SERVICE):
            output = request(connection, caller, [part], read_only=False)
            assert "ERROR | 42501 |" in output or "no privileges were granted" in output, f"{caller.name}: {output}"
            assert not world.leaks(output)
    # The negative control: it is not refused for being wrong in itself, whatever the hospital then says.
    with world.deployment.superuser("cloud") as superuser:
        superuser.execute("BEGIN")
        output = ask(superuser, part)
        superuser.execute("ROLLBACK")
    assert "ERROR" not in output or "remote SQL command" in output, output


@pytest.mark.claim("S33")
def test_the_links_passwords_are_read_by_the_owner_alone(world: World) -> None:
    options = "SELECT umoptions FROM pg_user_mappings; SELECT * FROM information_schema.user_mapping_options"
    ours = "SELECT umoptions FROM pg_user_mappings WHERE srvname = 'hospital'; " \
        "SELECT * FROM information_schema.user_mapping_options WHERE foreign_server_name = 'hospital'"  # fmt: skip
    with world.pooled() as connection:
        for caller in (A, STRANGER, ANON, SERVICE):
            assert not world.leaks(request(connection, caller, [ours]))
        # The negative controls: the naive mapping of the caller's own, and the owner.
        assert "a password" in world.leaks(request(connection, A, [options]))
    with world.deployment.owner("cloud") as owner:
        assert "a password" in world.leaks(ask(owner, ours))


@pytest.mark.claim("N15")
def test_where_the_hospital_is_is_known_to_whoever_has_sql(world: World) -> None:
    """pg_foreign_server is everybody's to read: the address, and neither password nor link role (docs/secure.md)."""
    hospital = world.deployment.pair.local
    query = "SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'hospital'"
    with world.pooled() as connection:
        for caller in (A, STRANGER, ANON):
            output = request(connection, caller, [query])
            assert f"'host={hospital.host}', 'port={hospital.port}'" in output
            assert "federation_link" not in output
            assert not world.leaks(output)


@pytest.mark.claim("S10")
def test_a_caller_without_a_mapping_who_bypasses_row_level_security_reads_nothing(world: World) -> None:
    """Such a role is not named to the hospital, and shares the session of those who are: it asks for nobody."""
    with world.deployment.superuser("cloud") as superuser:
        superuser.execute(
            "CREATE ROLE unmapped BYPASSRLS; GRANT authenticated TO unmapped; GRANT unmapped TO authenticator"
        )
        try:
            with world.pooled() as connection:
                alone = request(
                    connection, Caller("unmapped", A.sub, "unmapped"), ["SELECT id FROM public.hospital_patients"]
                )
                read = "SELECT id FROM public.hospital_patients"
                after_a = request(connection, A, [read, "SET LOCAL ROLE unmapped", read])
                naive = request(
                    connection, Caller("unmapped", A.sub, "unmapped"), ["SELECT id FROM naive.hospital_patients"]
                )
        finally:
            superuser.execute("DROP ROLE unmapped")
    assert "no caller is bound" in alone
    assert marks(alone) == set()
    assert marks(after_a) == {"A"}
    assert "B" in marks(naive)


@pytest.mark.claim("N8")
def test_what_the_planner_knows_is_how_many_rows_the_table_has(world: World) -> None:
    """ANALYZE's row count is in pg_class for everybody: of the table, not of an account (docs/secure.md)."""
    with world.pooled() as connection:
        known = request(
            connection,
            A,
            ["SELECT reltuples::bigint FROM pg_class WHERE relkind = 'f'"],
        )
        estimate = request(connection, A, ["EXPLAIN SELECT * FROM public.hospital_patients"])
    assert str(EVERYBODYS + ABROAD) in world.leaks(known)
    assert not world.leaks(estimate), estimate


def test_the_statements_of_others_are_not_read_in_pg_stat_activity(world: World) -> None:
    with world.pooled() as victim, world.pooled() as attacker:
        begin(victim, B)
        victim.execute("SELECT 1 FROM public.hospital_patients WHERE name = 'Bhanu 1'")
        output = request(
            attacker, A, ["SELECT query FROM pg_stat_activity", "SELECT * FROM pg_cursors, pg_prepared_statements"]
        )
        victim.execute("ROLLBACK")
    assert not world.leaks(output), output
    with world.deployment.superuser("cloud") as superuser, world.pooled() as victim:
        begin(victim, B)
        victim.execute("SELECT 1 FROM public.hospital_patients WHERE name = 'Bhanu 1'")
        assert "Bhanu" in ask(superuser, "SELECT query FROM pg_stat_activity"), "the negative control"
        victim.execute("ROLLBACK")


def test_the_world_shows_what_it_should(world: World) -> None:
    """Everybody's own rows: an attack that finds nothing because nothing works would prove nothing."""
    with world.pooled() as connection:
        for caller in (B, A, PATIENT):
            assert f"\n{caller.rows} {caller.mark}" in "\n" + request(
                connection, caller, ["SELECT count(*), min(id::text) FROM public.hospital_patients"]
            )
        assert "\n0 None" in request(
            connection, STRANGER, ["SELECT count(*), min(id::text) FROM public.hospital_patients"]
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            begin(connection, ANON)
            connection.execute("SELECT 1 FROM public.hospital_patients")
