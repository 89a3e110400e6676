"""The binding of callers, in frozen versions: SQL that names the cloud's caller to the hospital's session.

``v1/local.sql`` is the hospital's half (the list of accounts, what binds one, ``auth.uid()`` over it),
``v1/cloud.sql`` the cloud's (the function that callers may call and the private parts that they cannot name). A
release refers to a version; a change is ``v2`` and a new release, since a migration that has run is never edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from psycopg.sql import SQL, Composable, Composed

PARTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("v1", "local"): (
        "federation.account",
        "federation.take(uuid, text)",
        "federation.bind",
        "auth.jwt()",
        "auth.uid()",
        "auth.role()",
    ),
    ("v1", "cloud"): (
        "federation_private.site",
        "federation_private.bind",
        "federation_private.guard",
        "federation_private.require_hospital()",
        "federation_private.probe",
        "federation_private.send(boolean, boolean)",
        "federation.bind_claims()",
        "federation.bind_to_write()",
        "federation.bind_before_write()",
    ),
}
"""The tables, views and functions that a half makes, by version and side, as the server spells them."""


def statements(version: str, name: str, **values: Composable) -> Composed:
    """The SQL file ``name`` (without its ending) of binding ``version``, with its ``{fields}`` filled in.

    Raises FileNotFoundError for a version or file that does not exist.
    """
    text = resources.files(__package__).joinpath(version, f"{name}.sql").read_text(encoding="utf-8")
    return SQL(text).format(**values)
