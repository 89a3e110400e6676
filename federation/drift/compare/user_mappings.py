"""User mappings: who has one, and as which link role; never the secret."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.deployment import LINK, SERVICE, LinkRole
from federation.operations.user_mappings import CreateUserMappingOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Map PUBLIC to the judged link role, and the owner and the roles that bypass to the service role."""
    config = survey.config
    owner = config.url("cloud").username or "current_user"
    expected: dict[str, tuple[str, LinkRole]] = {
        "public": ("public", LINK),
        owner: ("current_user", SERVICE),
        **{name: (name, SERVICE) for name in config.roles.bypass},
    }
    there = survey.server.mappings if survey.server is not None else {}
    for name, (role, link_role) in expected.items():
        if name not in there:
            yield CreateUserMappingOp(role, config.link.server, link_role)
        elif (user := there[name]) is not None and user != link_role.name(config):
            yield Finding(
                "user mapping",
                name,
                f"goes as {user} and should go as {link_role.name(config)}",
                "federation link apply",
            )
    for name in sorted(set(there) - set(expected)):
        yield Finding(
            "user mapping",
            name,
            "is not declared: whoever has one has a session of its own at the hospital",
            "drop it, or list the role in roles.bypass",
        )
