"""Roles of the cloud that read everything: they can act as any listed account, and read the link's passwords.

No grant of the toolkit's stops a member of pg_read_all_data, and no secret in a table would.

https://www.postgresql.org/docs/current/predefined-roles.html
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from federation.drift.finding import Finding
from federation.drift.survey import Survey

# Selecting from the binding's table binds an account; the catalog holds the passwords. The predefined roles themselves
# do not log in.
_READERS = sa.text(
    """
    SELECT r.rolname, pg_has_role(r.oid, 'pg_read_all_data', 'MEMBER') AS of_all
    FROM pg_catalog.pg_roles AS r
    WHERE NOT r.rolsuper AND NOT r.rolname = ANY (:known) AND r.rolname NOT LIKE 'pg\\_%'
        AND (pg_has_role(r.oid, 'pg_read_all_data', 'MEMBER')
            OR has_table_privilege(r.oid, 'pg_catalog.pg_user_mapping', 'SELECT')
            OR coalesce(has_table_privilege(r.oid, to_regclass('federation_private.bind'), 'SELECT')
                AND has_schema_privilege(r.oid, to_regnamespace('federation_private')::oid, 'USAGE'), false))
    ORDER BY r.rolname
    """
)


def compare(survey: Survey) -> Iterator[Finding]:
    """Report such roles unless federation.toml lists them in ``roles.read_all``."""
    config = survey.config
    owner = survey.connection.exec_driver_sql("SELECT current_user").scalar_one()
    known = {"known": [owner, config.roles.sender, *config.roles.read_all]}
    for name, of_all in survey.connection.execute(_READERS, known):
        detail = "can act as any listed account and read the link's passwords"
        remedy = (
            f"REVOKE pg_read_all_data FROM {name}"
            if of_all
            else "REVOKE what it has on federation_private and pg_catalog"
        )
        yield Finding("role", name, detail, f"{remedy}, or list it in roles.read_all of federation.toml")
