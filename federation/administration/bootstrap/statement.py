"""One command of an administrator, and when it is not needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from psycopg import sql

Database: TypeAlias = Literal["maintenance", "target"]
"""``maintenance`` is the one that the administrator's URL names, ``target`` the owner's, which may not exist yet."""


@dataclass(frozen=True)
class Statement:
    """One command: ``why`` it is run, in which ``database``, and ``unless`` a SELECT finds that it is done already.

    ``transactional`` is false for what PostgreSQL runs only outside a transaction block. What ``asks`` only refuses.
    """

    why: str
    command: sql.Composable
    database: Database = "target"
    unless: sql.Composable | None = None
    transactional: bool = True
    asks: bool = False


def groups(todo: list[Statement]) -> Iterator[tuple[tuple[Database, bool], Iterable[Statement]]]:
    """Group neighbouring statements that share a database and a transaction."""
    return itertools.groupby(todo, key=lambda statement: (statement.database, statement.transactional))


def dollar_quoted(text: sql.Composable) -> sql.SQL:
    """Return ``text`` as a string constant that stays readable."""
    body = text.as_string(None)
    tag = next(tag for n in itertools.count() if (tag := f"$fed{n or ''}$") not in body)
    return sql.SQL(f"{tag}{body}{tag}")
