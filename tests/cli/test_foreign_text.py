"""Text from the databases is shown as it is: no markup of it is read, and no control character drives a terminal."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from rich.console import Console
from rich.errors import MarkupError

from federation.server_text import printable

if TYPE_CHECKING:
    from deployments import Deployment

TITLE = "\x1b]0;owned\x07"
RED = "\x1b[31m"
CSI = "\x9b31m"
BACKWARDS = "\u202e"
HOSTILE = rf"see [/doc] \[/y] [red]x[/] :smile: {TITLE}{RED}{CSI}{BACKWARDS}" + "\rfederation: done\nfederation: done"

COLOURED = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}


def is_harmless(text: str) -> bool:
    """Whether no control character of ``HOSTILE`` came through; colours of the toolkit's own may be there."""
    return not any(part in text for part in (TITLE, "\x07", CSI, BACKWARDS, "\r", "\x1b[31mx"))


def write_history(deployment: Deployment) -> None:
    with deployment.owner("cloud") as owner:
        owner.execute(
            "INSERT INTO federation.history "
            "(from_release, to_release, result, started_at, finished_at, role, override) "
            "VALUES ('0003', '0004', 'stamped', now(), now(), %s, %s)",
            [HOSTILE, HOSTILE],
        )


@pytest.mark.claim("S36")
@pytest.mark.parametrize("environ", [{}, COLOURED], ids=["piped", "on a terminal"])
def test_the_history_shows_a_reason_as_it_was_written(federated: Deployment, environ: dict[str, str]) -> None:
    write_history(federated)
    shown = federated.federation("history", **environ)
    assert shown.returncode == 0, shown.stderr
    assert r"see [/doc] \[/y] [red]x[/] :smile: \x1b]0;owned\x07" in shown.stdout.replace("\n", " ")
    assert is_harmless(shown.stdout)


@pytest.mark.claim("S36")
def test_json_is_one_object_on_one_line_and_gives_the_text_back(federated: Deployment) -> None:
    write_history(federated)
    shown = federated.federation("history", "--json")
    assert is_harmless(shown.stdout)
    assert json.loads(shown.stdout)["history"][-1]["override"] == HOSTILE


@pytest.mark.claim("S36")
@pytest.mark.parametrize("environ", [{}, COLOURED], ids=["piped", "on a terminal"])
def test_a_name_in_an_error_neither_crashes_nor_drives_the_terminal(
    federated: Deployment, environ: dict[str, str]
) -> None:
    name = HOSTILE[:60]
    with federated.owner("cloud") as caller:
        caller.execute(
            sql.SQL("CREATE VIEW public.{} AS SELECT id FROM public.hospital_patients").format(sql.Identifier(name))
        )
    stopped = federated.federation("downgrade", "base", "--yes", **environ)
    assert stopped.returncode == 8, stopped.stderr
    assert r"[/doc] \[/y] [red]x[/]" in stopped.stderr
    assert is_harmless(stopped.stderr)
    assert "Traceback" not in stopped.stderr
    by_alembic = federated.alembic("cloud", "downgrade", "base")
    assert by_alembic.returncode == 8
    assert is_harmless(by_alembic.stderr)
    checked = federated.federation("check", **environ)
    assert is_harmless(checked.stdout + checked.stderr)
    assert "Traceback" not in checked.stderr


def test_the_control_a_plain_console_crashes_and_lets_the_rest_through() -> None:
    file = io.StringIO()
    plain = Console(file=file)
    with pytest.raises(MarkupError):
        plain.print(HOSTILE)
    plain.print(HOSTILE, markup=False)
    assert not is_harmless(file.getvalue())


def test_letters_of_every_script_stay_what_they_are() -> None:
    for text in ("Ärztin Åsa", "आशा वर्मा", "علی‌رضا", "王小明", "👩‍⚕️"):
        assert printable(text) == text
