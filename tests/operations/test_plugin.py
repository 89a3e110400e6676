"""The entry point loads in every order of imports, and what breaks it does not break plain Alembic."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

MODULES = ("alembic", "alembic.command", "alembic.op", "federation", "federation.operations", "federation.plugin")

# As a broken installation has it: importing the operations raises.
BREAKING = """
import sys
from importlib.abc import MetaPathFinder
class Broken(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "federation.operations.views":
            raise ImportError("no module named half of it")
sys.meta_path.insert(0, Broken())
"""

ENV = """
from alembic import context
from sqlalchemy import create_engine
with create_engine("sqlite:///app.db").connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
"""

MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("t", sa.Column("id", sa.Integer, primary_key=True))
def downgrade():
    op.drop_table("t")
"""


def python(code: str, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_the_entry_point_names_the_plugin() -> None:
    (entry,) = metadata.entry_points(group="alembic.plugins", name="federation")
    assert entry.value == "federation.plugin"


@pytest.mark.parametrize("first", [*MODULES, "federation.drift", "federation.op", "federation.environments.runtime"])
def test_it_loads_whatever_is_imported_first(first: str) -> None:
    """One process for each first module: what follows is imported in both directions."""
    code = f"""
import {first}, importlib
for name in {MODULES!r} + {MODULES[::-1]!r}:
    importlib.import_module(name)
from alembic import op
import federation.plugin
from alembic.runtime.plugins import Plugin
assert federation.plugin.failure is None, federation.plugin.failure
assert callable(op.create_rls_view)
Plugin.populate_autogenerate_priority_dispatch(
    __import__("alembic.util").util.PriorityDispatcher(), ["alembic.autogenerate.*", "federation"])
"""
    result = python(code, "-W", "error")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("first", ["alembic", "federation", "federation.plugin"])
def test_a_broken_plugin_says_so_once_and_alembic_goes_on(first: str) -> None:
    code = (
        f"{BREAKING}\nimport {first}, alembic.command, federation.plugin as plugin\nassert plugin.failure is not None"
    )
    result = python(code, "-W", "error")
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert "no module named half of it" in line
    assert "pip install --force-reinstall alembic-federation" in line


@pytest.fixture
def unrelated(tmp_path: Path) -> Path:
    """A project on SQLite that knows nothing of federation."""
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/scripts\npath_separator = os\n")
    (tmp_path / "scripts" / "versions").mkdir(parents=True)
    (tmp_path / "scripts" / "env.py").write_text(ENV)
    (tmp_path / "scripts" / "script.py.mako").write_text("")
    (tmp_path / "scripts" / "versions" / "0001_t.py").write_text(MIGRATION)
    return tmp_path


@pytest.mark.parametrize("broken", ["", BREAKING], ids=["working", "broken"])
def test_an_unrelated_project_migrates_with_the_plugin_working_or_broken(unrelated: Path, broken: str) -> None:
    run = "from alembic.config import main\nfor words in (['upgrade', 'head'], ['check'], ['downgrade', 'base']):\n"
    code = f"{broken}\n{run}    try: main(argv=words)\n    except SystemExit as ended: assert words == ['check']\n"
    result = python(code, cwd=unrelated)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert ("federation:" in result.stderr) == bool(broken)


def test_federations_own_environment_fails_with_the_reason_when_the_plugin_is_broken() -> None:
    root = Path(__file__).parent.parent.parent
    code = f"{BREAKING}\nfrom alembic.config import main\nmain(argv=['-n', 'local', 'upgrade', 'head', '--sql'])"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=clean)
    assert result.returncode != 0
    assert result.stderr.startswith("federation: its Alembic plugin does not load")
    assert "no module named half of it" in result.stderr.splitlines()[-1]
    assert "CREATE" not in result.stdout
