"""Enums and domains that exported columns need, on either side, before the tables.

A label that one side lacks fails there with the first row that has it: over the link a label is its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from alembic.operations import MigrateOperation

from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.statements import key
from federation.operations.types import AddEnumValueOp, CreateTypeOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Create missing declared types and add missing labels of enums; other types are not managed."""
    for type_ in survey.declared.types:
        labels = survey.types.get(key(type_))
        if labels is None:
            yield CreateTypeOp(type_)
        elif isinstance(type_, sa.Enum):
            yield from _labels(type_, labels)


def _labels(enum: sa.Enum, there: tuple[str, ...]) -> Iterator[MigrateOperation]:
    declared, name = tuple(enum.enums), ".".join(filter(None, key(enum)))
    missing = [label for label in declared if label not in there]
    surplus = [label for label in there if label not in declared]
    detail, hint = [], "declare them in this order, or make the type anew"
    if surplus:
        detail.append(f"has {_listed(surplus)}, which {'is' if len(surplus) == 1 else 'are'} not declared")
        hint = "declare it, and the next release adds it on the other side; PostgreSQL drops no label"
    if surplus and missing:
        detail.append(f"lacks {_listed(missing)}")
        hint = f"ALTER TYPE {name} RENAME VALUE … TO … where a label was renamed, or declare it: PostgreSQL drops none"
    if [label for label in there if label in declared] != [label for label in declared if label in there]:
        detail.append(f"has them in the order {_listed(there)}, and declared is {_listed(declared)}")
    if detail:
        yield Finding("enum", name, " and ".join(detail), hint)
        return
    for number, label in enumerate(declared):
        if label in missing:
            after = declared[number - 1] if number else None
            before = there[0] if not number and there else None
            yield AddEnumValueOp(str(enum.name), label, enum.schema, before=before, after=after)


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(f"'{label}'" for label in labels)
