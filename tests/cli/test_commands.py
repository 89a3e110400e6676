"""The command line: usage, JSON and exit codes as the interface says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from deployments import copy_root

from federation.cli import main
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment

COMMANDS = sorted(main.list_commands(main.make_context("federation", [], resilient_parsing=True)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_usage_errors_exit_with_2() -> None:
    for words in (
        ["nonsense"],
        ["bootstrap"],
        ["bootstrap", "elsewhere"],
        ["downgrade"],
        ["plan", "--chek"],
        ["downgrade", "--yess", "base"],
        ["upgrade", "--on-failure=x"],
    ):
        assert CliRunner().invoke(main, words).exit_code == 2, words


@pytest.mark.parametrize("words", ["plan", "status", "upgrade", "downgrade base --yes", "revision -m x"])
@pytest.mark.parametrize(
    ("line", "error"), [("def f(:", "SyntaxError"), ("import nothing_here", "ModuleNotFoundError")]
)
def test_a_file_that_is_no_migration_is_named(
    deployment: Deployment, tmp_path: Path, words: str, line: str, error: str
) -> None:
    deployment.root = copy_root(tmp_path)
    (file,) = tmp_path.glob("versions/cloud/0003_*.py")
    file.write_text(f"{file.read_text()}{line}\n")
    result = deployment.federation(*words.split())
    assert result.returncode == 8
    assert result.stderr.startswith("federation: cloud: a file of the chain cannot be imported (")
    assert str(file) in result.stderr
    assert error in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_downgrade_without_a_terminal_needs_yes(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    assert deployment.federation("downgrade", "base").returncode == 2
    assert deployment.federation("downgrade", "-1", "--yes").returncode == 0


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (
            ("status",),
            {"local", "cloud", "head", "state", "mark", "next", "compared", "edited", "set_back", "missing"}
            | {"errors", "drift"},
        ),
        (("plan",), {"steps", "sha256"}),
        (("upgrade",), {"release", "steps"}),
        (("history",), {"history"}),
        (("account", "list"), {"accounts"}),
        (("bootstrap", "local"), {"side", "applied", "sql"}),
        (("bootstrap", "cloud", "--apply"), {"side", "applied", "done", "present", "notes"}),
        (("link", "apply"), {"server", "address", "mappings", "proved"}),
    ],
)
def test_json_is_one_object_with_a_schema_version(
    federated: Deployment, words: tuple[str, ...], keys: set[str]
) -> None:
    result = federated.federation(*words, "--json")
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen.pop("schema_version") == 1
    assert set(seen) == keys


def test_status_exits_with_4_while_the_databases_differ(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    assert deployment.federation("status").returncode == 0
    assert deployment.alembic("local", "upgrade", "0002").returncode == 0
    result = deployment.federation("status")
    assert result.returncode == 4
    assert "next: federation upgrade 0002" in result.stdout
    assert deployment.federation("upgrade", "0002").returncode == 0
    assert deployment.federation("status").returncode == 0


def test_accounts_are_kept_by_the_command(federated: Deployment) -> None:
    sub = "00000000-0000-0000-0000-000000000009"
    assert federated.federation("account", "add", sub, "--claims", '{"clinic_id": "c1"}').returncode == 0
    listed = json.loads(federated.federation("account", "list", "--json").stdout)["accounts"]
    assert {"sub": sub, "role": "authenticated", "clinic_id": "c1"} in [account["claims"] for account in listed]
    assert federated.federation("account", "add", sub, "--claims", "[1]").returncode == 8
    assert federated.federation("account", "remove", sub).returncode == 0


def test_a_run_by_another_holds_with_5(federated: Deployment) -> None:
    with federated.owner("local") as owner:
        owner.execute("SELECT pg_advisory_lock(%s)", [0x666564_6572617465])
        result = federated.federation("downgrade", "base", "--yes")
    assert result.returncode == 5
    assert "another federation run" in result.stderr


def test_a_terminal_that_cannot_show_arrows_stops_nothing(deployment: Deployment) -> None:
    result = deployment.federation("upgrade", "0001", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr


def test_the_module_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "federation", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("federation, version ")


INTERRUPTED_IN_A_DESTRUCTOR = """
import click, os, signal, threading
from federation.cli.output import Result, common

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(60)

@click.command()
@common
def command(config):
    Dropped()
    threading.Event().wait(60)
    return Result({}, "not interrupted")

command()
"""


def test_ctrl_c_in_a_destructor_which_python_drops_ends_the_command() -> None:
    told = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_A_DESTRUCTOR], capture_output=True, text=True, timeout=90, check=False
    )
    assert (told.returncode, told.stdout, told.stderr) == (130, "", "federation: interrupted\n")


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    result = CliRunner().invoke(main, ["stauts"])
    assert result.exit_code == 2
    assert "No such command 'stauts'. Did you mean status?" in result.stderr
    assert "Did you mean" not in CliRunner().invoke(main, ["nonsense"]).stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import nothere", "ModuleNotFoundError: No module named 'nothere'"),
        ("def f(:", "SyntaxError in "),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_models_that_cannot_be_imported_say_why(deployment: Deployment, tmp_path: Path, line: str, said: str) -> None:
    deployment.root = copy_root(tmp_path)
    (tmp_path / "broken_models.py").write_text(f"{line}\n")
    toml = tmp_path / "federation.toml"
    toml.write_text(toml.read_text().replace("versions.models:metadata", "broken_models:metadata"))
    result = deployment.federation("revision", "-m", "x", "--autogenerate")
    assert result.returncode == 9
    assert result.stderr.startswith(
        f"federation: tables.metadata names broken_models:metadata, which cannot be imported ({said}"
    )
    assert len(result.stderr.splitlines()) == 1


def test_a_env_file_is_read_and_said_so(deployment: Deployment, tmp_path: Path) -> None:
    deployment.root = copy_root(tmp_path)
    site = deployment.environ["FEDERATION_SITE_ID"]
    (tmp_path / ".env").write_text(f"FEDERATION_SITE_ID={site}\n")
    result = deployment.federation("status", "--json", FEDERATION_SITE_ID="")
    assert result.stderr.startswith("federation: reading ")
    assert json.loads(result.stdout)["local"] == "base"
