"""Attacks that guess: a question whose answer differs when the guess is right, be it by an error or by an estimate.

With us the answer to the victim's true value is the answer to a value that nobody has. On the naive set-up it is not:
asked for each id, it names the victim's row.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from attack_world import NAIVE, OPEN, OURS, PATIENT, A, B, Names, World, request


@dataclass(frozen=True)
class Oracle:
    """A statement with a ``{guess}``: at what the victim's rows have as ``of`` (a column)."""

    name: str
    statement: str
    of: str = "id"
    naive: Names = NAIVE


NOBODYS = {"id": "b0b0b0b0-0000-4000-8000-000000000000", "age": "76", "place": "Xanadu", "name": "Zz"}

ORACLES = [
    Oracle("division by zero", "SELECT 1 FROM {patients} WHERE 1 / (id <> '{guess}')::integer = 2"),
    Oracle("division by zero, sent to the hospital", "SELECT 1 FROM {patients} WHERE 1 / (age - {guess}) = 7", "age"),
    Oracle(
        "division by zero in a join",
        "SELECT 1 FROM {patients} p JOIN {patients} q ON p.id = q.id AND 1 / (q.id <> '{guess}')::integer = 2",
    ),
    Oracle(
        "division by zero in a join, sent to the hospital",
        "SELECT 1 FROM {patients} p LEFT JOIN {queues} q ON q.patient_id = p.id AND 1 / (p.age - {guess}) = 7",
        "age",
        OPEN,
    ),
    Oracle("division by zero in ORDER BY", "SELECT 1 FROM {patients} ORDER BY 1 / (age - {guess})", "age", OPEN),
    Oracle(
        "division by zero in HAVING",
        "SELECT age FROM {patients} GROUP BY age HAVING 1 / (age - {guess}) = 7",
        "age",
        OPEN,
    ),
    Oracle("a pattern that ends with its escape", r"SELECT 1 FROM {patients} WHERE name LIKE '{guess}\'", "name"),
    Oracle(
        "a pattern that ends with its escape, in a join",
        r"SELECT 1 FROM {patients} p JOIN {patients} q ON p.id = q.id "
        r"AND (q.name || 'x') LIKE p.name || '\' AND p.name = '{guess}'",
        "name",
        OPEN,
    ),
    Oracle(
        "a broken regular expression", "SELECT 1 FROM {patients} WHERE name ~ CASE id::text WHEN '{guess}' THEN '(' END"
    ),
    Oracle(
        "a broken regular expression, sent to the hospital",
        "SELECT 1 FROM {patients} WHERE place <> '{guess}' OR name ~ (place || '(')",
        "place",
        OPEN,
    ),
    Oracle("a cast", "SELECT 1 FROM {patients} WHERE CASE id::text WHEN '{guess}' THEN name END::integer = 1"),
    Oracle(
        "an overflow, sent to the hospital", "SELECT 1 FROM {patients} WHERE age + (2147483647 - {guess}) > 0", "age"
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
    """What one of the victim's rows has; of an age the highest, which an overflow tells from the one below."""
    with world.deployment.superuser("local") as superuser:
        found = superuser.execute(
            f"SELECT min({column}::text) FROM hospital_patients WHERE linked_user_id = %s",  # type: ignore[arg-type]
            [B.sub],
        ).fetchone()
    assert found
    return str(found[0])


def answers(world: World, oracle: Oracle, names: Names) -> tuple[str, str]:
    """To the right guess and to a wrong one, without the guess itself."""
    statement = names.fill(oracle.statement.replace("{guess}", "\N{BULLET}"))
    told = []
    for guess in (truth(world, oracle.of), NOBODYS[oracle.of]):
        told.append("")
        for caller in (A, PATIENT):
            with world.pooled() as connection:
                request(connection, B, [f"SELECT count(*) FROM {names.patients}"])
                answer = request(connection, caller, [statement.replace("\N{BULLET}", guess)])
            assert "42601" not in answer, "the statement is wrong in itself"
            told[-1] += answer.replace(guess, "\N{BULLET}")
    return told[0], told[1]


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
def test_a_right_guess_and_a_wrong_one_are_answered_alike(world: World, oracle: Oracle) -> None:
    right, wrong = answers(world, oracle, OURS)
    assert right == wrong
    assert not world.leaks(right)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
def test_the_naive_set_up_tells_them_apart(world: World, oracle: Oracle) -> None:
    right, wrong = answers(world, oracle, oracle.naive)
    assert right != wrong
