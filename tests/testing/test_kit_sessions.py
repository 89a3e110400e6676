"""The kit as its users have it: a pytest of their own, in another folder, with xdist, killed, on given servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import ordinary_user
import psycopg
import pytest
from deployments import ALL, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from waiting import until

from federation.servers import Binaries, Pair, Server

if TYPE_CHECKING:
    from conftest import Project

MANY = """
import pytest

@pytest.mark.parametrize("n", range({many}))
def test_alone(federation_pair, n):
    with federation_pair.as_user() as caller:
        assert caller.execute("SELECT count(*) FROM pets").fetchone() == (0,)
    federation_pair.load({{"pets": [{{"user_id": "00000000-0000-0000-0000-000000000001", "name": str(n)}}]}})
    with federation_pair.as_user() as caller:
        assert caller.execute("SELECT name FROM pets").fetchall() == [(str(n),)]
"""

HANGING = """
import os

import pytest

@pytest.mark.parametrize("n", range({many}))
def test_hangs(federation_pair, n):
    with open("servers", "a") as servers:
        for server in (federation_pair.servers.local, federation_pair.servers.cloud):
            servers.write(f"{{os.getpid()}} {{server.pid}} {{server.folder}}\\n")
    open("pipe").read()
"""

NOT_PAIRED = re.compile("^the chains do not pair up at 0002 — a release has a file of the same id", re.MULTILINE)


def runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.fixture
def given(binaries: Binaries) -> Iterator[dict[str, Server]]:
    """Two servers that run already, as a CI service's."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Server(binaries, superuser=superuser, memory=True))
            for name, superuser in (("local", "postgres"), ("cloud", "supabase_admin"))
        }


def options(given: dict[str, Server]) -> list[str]:
    return [f"--federation-{side}-server={server.url()}" for side, server in given.items()]


def databases(server: Server) -> set[str]:
    with server.connect() as session:
        return {name for (name,) in session.execute("SELECT datname FROM pg_database").fetchall()}


def test_the_examples_tests_and_the_checks_pass(project: Project, binaries: Binaries) -> None:
    done = project.pytest(f"--federation-pg={binaries.version}", "-W", "error", "--strict-markers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 passed" in done.stdout


def test_a_broken_chain_is_said_in_a_sentence(project: Project) -> None:
    (project.root / "versions" / "cloud" / "0002_chip.py").unlink()
    done = project.pytest("tests/test_federation.py")
    assert done.returncode == 1
    assert NOT_PAIRED.search(done.stdout)


def test_every_version_that_is_asked_for_is_run(project: Project, pytestconfig: pytest.Config) -> None:
    from federation.servers import find_binaries

    project.write("tests/test_one.py", "def test_one(federation_pair): pass\n")
    done = project.pytest("tests/test_one.py", "-vv", "--federation-pg=all")
    assert done.returncode == 0, done.stdout
    for binaries in find_binaries():
        assert f"test_one[{binaries.version}] PASSED" in done.stdout
    refused = project.pytest("tests/test_one.py", FEDERATION_TEST_PG="9.6")
    assert refused.returncode != 0
    assert "there is no such PostgreSQL server on this machine" in refused.stdout + refused.stderr


def test_a_test_for_other_versions_is_skipped_and_says_so(project: Project, binaries: Binaries) -> None:
    project.write(
        "tests/test_one.py",
        "import pytest\n@pytest.mark.federation(pg='>=99')\ndef test_one(federation_pair): pass\n",
    )
    done = project.pytest("tests/test_one.py", "-rs", f"--federation-pg={binaries.major}")
    assert f"needs PostgreSQL >=99, and this is {binaries.major}" in done.stdout


def test_many_tests_in_two_processes_do_not_meet(project: Project) -> None:
    many = 200 if ALL else 60
    project.write("tests/test_many.py", MANY.format(many=many))
    done = project.pytest("tests/test_many.py", "-n", "2")
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{many} passed" in done.stdout


@pytest.mark.parametrize("workers", [0, 2] if ALL else [0])  # pytest-xdist gives orphans 15 s to end
def test_a_killed_session_leaves_no_server_and_no_folder(project: Project, workers: int) -> None:
    processes = max(workers, 1)
    os.mkfifo(project.root / "pipe")
    project.write("tests/test_hangs.py", HANGING.format(many=processes))
    project.write("servers", "")
    command = project.command("tests/test_hangs.py", "-n", str(workers))

    def told() -> list[tuple[int, int, Path]]:
        lines = map(str.split, (project.root / "servers").read_text().splitlines())
        return [(int(process), int(server), Path(folder)) for process, server, folder in lines]

    with subprocess.Popen(command, cwd=project.root, env=project.environ, stdout=subprocess.DEVNULL) as session:
        try:
            until(lambda: session.poll() is not None or len(told()) == 2 * processes)
            found = told()
            assert len({process for process, _, _ in found}) == processes, "nothing is tested"
            assert all(runs(server) and folder.exists() for _, server, folder in found), "nothing is tested"
        finally:
            session.kill()
    until(lambda: not any(runs(process) or runs(server) or folder.exists() for process, server, folder in found))


def test_given_servers_are_used_by_two_processes_and_left_as_they_were(
    project: Project, given: dict[str, Server]
) -> None:
    before = {side: databases(server) for side, server in given.items()}
    project.write("tests/test_many.py", MANY.format(many=10))
    done = project.pytest("tests/test_many.py", "-n", "2", *options(given))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert {side: databases(server) for side, server in given.items()} == before


def test_what_a_killed_session_left_on_given_servers_is_dropped_by_the_next(
    project: Project, given: dict[str, Server]
) -> None:
    before = databases(given["local"])
    given["local"].create_database("federation_0123abcd_1_local")
    project.write("tests/test_one.py", "def test_one(federation_pair): pass\n")
    done = project.pytest("tests/test_one.py", *options(given))
    assert done.returncode == 0, done.stdout
    assert databases(given["local"]) == before


def test_a_server_with_roles_of_others_is_refused_and_keeps_their_passwords(
    project: Project, given: dict[str, Server]
) -> None:
    with given["local"].connect() as session:
        session.execute("CREATE ROLE hospital_owner LOGIN PASSWORD 'theirs'")
    project.write("tests/test_one.py", "def test_one(federation_pair): pass\n")
    done = project.pytest("tests/test_one.py", *options(given))
    assert "local: the server for tests has a role hospital_owner that the kit did not make" in done.stdout
    psycopg.connect(given["local"].url("hospital_owner", "theirs")).close()


def test_a_cloud_whose_superuser_is_postgres_is_refused(project: Project, pair: Pair) -> None:
    project.write("tests/test_one.py", "def test_one(federation_pair): pass\n")
    url = pair.local.url()
    done = project.pytest("tests/test_one.py", f"--federation-local-server={url}", f"--federation-cloud-server={url}")
    assert "POSTGRES_USER" in done.stdout
    alone = project.pytest("tests/test_one.py", f"--federation-local-server={url}")
    assert "only one of the two servers for tests is given" in alone.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


Required = dict[tuple[str, frozenset[str]], metadata.Distribution]
"""By name and extras, what pip would install."""


def require(distribution: metadata.Distribution, extras: set[str], found: Required) -> None:
    """Add to ``found`` what the distribution's metadata ask for with ``extras``, and what that asks for in its turn."""
    for requirement in map(Requirement, distribution.requires or ()):
        marker, key = requirement.marker, (canonicalize_name(requirement.name), frozenset(requirement.extras))
        asked = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})
        if asked and key not in found:
            found[key] = metadata.distribution(requirement.name)
            require(found[key], requirement.extras, found)


def unpacked(wheel: Path, folder: Path, without: str | None = None) -> Path:
    """The Python of a new virtual environment with the wheel, what its extra ``testing`` requires, and nothing else.

    What is required are links to ours, for speed. The requirement ``without`` is struck from the wheel's metadata.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:  # as pip does it: a pure wheel is unpacked
        archive.extractall(site)
    (told,) = site.glob("*.dist-info/METADATA")
    if without is not None:
        told.write_text(re.sub(rf"^Requires-Dist: {without}\b.*\n", "", told.read_text(), flags=re.MULTILINE))
    required: Required = {}
    require(metadata.Distribution.at(told.parent), {"testing"}, required)
    for distribution in required.values():
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(distribution.locate_file(name)))
    return folder / "bin" / "python"


def installed(wheel: Path, folder: Path) -> Path:
    """The Python of a new virtual environment into which pip has installed the wheel with its extra ``testing``."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[testing]"], check=True
    )
    return python


@pytest.mark.parametrize("made", [unpacked, installed] if ALL else [unpacked])
def test_a_project_elsewhere_has_the_kit_from_the_wheel(
    project: Project, wheel: Path, tmp_path: Path, made: Callable[[Path, Path], Path]
) -> None:
    project.python = str(made(wheel, tmp_path / "venv"))
    where = subprocess.run(
        [
            project.python,
            "-c",
            "import federation.cli.demo; from federation.servers.binaries import _wheel_bindirs\n"
            "print(federation.__file__, *_wheel_bindirs())",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=project.root,
    )
    ours, programs = where.stdout.split()
    assert ours.startswith(str(tmp_path)), "it is the repository's, and nothing is tested"
    assert (Path(programs) / "postgres").exists()
    done = project.pytest()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 passed" in done.stdout
    (project.root / "versions" / "local" / "0002_chip.py").unlink()
    broken = project.pytest("tests/test_federation.py")
    assert broken.returncode == 1
    assert NOT_PAIRED.search(broken.stdout)


def test_there_a_requirement_that_the_wheel_does_not_name_is_missing(
    project: Project, wheel: Path, tmp_path: Path
) -> None:
    """The negative control."""
    project.python = str(unpacked(wheel, tmp_path / "venv", without="pytest-postgresql"))
    done = project.pytest()
    assert done.returncode != 0
    assert "No module named 'pytest_postgresql'" in done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_it_runs_for_an_ordinary_user(project: Project) -> None:
    command = project.command("tests/test_clinic.py")
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to others, anew by each session
        Path(name).chmod(0o755)
        root = shutil.copytree(project.root, Path(name) / "project")
        done = ordinary_user.run(command[1:], root, project.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_what_is_wrong_with_the_settings_is_a_sentence_without_a_traceback(project: Project) -> None:
    text = project.toml.read_text()
    project.toml.write_text(text.replace("exported", "exportd", 1))
    done = project.pytest("tests/test_federation.py")
    assert "tables.exportd" in done.stdout
    assert not re.search(r"\.py:\d", done.stdout)
    project.toml.unlink()
    done = project.pytest("tests/test_federation.py")
    assert "there is no " in done.stdout
    assert "--federation-config" in done.stdout
    assert not re.search(r"\.py:\d", done.stdout)


def test_what_a_test_has_no_pair_for_is_a_sentence_without_a_traceback(project: Project) -> None:
    project.write("pytest.ini", (project.root / "pytest.ini").read_text() + "federation_local_load = missing.sql\n")
    markers = ("release='0009'", "relase='0001'", "'0001'", "pg='fifteen'", "", "release='0002', local='0001'")
    project.write(
        "tests/test_one.py",
        "import pytest\n"
        + "".join(
            f"@pytest.mark.federation({marker})\ndef test_{n}(federation_pair): pass\n"
            for n, marker in enumerate(markers)
        ),
    )
    done = project.pytest("tests/test_one.py")
    assert f"{len(markers)} errors" in done.stdout
    assert not re.search(r"\.py:\d", done.stdout)
    assert "there is no release 0009" in done.stdout
    assert "a hospital at 0001 does not have what a cloud at 0002 needs" in done.stdout
    assert "and nothing else: federation(relase='0001')" in done.stdout
    assert "and nothing else: federation('0001')" in done.stdout
    assert "the marker's pg='fifteen' is no version" in done.stdout
    assert "missing.sql cannot be run (" in done.stdout


def test_sql_files_are_run_on_the_empty_databases(project: Project) -> None:
    """By their owners, before the first release."""
    ini = (project.root / "pytest.ini").read_text()
    project.write("pytest.ini", ini + "federation_local_load = a.sql b.sql\nfederation_cloud_load = a.sql\n")
    project.write("a.sql", "CREATE TABLE owners (name text)")
    project.write("b.sql", "INSERT INTO owners VALUES ('Asha'); INSERT INTO owners VALUES ('Ravi')")
    project.write(
        "tests/test_one.py",
        "import pytest\n@pytest.mark.federation(release='base')\ndef test_one(federation_pair):\n"
        "    for side, rows in (('local', 2), ('cloud', 0)):\n"
        "        assert federation_pair.owner(side).execute('SELECT FROM owners').rowcount == rows\n",
    )
    done = project.pytest("tests/test_one.py")
    assert done.returncode == 0, done.stdout
