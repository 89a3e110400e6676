"""The app: what it asks the cloud, in a transaction of the person who asks."""

from typing import Any

import psycopg


class ClinicClosed(Exception):
    """The clinic's server does not answer; nothing was changed."""


def planned_visits(cursor: psycopg.Cursor[Any]) -> list[tuple[str, str]]:
    """Pet and day of each visit to come, the earliest first."""
    try:
        rows = cursor.execute(
            "SELECT p.name, v.day::text FROM visits AS v JOIN pets AS p ON p.id = v.pet_id "
            "WHERE v.status = 'planned' ORDER BY v.day"
        ).fetchall()
    except (psycopg.OperationalError, psycopg.errors.FdwError) as error:
        raise ClinicClosed from error
    return [(name, day) for name, day in rows]


def plan_visit(cursor: psycopg.Cursor[Any], user: str, pet: str, day: str) -> None:
    """One more visit, of the pet of that name."""
    cursor.execute(
        "INSERT INTO visits (user_id, pet_id, day) SELECT %s, id, %s FROM pets WHERE name = %s", [user, day, pet]
    )
