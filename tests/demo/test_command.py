"""`federation demo` as a user runs it: what it tells, what it checks, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from pages import first_missing
from waiting import until

from federation.servers import find_binaries

ROOT = Path(__file__).parents[2]
FOUND = find_binaries()
PATIENCE = 120
"""Seconds, for a whole demo on a busy machine; a hang is what is to be found."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
    return kept | {"FEDERATION_PG_BIN": str(FOUND[0].bindir)} | dict(extra)


def demo(*arguments: str, cwd: Path = ROOT, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "federation", "demo", *arguments],
        cwd=cwd,
        env=environment(extra),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


CASE = """
from federation.demo import Read, Table

def tables(site):
    yield Table("hospital_patients", ("hospital_id", "name"), [(site, "Asha"), (site, "Ravi")], 2)

reads = (
    Read("patients", "SELECT count(*) FROM hospital_patients", 2, counts=True),
    {read},
)
"""


def small(folder: Path, read: str = 'Read("one", "SELECT name FROM hospital_patients LIMIT 1", 1)') -> Path:
    """BeanHealth's chains with two patients, and ``read`` for a second query."""
    folder.mkdir()
    shutil.copy(ROOT / "alembic.ini", folder)
    (folder / "versions").symlink_to(ROOT / "versions")
    (folder / "small_demo.py").write_text(CASE.format(read=read))
    toml = (ROOT / "federation.toml").read_text().replace('"versions.demo"', '"small_demo"')
    (folder / "federation.toml").write_text(toml)
    return folder


@contextmanager
def running(folder: Path, *arguments: str, cwd: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    """The command with its servers' folders below ``folder``; killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "federation", "demo", *arguments],
        cwd=cwd,
        env=environment({"TMPDIR": str(folder)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(output: str) -> list[list[str]]:
    """The cells of the plain lines: two blanks stand between them."""
    return [re.split(r" {2,}", line.strip()) for line in output.splitlines()]


@pytest.fixture(scope="module")
def told() -> subprocess.CompletedProcess[str]:
    """What it prints without a terminal."""
    return demo()


def test_without_a_terminal_it_tells_its_story_in_plain_lines(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    assert "\x1b" not in told.stdout
    assert not set(told.stdout) & set("│╭─━")
    cells = lines(told.stdout)
    assert ["hospital_patients", "20,000 rows"] in [line[:2] for line in cells]
    assert ["hospital_queues", "80,000 rows"] in [line[:2] for line in cells]
    patients = next(line for line in cells if line[0] == "all patients")
    assert patients[1] == "20,000 rows"
    assert patients[-2:] == ["0 rows", "permission denied"]
    assert ["release", "0004", "0004"] in cells
    assert [line[0] for line in cells if line[0].startswith("↓")] == ["↓ 0004 cloud", "↓ 0004 local"]


def test_the_readme_shows_what_it_prints(told: subprocess.CompletedProcess[str]) -> None:
    (shown,) = re.findall(
        r"^<!-- from: federation demo -->\n```text\n(.*?)^```$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )

    def timeless(text: str) -> str:
        return re.sub(r"\d+\.\d+ (?=m?s\b)", "N ", re.sub(" +", " ", text))

    missing = first_missing(timeless(shown).splitlines(), timeless(told.stdout))
    assert missing is None, f"the README says {missing!r} and not\n{told.stdout}"


def test_json_is_one_object_with_what_every_caller_saw() -> None:
    other = FOUND[-1]  # another version, where there is one
    told = demo("--json", FEDERATION_PG_BIN=str(other.bindir))
    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    assert seen["schema_version"] == 1
    assert seen["servers"] == {"local": other.version, "cloud": other.version}
    assert seen["loaded"] == {"hospital_patients": 20_000, "hospital_queues": 80_000}
    assert [run["release"] for run in seen["runs"]] == ["0004", "0003", "0004"]
    assert all(read["rows"] for read in seen["reads"] if read["caller"] == "this hospital")
    assert {read["rows"] for read in seen["reads"] if read["caller"] == "another hospital"} == {0}
    assert {read["rows"] for read in seen["reads"] if read["caller"] == "anon"} == {None}
    assert " LIMIT 5" in seen["sent"]["sql"]
    assert " JOIN " in seen["sent"]["sql"]
    assert seen["sent"]["rows_fetched"] == 5
    assert (seen["status"]["local"], seen["status"]["cloud"], seen["status"]["state"]) == ("0004", "0004", "whole")
    assert "environment" not in seen
    assert "1. " in told.stderr


def test_keep_prints_exports_that_work_until_ctrl_c(tmp_path: Path, world_writable: Path) -> None:
    with running(world_writable, "--keep", cwd=small(tmp_path / "small")) as process:
        assert process.stdout is not None
        exports = [process.stdout.readline() for _ in range(8)]
        environ = dict(shlex.split(line)[1].split("=", 1) for line in exports)
        assert all(line.startswith("export FEDERATION_") for line in exports)
        with psycopg.connect(environ["FEDERATION_LOCAL_URL"]) as connection:
            assert connection.execute("SELECT count(*) FROM hospital_patients").fetchone() == (2,)
        status = subprocess.run(
            [sys.executable, "-m", "federation", "status", "--json"],
            cwd=ROOT,
            env=environment(environ),
            capture_output=True,
            check=True,
        )
        assert json.loads(status.stdout)["state"] == "whole"
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=PATIENCE)
        assert (process.returncode, rest) == (130, ""), told
        assert "until Ctrl-C" in told
        assert "Traceback" not in told
    assert list(world_writable.iterdir()) == []
    for side in ("LOCAL", "CLOUD"):
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", urlsplit(environ[f"FEDERATION_{side}_URL"]).port)) != 0


@pytest.mark.parametrize("chapter", ["1.", "4."])
def test_ctrl_c_in_the_middle_leaves_nothing_and_no_traceback(
    tmp_path: Path, world_writable: Path, chapter: str
) -> None:
    with running(world_writable, cwd=small(tmp_path / "small")) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(chapter):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, told
    assert told == "federation: interrupted; both servers are gone\n"
    if chapter == "1.":
        # It did not know the folder's name yet, and leaves it to the guardian.
        until(lambda: not list(world_writable.iterdir()), seconds=PATIENCE)
    assert list(world_writable.iterdir()) == []


WRONG = {
    "another hospital sees a row": 'Read("odd", "SELECT 1")',
    "anon is let in": """Read("odd", "SELECT 1 WHERE current_user = 'anon'", 0)""",
    "more is fetched than asked for": 'Read("odd", "SELECT name FROM hospital_patients '
    "WHERE substr(name, 1 + (random() * 0)::int, 1) = 'A'\", 1, explained=True)",
}


@pytest.mark.parametrize("read", WRONG.values(), ids=WRONG)
def test_it_fails_when_what_is_seen_is_not_what_must_be_seen(tmp_path: Path, read: str) -> None:
    told = demo("--json", cwd=small(tmp_path / "small", read))
    assert told.returncode == 7, told.stderr
    error = json.loads(told.stdout)
    assert error["error"] == "VerificationFailed"
    assert "“odd”" in error["message"]


def test_without_rows_of_its_own_a_deployment_has_no_demo(tmp_path: Path) -> None:
    told = demo(cwd=tmp_path)
    assert told.returncode == 9
    assert "[demo] module" in told.stderr


def test_on_a_terminal_it_has_colours_tables_and_a_bar(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "federation", "demo"],
        cwd=small(tmp_path / "small"),
        env=environment({"TERM": "xterm-256color", "COLUMNS": "70"}),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output, deadline = b"", time.monotonic() + PATIENCE
    with process:
        while time.monotonic() < deadline and select.select([ours], [], [], PATIENCE)[0]:
            try:
                output += os.read(ours, 65536)
            except OSError:  # Linux's end of file: nobody holds the other end
                break
    os.close(ours)
    text = output.decode()
    assert process.returncode == 0
    assert "\x1b[" in text
    assert "╭" in text
    assert "━" in text
    bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()
    assert max(map(len, (line.rsplit("\r", 1)[-1] for line in bare))) <= 75
