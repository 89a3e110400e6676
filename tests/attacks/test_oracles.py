"""Attacks that guess: a question whose answer differs when the guess is right, be it by an error or by an estimate.

With us the answer to the victim's true value is the answer to a value that nobody has. On the naive set-up one answer
of several differs, and names what the victim has: the id of a row, or what the planner's statistics hold of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from attack_world import ATTACKERS, NAIVE, OPEN, OURS, A, B, Caller, Names, World, request


@dataclass(frozen=True)
class Oracle:
    """A statement with a ``{guess}``: at what the victim's rows have as ``of`` (a column)."""

    name: str
    statement: str
    of: str = "id"
    naive: Names = NAIVE


NOBODYS = {
    "id": tuple(f"b0b0b0b0-0000-4000-8000-00000000000{n}" for n in range(3)),
    "place": ("Xanadu", "Bensalem", "Utopia"),
    "name": ("Zz", "Xx", "Qq"),
}
DIVISION = "1 / (age - 77) = 7"
"""Of 77 years are the victims only."""

ORACLES = [
    Oracle("division by zero", "SELECT 1 FROM {patients} WHERE 1 / (id <> '{guess}')::integer = 2"),
    Oracle(
        "division by zero, sent to the hospital", f"SELECT 1 FROM {{patients}} WHERE id = '{{guess}}' AND {DIVISION}"
    ),
    Oracle(
        "division by zero in a join",
        "SELECT 1 FROM {patients} p JOIN {patients} q ON p.id = q.id AND 1 / (q.id <> '{guess}')::integer = 2",
    ),
    Oracle(
        "division by zero in a join, sent to the hospital",
        "SELECT 1 FROM {patients} p LEFT JOIN {queues} q ON q.patient_id = p.id AND p.id = '{guess}' "
        "AND 1 / (p.age - 77) = 7",
        naive=OPEN,
    ),
    Oracle(
        "division by zero in ORDER BY",
        "SELECT 1 FROM {patients} WHERE id = '{guess}' ORDER BY 1 / (age - 77)",
        naive=OPEN,
    ),
    Oracle(
        "division by zero in HAVING",
        f"SELECT age FROM {{patients}} WHERE id = '{{guess}}' GROUP BY age HAVING {DIVISION}",
        naive=OPEN,
    ),
    Oracle(
        "a pattern that ends with its escape",
        r"SELECT 1 FROM {patients} WHERE id = '{guess}' AND (name || 'x') LIKE name || '\'",
    ),
    Oracle(
        "a pattern that ends with its escape, in a join",
        r"SELECT 1 FROM {patients} p JOIN {patients} q ON p.id = q.id "
        r"AND (q.name || 'x') LIKE p.name || '\' AND p.id = '{guess}'",
        naive=OPEN,
    ),
    Oracle(
        "a broken regular expression", "SELECT 1 FROM {patients} WHERE name ~ CASE id::text WHEN '{guess}' THEN '(' END"
    ),
    Oracle(
        "a broken regular expression, sent to the hospital",
        "SELECT 1 FROM {patients} WHERE id <> '{guess}' OR name ~ (place || '(')",
        naive=OPEN,
    ),
    Oracle("a cast", "SELECT 1 FROM {patients} WHERE CASE id::text WHEN '{guess}' THEN name END::integer = 1"),
    Oracle(
        "an overflow, sent to the hospital",
        "SELECT 1 FROM {patients} WHERE id = '{guess}' AND age + (2147483647 - 76) > 0",
    ),
    Oracle("the planner's estimate", "EXPLAIN SELECT 1 FROM {patients} WHERE place = '{guess}'", "place", OPEN),
    Oracle(
        "the planner's estimate of a pattern",
        "EXPLAIN SELECT 1 FROM {patients} WHERE name LIKE '{guess}%'",
        "name",
        OPEN,
    ),
    Oracle("existence", "SELECT EXISTS (SELECT FROM {patients} WHERE id = '{guess}')", naive=OPEN),
]


def truth(world: World, column: str) -> str:
    """What one of the victim's rows has."""
    with world.deployment.superuser("local") as superuser:
        found = superuser.execute(
            f"SELECT min({column}::text) FROM hospital_patients WHERE linked_user_id = %s",  # type: ignore[arg-type]
            [B.sub],
        ).fetchone()
    assert found
    return str(found[0])


def answer(world: World, oracle: Oracle, names: Names, guess: str, caller: Caller) -> str:
    """To one guess, without the guess itself."""
    statement = names.fill(oracle.statement.replace("{guess}", "\N{BULLET}")).replace("\N{BULLET}", guess)
    with world.pooled() as connection:
        request(connection, B, [f"SELECT count(*) FROM {names.patients}"])
        given = request(connection, caller, [statement])
    assert "42601" not in given, "the statement is wrong in itself"
    return given.replace(guess, "\N{BULLET}")


@pytest.mark.claim("S4")
@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
def test_a_right_guess_and_a_wrong_one_are_answered_alike(world: World, oracle: Oracle) -> None:
    for caller in ATTACKERS:
        right, wrong = (
            answer(world, oracle, OURS, guess, caller) for guess in (truth(world, oracle.of), NOBODYS[oracle.of][0])
        )
        assert right == wrong, caller.name
        assert not world.leaks(right)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
def test_on_the_naive_set_up_one_answer_names_what_the_victim_has(world: World, oracle: Oracle) -> None:
    first, second, third = NOBODYS[oracle.of]
    by_answer: dict[str, list[str]] = {}
    for guess in (first, truth(world, oracle.of), second, third):
        by_answer.setdefault(answer(world, oracle, oracle.naive, guess, A), []).append(guess)
    named = [guesses[0] for guesses in by_answer.values() if len(guesses) == 1]
    assert len(by_answer) == 2
    assert named == [truth(world, oracle.of)]
    assert world.leaks(named[0])
