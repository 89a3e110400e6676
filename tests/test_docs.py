"""The pages do what they say: each command in docs/ is run, in the page's order, in one shell.

A ```console block holds commands (``$ …``), lines that they print, in this order (``…`` stands for anything, on a line
of its own for any lines) and ``# exit N`` where the code is not 0. Such lines in an HTML comment are run and not shown.
A ```sh block is not run, and ``<!-- not run -->`` above it says so.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from deployments import ROOT, copy_root
from pages import first_missing
from prepared import prepared

from federation import config, errors
from federation.administration import bootstrap
from federation.cli import main
from federation.config import Config
from federation.servers import Pair

README = ROOT / "README.md"
BLOB = "https://github.com/alembic-federation/alembic-federation/blob/main/"
RAW = "https://raw.githubusercontent.com/alembic-federation/alembic-federation/main/"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, *DOCS]
BEFORE_BOOTSTRAP = {"adopt"}
"""Pages that begin on servers that nobody has prepared; the others begin at base."""


@dataclass
class Command:
    """A command of a page, and what the page says that it does."""

    text: str
    shown: list[str] = field(default_factory=list)
    exit_code: int = 0


def commands(page: str) -> list[Command]:
    """The commands of a page, in its order."""
    found: list[Command] = []
    for console, comment in re.findall(
        r"^```console\n(.*?)^```$|^<!--[^\n]*\n(\$.*?)^-->$", page, re.MULTILINE | re.DOTALL
    ):
        lines = (console or comment).splitlines()
        assert lines[0].startswith("$ "), lines[0]
        for line in lines:
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            elif line.startswith("# exit "):
                found[-1].exit_code = int(line.split()[2])
            else:
                found[-1].shown.append(line)
    return found


def run(page: list[Command], pair: Pair, folder: Path) -> list[tuple[int, str]]:
    """Exit code and output of each command, in one shell, up to the first that ends otherwise than said."""
    script = "".join(
        f"{{ {command.text}\n}} >{folder}/{n}.out 2>&1 </dev/null\n"
        f"echo $? >{folder}/{n}.code; [ $(cat {folder}/{n}.code) = {command.exit_code} ] || exit 1\n"
        for n, command in enumerate(page)
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FEDERATION_", "PG"))}
    scripts = folder / "scripts"  # in place of those that start Python anew
    scripts.mkdir()
    for name in ("alembic", "federation"):
        (scripts / name).write_text(prepared().script(name))
        (scripts / name).chmod(0o755)
    programs = [scripts, Path(sys.executable).parent, pair.local.binaries.program("psql").parent]
    path = os.pathsep.join([*map(str, programs), clean["PATH"]])
    (folder / "repository").mkdir()
    subprocess.run(
        ["bash", "-c", script],
        cwd=copy_root(folder / "repository"),
        env=clean | pair.environment() | {"PATH": path, "COLUMNS": "120"},
        check=False,
        timeout=300,
    )
    done = [(folder / f"{n}.code", folder / f"{n}.out") for n in range(len(page))]
    return [(int(code.read_text()), output.read_text()) for code, output in done if code.exists()]


def run_page(page: Path, folder: Path) -> list[tuple[int, str]]:
    with Pair(memory=True) as pair:
        if page.stem not in BEFORE_BOOTSTRAP:
            settings = Config.load(ROOT / "federation.toml", pair.environment())
            bootstrap.apply(settings, "local")
            bootstrap.apply(settings, "cloud")
        return run(commands(page.read_text()), pair, folder)


@pytest.mark.parametrize("page", [page for page in DOCS if commands(page.read_text())], ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    ran = run_page(page, tmp_path)
    said = commands(page.read_text())
    for command, (code, output) in zip(said, ran, strict=False):
        assert code == command.exit_code, f"{command.text}\n{output}"
        missing = first_missing(command.shown, output)
        assert missing is None, f"{command.text}\nsays {missing!r} and not\n{output}"
    assert len(ran) == len(said)


def test_a_page_that_says_something_else_would_be_seen() -> None:
    page = commands("<!-- before\n$ one\n-->\n```console\n$ two\nfirst\n…\nthi…\n# exit 3\n```\n")
    assert page == [Command("one"), Command("two", ["first", "…", "thi…"], 3)]
    assert first_missing(page[1].shown, "first\nsecond\nthird\n") is None
    assert first_missing(page[1].shown, "third\nfirst\n") == "thi…"
    assert first_missing(page[1].shown, "a first\nthird\n") == "first"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_run_or_says_that_it_is_not(page: Path) -> None:
    text = page.read_text()
    kinds = re.findall(r"^```(\w*)\n.*?^```$", text, re.MULTILINE | re.DOTALL)
    if page == README:  # how to install it, the two commands of a clone, and what the first one prints
        assert kinds == ["sh", "text"]
    else:
        assert set(kinds) <= {"console", "sh"}
        assert kinds.count("sh") == text.count("<!-- not run -->\n```sh\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_named_in_a_page_exists(page: Path) -> None:
    for span in re.findall(r"`federation ([^`]+)`", page.read_text()):
        command: click.Command = main
        for word in re.findall(r"[\w-]+", span.replace("…", "")):
            if isinstance(command, click.Group):
                found = command.get_command(click.Context(command), word)
                assert found is not None, f"federation {span}"
                command = found
            elif word.startswith("--"):
                assert any(word in option.opts for option in command.params), f"federation {span}"


def test_every_key_of_federation_toml_is_explained() -> None:
    text = (ROOT / "docs" / "own-app.md").read_text().partition("## federation.toml")[2]
    models = (
        config.LinkConfig,
        config.RolesConfig,
        config.TablesConfig,
        config.PolicyConfig,
        config.AccountsConfig,
        config.DatabaseConfig,
    )
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert keys - set(re.findall(r"\w+", text)) <= {"password", "service_password"}  # which are never in it


def test_the_readme_names_every_command() -> None:
    named = set(re.findall(r"^\| `federation (\w+)", README.read_text(), re.MULTILINE))
    assert named == set(main.list_commands(click.Context(main)))


def test_the_readmes_exit_codes_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? ?\|", README.read_text(), re.MULTILINE)
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    raised = {
        str(kind.exit_code): kind.__name__ for kind in classes if errors.FederationError in {kind, *kind.__bases__}
    }
    assert dict(rows) == raised | {"0": "", "2": ""}
    assert len(rows) == len(dict(rows))


def test_the_readme_names_every_variable() -> None:
    (table,) = re.findall(r"^\| variable .*?\n\n", README.read_text(), re.MULTILINE | re.DOTALL)
    first_column = " ".join(row.split("|")[1] for row in table.splitlines() if row)
    assert set(re.findall(r"FEDERATION_\w+", first_column)) == {*config._VARIABLES, "FEDERATION_PG_BIN"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_and_page_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        functions = [
            node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        assert not name or name in functions, f"{file}::{name}"
    for target in re.findall(
        rf"(?:\]\(|^\[[\w-]+\]: )({BLOB}[^)\s]+|{RAW}[^)\s]+|(?!https?:)[^)\s]+)", text, re.MULTILINE
    ):
        file, _, anchor = target.partition("#")
        inside = file.removeprefix(BLOB).removeprefix(RAW)
        linked = page if not file else page.parent / file if inside == file else ROOT / inside
        if linked.suffix != ".md":
            assert linked.exists(), target
            continue
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, target


def sentences(page: str) -> list[str]:
    """The sentences of a page's prose: no code, no table, no heading, and a span of code is one word."""
    prose = re.sub(r"^(```|~~~~)\w*\n.*?^\1$|<!--.*?-->|^\|.*?$|^#.*?$", "\n", page, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(
        r"^\[[\w-]+\]: .*$|`[^`]+`", lambda found: "code" if found[0][0] == "`" else "", prose, flags=re.MULTILINE
    )
    prose = re.sub(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[\w-]+\])", r"\1", prose)
    paragraphs = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", prose, flags=re.MULTILINE)
    found = (part.strip() for paragraph in paragraphs for part in re.split(r"(?<=[.?!])[*_)]*\s", paragraph))
    return [sentence for sentence in found if re.search(r"\w", sentence)]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_sentences_are_short(page: Path) -> None:
    """At most 20 words on average."""
    lengths = [len(re.findall(r"[\w’'-]+", sentence)) for sentence in sentences(page.read_text())]
    assert sum(lengths) / len(lengths) <= 20, sorted(lengths)


def test_a_long_sentence_would_be_seen() -> None:
    page = "# A head\n\nOne `federation up` [two](x.md). Three:\nfour.\n\n- five\n\n```sh\na b c.\n```\n| a | b |\n"
    assert sentences(page) == ["One code two.", "Three:\nfour.", "five"]


def test_the_readmes_links_work_on_pypi() -> None:
    """There the page stands alone, so each link is absolute; and each one that is named is defined."""
    text = README.read_text()
    assert not re.findall(r"\]\((?!https://)", text)
    named = set(re.findall(r"\]\[([\w-]+)\]", text))
    assert named == set(re.findall(r"^\[([\w-]+)\]: https://", text, re.MULTILINE))


def test_the_readme_begins_with_two_sentences_a_picture_and_how_to_install_it() -> None:
    _title, said, picture, install = README.read_text().split("\n\n")[:4]
    assert len(re.findall(r"\.(?:\s|$)", said)) == 2
    assert picture.startswith("![")
    assert install.startswith("```sh\npip install alembic-federation")


def test_the_projects_urls_are_those_of_the_pages() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    home = urls.pop("Homepage")
    assert f"{home}/blob/main/" == BLOB
    for url in urls.values():
        assert url.startswith(home)
        path = re.fullmatch(rf"{home}/(?:blob|tree)/main/(.+)", url)
        assert path is None or (ROOT / path[1]).exists()


def test_every_page_and_room_that_is_named_exists() -> None:
    """Hints and docstrings of the toolkit name pages; pages name folders of the repository."""
    for file in [ROOT / "federation.toml", *(ROOT / "federation").rglob("*.py")]:
        for page in re.findall(r"(?<!\S/)\bdocs/[\w/-]+\.md", file.read_text()):
            assert (ROOT / page).exists(), f"{file}: {page}"
    for page in PAGES:
        for folder in re.findall(r"`((?:federation|tests|tools|docs|benchmarks)/(?:[\w.-]+/)*)`", page.read_text()):
            assert (ROOT / folder).is_dir(), f"{page}: {folder}"
