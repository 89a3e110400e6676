"""What a terminal of 80 columns shows: ids and times are whole, and nothing is cut."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from click.testing import CliRunner

from federation.administration import accounts
from federation.cli import main, output
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from deployments import Deployment

SUBS = [UUID(int=number) for number in (0xA1, 0xA2)]


@pytest.fixture(params=[80, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal of that width, without colours."""
    width: int = request.param
    monkeypatch.setattr(output, "out", output._Console(width=width, force_terminal=True, color_system=None))
    return width


def screen(*words: str) -> list[str]:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def test_accounts_and_history_are_not_cut(
    deployment: Deployment, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.enter(monkeypatch)
    upgrade(deployment.config, "0001")
    for sub in SUBS:
        accounts.add(deployment.config, sub, {"clinic": "a long name of a clinic in a far away town"})
    lines = screen("account", "list")
    assert all(any(line.startswith(str(sub)) for line in lines) for sub in SUBS)
    history = screen("history")
    assert sum(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", line) is not None for line in history) == 2
    for line in lines + history:
        assert "…" not in line
        assert len(line.rstrip()) <= columns
    assert len(screen("history", "--last", "1")) < len(history)
