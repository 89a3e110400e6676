"""What a database holds, object by object: two states of it can be compared, and what differs has a name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import psycopg

_CATALOG = files(__package__).joinpath("catalog.sql").read_bytes()

Catalog = dict[str, str]
"""Definitions by object, as ``table public.note`` or ``policy own on public.note``."""


def read_catalog(connection: psycopg.Connection[Any]) -> Catalog:
    """Everything in the database but rows, passwords and the toolkit's books; read by a superuser."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL search_path = pg_catalog")
        return dict(connection.execute(_CATALOG).fetchall())


def differences(found: Catalog, expected: Catalog) -> Iterator[str]:
    """In words, one a differing object, in the objects' order."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in expected:
            yield f"{name} is left over"
        elif name not in found:
            yield f"{name} is missing"
        elif found[name] != expected[name]:
            yield f"{name} is {found[name]} and was {expected[name]}"
