"""The binding of callers, in frozen versions: SQL that names the cloud's caller to the hospital's session.

``v1/local.sql`` is the hospital's half (the list of accounts, what binds one, ``auth.uid()`` over it),
``v1/cloud.sql`` the cloud's (the function that callers may call and the private parts that they cannot name). A
release refers to a version; a change is ``v2`` and a new release, since a migration that has run is never edited.
"""

from __future__ import annotations

from importlib import resources

from psycopg.sql import SQL, Composable, Composed


def statements(version: str, name: str, **values: Composable) -> Composed:
    """The SQL file ``name`` (without its ending) of binding ``version``, with its ``{fields}`` filled in.

    Raises FileNotFoundError for a version or file that does not exist.
    """
    text = resources.files(__package__).joinpath(version, f"{name}.sql").read_text(encoding="utf-8")
    return SQL(text).format(**values)
