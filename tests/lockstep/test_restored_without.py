"""A database that was restored with ``--no-owner`` or ``--no-acl``: who types what the messages name ends it."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from federation.administration import bootstrap
from federation.check import check
from federation.errors import VerificationFailed
from federation.lockstep.repair import accept, repair

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment

    from federation.errors import Side

NAMED = (
    re.compile(r"^next: (federation .*)$", re.MULTILINE),
    re.compile(r"`(federation (?:bootstrap|repair|link apply|upgrade|analyze)[^`]*)`"),
    re.compile(r"\b(federation (?:analyze|upgrade))\b"),
)
"""Where a message names a command: the last line of `status`, a hint, the detail of a finding."""

TYPED = 8
"""Commands after which it would be a circle."""


def restore(deployment: Deployment, side: Side, folder: Path, option: str) -> None:
    """Dump and restore the database of ``side``, as a superuser does, under its own name."""
    there = deployment.pair.local if side == "local" else deployment.pair.cloud
    name, file = deployment.dbname(side), folder / "dump"
    url = deployment.superuser_url(side)
    subprocess.run([there.binaries.program("pg_dump"), "--format=custom", f"--file={file}", url], check=True)
    deployment.close()
    there.drop_database(name)
    there.create_database(name, owner="hospital_owner" if side == "local" else "postgres")
    deployment.pg_restore(side, file, option)


def follow(deployment: Deployment) -> list[str]:
    """Type what status and check name until both exit with 0; the commands."""
    typed: list[str] = []
    while len(typed) < TYPED:
        said = ""
        for words in (("status",), ("check",)):
            ran = deployment.federation(*words)
            said = ran.stdout + ran.stderr
            if ran.returncode or "next:" in said:
                break
        else:
            return typed
        command = next((match[1] for match in (pattern.search(said) for pattern in NAMED) if match), None)
        assert command is not None, f"after {typed}, no command is named: {said}"
        if command.startswith("federation bootstrap") and "--apply" not in command:
            command += " --apply"
        typed.append(command)
        deployment.federation(*command.split()[1:])
    raise AssertionError(f"a circle: {typed}; {said}")


@pytest.mark.parametrize("option", ["--no-owner", "--no-acl"])
@pytest.mark.parametrize("side", ["local", "cloud"])
def test_the_commands_that_are_named_end_it(
    federated: Deployment, side: Side, option: str, world_writable: Path
) -> None:
    restore(federated, side, world_writable, option)
    broken = federated.federation("status").returncode or federated.federation("check").returncode
    assert broken, "the control: nothing is to be mended"
    typed = follow(federated)
    assert 0 < len(typed) <= 5, typed
    assert len(typed) == len(set(typed)), f"twice the same: {typed}"
    assert federated.federation("downgrade", "0003", "--yes").returncode == 0
    ran = federated.federation("upgrade")
    if ran.returncode == 9:  # the right to use postgres_fdw is no release's to grant
        assert "`federation bootstrap cloud" in ran.stderr
        bootstrap.apply(federated.config, "cloud")
        ran = federated.federation("upgrade")
    assert ran.returncode == 0, ran.stderr


def test_the_control_bootstrap_without_the_owners_statement_ends_nothing(
    federated: Deployment, world_writable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(federated, "local", world_writable, "--no-owner")
    monkeypatch.setattr("federation.administration.bootstrap.local.give_back", lambda *_: ())
    bootstrap.apply(federated.config, "local")
    assert federated.federation("status").returncode == 9
    monkeypatch.undo()
    federated.enter(monkeypatch)
    bootstrap.apply(federated.config, "local")
    assert federated.federation("status").returncode != 9


def test_the_control_repair_without_the_grants_leaves_them_missing(
    federated: Deployment, world_writable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(federated, "cloud", world_writable, "--no-acl")
    accept(federated.config, ["cloud"])
    with monkeypatch.context() as patched:
        patched.setattr("federation.lockstep.repair.grant_again", lambda *_: None)
        with suppress(VerificationFailed):
            repair(federated.config)
    assert any(one.what == "privilege" for one in check(federated.config))
    repair(federated.config)
    assert not [one for one in check(federated.config) if one.what in {"privilege", "grant"}]
