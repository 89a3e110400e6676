"""The foreign server: options that releases set, and those that the deployment sets."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.servers import AlterForeignServerOp, CreateForeignServerOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Alter options that federation.toml declares; `link apply` sets addresses and timeouts."""
    link = survey.config.link
    managed = link.server_options
    if survey.server is None:
        yield CreateForeignServerOp(link.server, managed or {})
        return
    there = survey.server.options
    deployed = survey.config.server_options()
    differing = sorted(key for key in deployed if there.get(key) != deployed[key])
    if differing:
        yield Finding(
            "server",
            link.server,
            "; ".join(f"{key} is {there.get(key)!r} and should be {deployed[key]!r}" for key in differing),
            "federation link apply",
        )
    if managed is not None:
        was = {key: value for key, value in there.items() if key not in deployed}
        add = {key: value for key, value in managed.items() if key not in was}
        change = {key: value for key, value in managed.items() if key in was and was[key] != value}
        drop = tuple(key for key in was if key not in managed)
        if add or change or drop:
            yield AlterForeignServerOp(link.server, add, change, drop, was)
