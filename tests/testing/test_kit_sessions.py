"""The kit as its users have it: a pytest of their own, in another folder, with xdist, killed, on given servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import ordinary_user
import psycopg
import pytest
from deployments import ALL, ROOT

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
def test_hangs(federation_pair, capfd):
    with capfd.disabled():
        for server in (federation_pair.servers.local, federation_pair.servers.cloud):
            print("SERVER", server.pid, server.folder, flush=True)
    input_ = open({pipe!r})
    input_.read()
"""


NOT_PAIRED = re.compile("^the chains do not pair up at 0002 — a release has a file of the same id", re.MULTILINE)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


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
            name: stack.enter_context(Server(binaries, superuser=superuser))
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


def test_a_killed_session_leaves_no_server_and_no_folder(project: Project, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    project.write("tests/test_hangs.py", HANGING.format(pipe=str(pipe)))
    with subprocess.Popen(
        project.command("tests/test_hangs.py"), cwd=project.root, env=project.environ, stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        servers = []
        for line in session.stdout:
            if line.startswith("SERVER"):
                _, pid, folder = line.split()
                servers.append((int(pid), Path(folder)))
            if len(servers) == 2:
                break
        assert all(runs(pid) and folder.exists() for pid, folder in servers), "nothing is tested"
        session.send_signal(signal.SIGKILL)
        session.wait()
    until(lambda: not any(runs(pid) or folder.exists() for pid, folder in servers))


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


@pytest.fixture(scope="session")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a new virtual environment with the wheel in it.

    What it depends on is read from ours, for speed; the toolkit is not, since an editable install is a .pth file, which
    counts in an environment's own folder only.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:  # as pip does it: a pure wheel is unpacked
        archive.extractall(site)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(f"{ours}\n")
    return str(folder / "bin" / "python")


def test_a_project_elsewhere_has_the_kit_from_the_wheel(project: Project, elsewhere: str) -> None:
    project.python = elsewhere
    where = subprocess.run(
        [elsewhere, "-c", "import federation; print(federation.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=project.root,
    )
    assert where.stdout.startswith(str(Path(elsewhere).parents[1])), "it is the repository's, and nothing is tested"
    done = project.pytest()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 passed" in done.stdout
    (project.root / "versions" / "local" / "0002_chip.py").unlink()
    broken = project.pytest("tests/test_federation.py")
    assert broken.returncode == 1
    assert NOT_PAIRED.search(broken.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_it_runs_for_an_ordinary_user(project: Project) -> None:
    for folder in (project.root, *project.root.parents):
        if folder == Path("/tmp"):  # noqa: S108
            break
        folder.chmod(0o755)
    command = project.command("tests/test_clinic.py")
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    done = ordinary_user.run(command[1:], project.root, project.environ | {"PYTHONPATH": path})
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
    markers = ("release='0009'", "relase='0001'", "'0001'", "pg='fifteen'", "")
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
