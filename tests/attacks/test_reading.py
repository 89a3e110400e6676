"""Attacks that read: what a caller with SQL at hand tries, and that the same try on the naive set-up succeeds.

Every attack runs as account A, a patient, an unlisted account and anon, on a connection that the victim used before, in
a READ ONLY transaction unless it says otherwise, once up to its first error and once with a savepoint for each step.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from attack_world import ATTACKERS, BY_SETTING, BY_TABLE, NAIVE, OPEN, OURS, A, B, Caller, Names, World, request

LEAK = """
    CREATE OR REPLACE FUNCTION pg_temp.leak(row_text text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
    $$ BEGIN RAISE NOTICE 'seen: %', row_text; RETURN true; END $$
"""
LEAKY_OPERATOR = """
    DO $$ BEGIN CREATE OPERATOR pg_temp.~~~> (FUNCTION = pg_temp.leak, RIGHTARG = text);
    EXCEPTION WHEN duplicate_function THEN NULL; END $$
"""
JSONB_IN_PG_TEMP = f"""
    CREATE TYPE pg_temp.jsonb AS (given text);
    CREATE FUNCTION pg_temp.forge(text) RETURNS pg_temp.jsonb LANGUAGE sql AS 'SELECT ROW($1)::pg_temp.jsonb';
    CREATE FUNCTION pg_temp.forged(pg_temp.jsonb) RETURNS pg_catalog.jsonb LANGUAGE sql AS
        $$ SELECT '{{"sub": "{B.sub}"}}'::pg_catalog.jsonb $$;
    CREATE CAST (text AS pg_temp.jsonb) WITH FUNCTION pg_temp.forge(text) AS ASSIGNMENT;
    CREATE CAST (pg_temp.jsonb AS pg_catalog.jsonb) WITH FUNCTION pg_temp.forged(pg_temp.jsonb) AS IMPLICIT;
"""
UUID_IN_PG_TEMP = f"""
    CREATE TYPE pg_temp.uuid AS (given text);
    CREATE FUNCTION pg_temp.forge_id(text) RETURNS pg_temp.uuid LANGUAGE sql AS 'SELECT ROW($1)::pg_temp.uuid';
    CREATE FUNCTION pg_temp.forged_id(pg_temp.uuid) RETURNS pg_catalog.uuid LANGUAGE sql AS
        $$ SELECT '{B.sub}'::pg_catalog.uuid $$;
    CREATE CAST (text AS pg_temp.uuid) WITH FUNCTION pg_temp.forge_id(text) AS ASSIGNMENT;
    CREATE CAST (pg_temp.uuid AS pg_catalog.uuid) WITH FUNCTION pg_temp.forged_id(pg_temp.uuid) AS IMPLICIT;
"""
RELATIONS_IN_PG_TEMP = f"""
    CREATE TEMP TABLE caller AS SELECT '{B.sub}'::uuid AS sub;
    CREATE TEMP TABLE bind AS SELECT '{B.sub}'::uuid AS sub, true AS taken;
    CREATE TEMP TABLE account AS SELECT '{B.sub}'::uuid AS sub, '{{"sub": "{B.sub}"}}'::jsonb AS claims;
    CREATE TEMP TABLE probe ();
    CREATE TEMP TABLE site AS SELECT '00000000-0000-0000-0000-000000000001'::uuid AS id;
    GRANT ALL ON pg_temp.caller, pg_temp.bind, pg_temp.account, pg_temp.probe, pg_temp.site TO PUBLIC;
"""


@dataclass(frozen=True)
class Attack:
    """Statements of a caller, in one transaction; ``before`` it, in one of its own, what READ ONLY would not allow.

    ``naive`` is the set-up whose rows the same statements do bring out. What comes out there is the victim's row id,
    or, where the attack is after a number, a row count (``counts``).
    """

    name: str
    steps: tuple[str, ...]
    before: tuple[str, ...] = ()
    naive: Names = NAIVE
    read_only: bool = True
    counts: bool = False


def leak(alias: str = "p") -> str:
    return f"pg_temp.leak({alias}.id || {alias}.name)"


FORCE_PARALLEL = """
    DO $$ BEGIN
        PERFORM set_config(name, 'on', true) FROM pg_settings
            WHERE name IN ('debug_parallel_query', 'force_parallel_mode');
        PERFORM set_config('parallel_setup_cost', '0', true), set_config('parallel_tuple_cost', '0', true);
    END $$
"""

ATTACKS = [
    Attack("a cheap leaky function", (f"SELECT id FROM {{patients}} p WHERE {leak()}",), (LEAK,)),
    Attack(
        "a cheap leaky function beside LIMIT and OFFSET 0",
        (f"SELECT count(*) FROM (SELECT * FROM {{patients}} OFFSET 0) p WHERE {leak()} LIMIT 1",),
        (LEAK,),
        OPEN,
    ),
    Attack(
        "a leaky function in a join",
        (f"SELECT p.id FROM {{patients}} p JOIN {{patients}} q ON p.id = q.id AND {leak('q')}",),
        (LEAK,),
    ),
    Attack(
        "a leaky function over a join with other tables, all join methods but one switched off",
        (
            "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)",
            f"SELECT p.id FROM {{patients}} p LEFT JOIN {{queues}} q ON q.patient_id = p.id AND {leak()}",
        ),
        (LEAK,),
        OPEN,
    ),
    Attack(
        "a leaky operator",
        ("SELECT id FROM {patients} WHERE OPERATOR(pg_temp.~~~>) (id || name)",),
        (LEAK, LEAKY_OPERATOR),
    ),
    Attack(
        "a leaky function in a temporary view",
        (f"SELECT * FROM (SELECT p.* FROM pg_temp.seen p WHERE {leak()}) AS s",),
        (LEAK, "CREATE OR REPLACE TEMP VIEW seen AS SELECT id, name FROM {patients}"),
    ),
    Attack("a cast to integer", ("SELECT id FROM {patients} WHERE (id || name)::integer = 1",)),
    Attack(
        "a cast to integer in a join",
        ("SELECT 1 FROM {patients} p JOIN {patients} q ON (p.id || q.name)::integer = 1",),
        naive=OPEN,
    ),
    Attack(
        "a cast of the whole row",
        ("SELECT id FROM {patients} p WHERE p::text::uuid IS NULL",),
    ),
    Attack("a cast to jsonb", ("SELECT id FROM {patients} WHERE (id || name)::jsonb IS NOT NULL",)),
    Attack("a cast to a date", ("SELECT id FROM {patients} WHERE (name || id)::date > now()",)),
    Attack(
        "every row by every clause",
        (
            "WITH RECURSIVE w AS MATERIALIZED (SELECT id, 1 AS n FROM {patients} "
            "UNION ALL SELECT id, n + 1 FROM w WHERE n < 2) "
            "SELECT id FROM w UNION SELECT l.id FROM {queues} q, "
            "LATERAL (SELECT p.id FROM {patients} p WHERE p.id = q.patient_id) l",
        ),
        naive=OPEN,
    ),
    Attack("counting", ("SELECT count(*), count(*) FILTER (WHERE age > 50) FROM {patients}",), naive=OPEN, counts=True),
    Attack(
        "counting by group", ("SELECT age, count(*), min(id::text) FROM {patients} GROUP BY ROLLUP (age)",), naive=OPEN
    ),
    Attack("windows", ("SELECT id, count(*) OVER (), lag(name) OVER (ORDER BY age DESC) FROM {patients}",), naive=OPEN),
    Attack(
        "rows removed by a filter, as EXPLAIN ANALYZE counts them",
        (
            "EXPLAIN (ANALYZE, VERBOSE, COSTS off, TIMING off, SUMMARY off) "
            "SELECT id FROM {patients} WHERE id::text || name LIKE '%'",
        ),
        counts=True,
    ),
    Attack(
        "reading statistics",
        (
            "SELECT s.* FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename "
            "AND c.relnamespace = s.schemaname::regnamespace WHERE c.oid = to_regclass('{foreign_patients}')",
            "SELECT attname, most_common_vals::text, histogram_bounds::text FROM pg_stats "
            "WHERE schemaname || '.' || tablename = '{foreign_patients}'",
            "SELECT stxdmcv FROM pg_statistic_ext_data",
            "SELECT stavalues1::text FROM pg_statistic WHERE starelid = to_regclass('{foreign_patients}')",
        ),
        naive=OPEN,
    ),
    Attack("the foreign table itself", ("SELECT id, name FROM {foreign_patients}",)),
    Attack(
        "the foreign table by its number",
        (
            """DO $$ DECLARE
                numbered regclass;
                ids text;
            BEGIN
                FOR numbered IN SELECT oid FROM pg_class WHERE relkind = 'f' AND relname = 'hospital_patients'
                    AND relnamespace::regnamespace::text = split_part('{foreign_patients}', '.', 1)
                LOOP
                    EXECUTE format('SELECT string_agg(id::text, '','') FROM %s', numbered) INTO ids;
                    RAISE NOTICE 'seen: %', ids;
                END LOOP;
            END $$""",
        ),
    ),
    Attack(
        "a query in a string",
        ("SELECT word FROM ts_stat('SELECT array_to_tsvector(ARRAY[id::text]) FROM {foreign_patients}')",),
    ),
    Attack(
        "a foreign table of one's own on the link's server",
        ("SELECT id, name FROM pg_temp.own_table",),
        (
            "CREATE FOREIGN TABLE pg_temp.own_table (id uuid, name text) SERVER {server} "
            "OPTIONS (schema_name 'public', table_name 'hospital_patients')",
        ),
    ),
    Attack(
        "a temporary table like the foreign one, or inheriting it",
        ("SELECT id FROM pg_temp.like_it",),
        ("CREATE TEMP TABLE like_it AS SELECT id FROM {foreign_patients}",),
    ),
    Attack("row_security off", ("SET LOCAL row_security = off", "SELECT id FROM {patients}"), naive=OPEN),
    Attack("a parallel plan", (FORCE_PARALLEL, "SELECT id, name FROM {patients} p"), naive=OPEN),
    Attack("FOR UPDATE", ("SELECT id FROM {patients} FOR UPDATE",), read_only=False, naive=OPEN),
    Attack(
        "FOR KEY SHARE, skipping what is locked",
        ("SELECT id FROM {patients} FOR KEY SHARE SKIP LOCKED",),
        read_only=False,
        naive=OPEN,
    ),
    Attack("COPY of a query", ("COPY (SELECT id, name FROM {patients}) TO STDOUT",), naive=OPEN),
    Attack(
        "a scrolling cursor",
        (
            "DECLARE c SCROLL CURSOR FOR SELECT id FROM {patients}",
            "MOVE ALL c",
            "FETCH BACKWARD ALL c",
            "FETCH ABSOLUTE 1 c",
        ),
        naive=OPEN,
    ),
    Attack(
        "a generic plan",
        (
            "SET LOCAL plan_cache_mode = force_generic_plan",
            "DEALLOCATE ALL",
            "PREPARE q(text) AS SELECT id FROM {patients} WHERE name > $1",
            "EXECUTE q('A')",
            "EXECUTE q('')",
        ),
        naive=OPEN,
    ),
    Attack(
        "the setting by which the naive way names the caller",
        (f"SELECT set_config('federation.account', '{B.sub}', true)", "SELECT id FROM {patients}"),
        naive=BY_SETTING,
    ),
    Attack(
        "every setting of the binding, forged for the victim",
        (
            f"SELECT set_config('federation.bound', '{B.sub}@' || transaction_timestamp(), true), "
            "set_config('federation.listed', 'true', true), set_config('federation.wrote', 'f@', true), "
            f"set_config('federation.account', '{B.sub}', true)",
            "SELECT id FROM {patients}",
            "SELECT set_config('federation.bound', '', true), set_config('federation.listed', '', true)",
            "SELECT id FROM {patients}",
        ),
        naive=BY_SETTING,
    ),
    Attack(
        "one's own mark, forged with the listing",
        (
            "SELECT set_config('federation.bound', coalesce(current_setting('request.jwt.claims')::jsonb ->> 'sub', "
            "'00000000-0000-0000-0000-000000000000') || '@' || transaction_timestamp(), true), "
            f"set_config('federation.listed', 'true', true), set_config('federation.account', '{B.sub}', true)",
            "SELECT id FROM {patients}",
        ),
        naive=BY_SETTING,
    ),
    Attack(
        "the settings of PostgREST before 9",
        (
            f"SELECT set_config('request.jwt.claim.sub', '{B.sub}', true), "
            "set_config('request.jwt.claim.role', 'service_role', true), "
            f"set_config('request.jwt.claim', '{{\"sub\": \"{B.sub}\"}}', true)",
            "SELECT id FROM {patients}",
        ),
    ),
    Attack("a jsonb of one's own in pg_temp", ("SELECT {function}()",), (JSONB_IN_PG_TEMP,)),
    Attack("a uuid of one's own in pg_temp", ("SELECT {function}()",), (UUID_IN_PG_TEMP,)),
    Attack("tables of one's own in pg_temp", ("SELECT {function}()",), (RELATIONS_IN_PG_TEMP,), BY_TABLE),
    Attack("through a view of the owner's", ("SELECT count(*), min(id::text) FROM {owners_view} WHERE age = 77",)),
]


def carry_out(world: World, attack: Attack, names: Names, callers: tuple[Caller, ...] = ATTACKERS) -> str:
    seen: list[str] = []
    before, steps = ([names.fill(step) for step in part] for part in (attack.before, attack.steps))
    for savepoints in (False, True):
        with world.pooled() as connection:
            request(connection, B, [f"SELECT count(*) FROM {names.patients}"])
            for caller in callers:
                seen.append(f"-- {caller.name}")
                if before:
                    seen.append(request(connection, caller, before, read_only=False, savepoints=True, commit=True))
                seen.append(request(connection, caller, steps, read_only=attack.read_only, savepoints=savepoints))
    return "\n".join(seen)


@pytest.mark.claim("S3")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_nothing_of_another_account_comes_out(world: World, attack: Attack) -> None:
    output = carry_out(world, attack, OURS)
    assert not world.leaks(output), output


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_same_attack_succeeds_on_the_naive_set_up(world: World, attack: Attack) -> None:
    output = carry_out(world, attack, attack.naive, (A,))
    assert world.leaks(output), output
    assert attack.counts or B.mark in output, output


@pytest.mark.claim("S5")
@pytest.mark.parametrize(
    "shadows", [JSONB_IN_PG_TEMP, UUID_IN_PG_TEMP, RELATIONS_IN_PG_TEMP], ids=["jsonb", "uuid", "tables"]
)
def test_what_a_caller_puts_in_pg_temp_changes_nothing_of_what_they_see(world: World, shadows: str) -> None:
    """Not even an error comes of it: no part of the binding has looked there."""
    with world.pooled() as connection:
        request(connection, A, [shadows], read_only=False, commit=True)
        ours, naive = (
            request(connection, A, [names.fill("SELECT count(*), min(seen) FROM {function}() AS seen")])
            for names in (OURS, BY_TABLE if shadows is RELATIONS_IN_PG_TEMP else NAIVE)
        )
    assert f"\n{A.rows} {A.mark}" in ours, ours
    assert B.mark in naive, "the negative control"
