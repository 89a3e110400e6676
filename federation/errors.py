"""What can go wrong, and the exit code each kind of it has.

    FederationError                 1  unexpected
    ├── PendingChanges              3  changes pending, or drift found
    ├── ReleasesDiffer              4  the databases are not at the same release
    │   └── SetBack                 4  one was restored to an earlier point
    ├── LockHeld                    5  a lock is held, or a lock timeout passed
    ├── Unreachable                 6  a database cannot be reached
    ├── VerificationFailed          7  what arrived is not what was declared
    │   └── Missing                 7  something that the release makes is not there
    ├── Refused                     8  it would break the other side, cannot be undone, or something is in the way
    ├── PreconditionMissing         9  a setting, role, privilege, extension or server version
    └── Interrupted               130  Ctrl-C

Each carries what a caller needs, so that nobody parses the text: ``side``, ``release``, ``statement`` and ``hint``
(what to do, usually a command). ``str(error)`` is the sentence that people read, hint included. The cause is
chained; no error's text holds a secret or a patient's value: a statement is kept without its parameters and a
server's DETAIL is left out, because "Failing row contains (…)" is somebody's record. A message that may quote a value
is replaced by its SQLSTATE, in the chained cause too (`federation.server_text`).
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal, TypeAlias

import psycopg
import sqlalchemy.exc

from federation.server_text import condition, is_safe, printable, redact

Side: TypeAlias = Literal["local", "cloud"]
"""``local`` is the hospital's PostgreSQL, ``cloud`` the app's."""


class FederationError(Exception):
    """The base of all errors of this package.

    ``message`` is one sentence that names the object; ``side`` the database it is about, if it is about one;
    ``release`` the revision id being applied; ``statement`` the SQL that failed, without parameters; ``hint``
    what to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        side: Side | None = None,
        release: str | None = None,
        statement: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = printable(message)  # one line, whatever a name in it holds
        super().__init__(self.message)
        self.side, self.release, self.statement = side, release, statement
        self.hint = printable(hint) if hint else None

    def __str__(self) -> str:
        where = "".join(f"{word}: " for word in (self.side, self.release) if word)
        return f"{where}{self.message}" + (f" — {self.hint}" if self.hint else "")

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON: ``error`` (class name), ``exit_code``, ``message``, ``side``, ``release``, ``hint``."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "message": self.message,
            "side": self.side,
            "release": self.release,
            "hint": self.hint,
        }


class PendingChanges(FederationError):
    """Changes are pending or drift was found."""

    exit_code = 3


class ReleasesDiffer(FederationError):
    """The two databases are not at the same release."""

    exit_code = 4


class SetBack(ReleasesDiffer):
    """A database was restored to an earlier point, or is another one than before.

    ``since`` is the time of the last command that the database knows of, as ISO 8601; None: it knows of none. What was
    written after it may be lost.
    """

    def __init__(self, message: str, *, side: Side, since: str | None, hint: str | None = None) -> None:
        super().__init__(message, side=side, hint=hint)
        self.since = since

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON, with ``since``."""
        return super().to_dict() | {"since": self.since}


class LockHeld(FederationError):
    """Another run holds the lock, or a statement waited longer than ``lock_timeout``."""

    exit_code = 5


class Unreachable(FederationError):
    """A database cannot be reached, or the connection to it was lost."""

    exit_code = 6


class VerificationFailed(FederationError):
    """What the database holds is not what the release declares."""

    exit_code = 7


class Missing(VerificationFailed):
    """Something that the chain makes is not there; ``objects`` names each of it."""

    def __init__(self, message: str, *, side: Side, objects: list[str], hint: str | None = None) -> None:
        super().__init__(message, side=side, hint=hint)
        self.objects = objects

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON, with ``missing``."""
        return super().to_dict() | {"missing": self.objects}


class Refused(FederationError):
    """A guard said no: nothing was changed."""

    exit_code = 8


class PreconditionMissing(FederationError):
    """A setting, role, privilege, extension or server version is missing."""

    exit_code = 9


class Interrupted(FederationError):
    """Ctrl-C. The code is what shells give to a program that ends by it: 128 + SIGINT."""

    exit_code = 130


OWN_SQLSTATES: dict[str, type[FederationError]] = {
    "ZF007": VerificationFailed,
    "ZF008": Refused,
    "ZF009": PreconditionMissing,
}
"""SQLSTATEs that this toolkit's own SQL raises, offline SQL included; the SQL standard leaves classes from I on free.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""


_RETYPING = frozenset({"ATExecAlterColumnType", "RememberAllDependentForRebuilding"})
"""Where the server refuses to alter the type of a column that a view or policy depends on: in 15, in 18."""


def from_database(error: BaseException, *, side: Side, release: str | None = None) -> FederationError:
    """Translate an error of SQLAlchemy's or psycopg's: its class by SQLSTATE, its text without values.

    Only the server's primary message is kept: DETAIL quotes rows and keys, CONTEXT quotes statements. A message that
    may quote a value is left out, and taken out of ``error`` too, which becomes the cause and may be printed with it.
    """
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    statement = error.statement if isinstance(error, sqlalchemy.exc.DBAPIError) else None
    state = getattr(original, "sqlstate", None) or ""
    diagnostic = original.diag if isinstance(original, psycopg.Error) else None
    if diagnostic is not None and diagnostic.sqlstate and not is_safe(diagnostic):
        message: str = condition(diagnostic)
        server_hint: str | None = f"its message may quote a value, so it stands in the {side} server's log alone"
        redact(error, message)
    else:
        message = (diagnostic.message_primary if diagnostic else None) or str(original).split("\n", 1)[0]
        server_hint = diagnostic.message_hint if diagnostic else None

    def made(kind: type[FederationError], text: str, hint: str | None) -> FederationError:
        return kind(text, side=side, release=release, statement=statement, hint=hint)

    if state in OWN_SQLSTATES:
        return made(OWN_SQLSTATES[state], message, server_hint)
    if state in {"55P03", "55006"}:
        return made(LockHeld, f"timed out waiting for a lock ({message})", "try again when it is released")
    if state == "40P01":  # a transaction that the server chose to end; nothing of it is left
        return made(
            LockHeld,
            f"it and another session waited for each other's locks ({message})",
            "try again; views are locked before tables, and parents before children (op.lock_tables)",
        )
    if state == "40001":  # over the link the hospital's transaction is REPEATABLE READ: the guard's row was changed
        return made(
            LockHeld,
            f"the other side's release changed at the same time ({message})",
            "see `federation status`, try again",
        )
    if state == "42501":
        return made(
            PreconditionMissing,
            f"a privilege is missing ({message})",
            "`federation repair` grants at the hospital what the releases grant"
            if diagnostic is not None and diagnostic.source_function == "pgfdw_report_error"
            else f"an administrator runs `federation bootstrap {side} --apply`, then `federation repair`",
        )
    if state in {"42P07", "42710", "42P06", "42723"}:
        return made(
            Refused,
            f"something of that name is in the way ({message})",
            "move it away (ALTER … RENAME TO …, or SET SCHEMA), then run the command again",
        )
    if state == "42704":
        return made(
            PreconditionMissing,
            f"something that the release names does not exist ({message})",
            _to_do_about_missing(message, side),
        )
    if state == "42809":  # the server's hint is to DROP what has the name, which may be the patients' table
        return made(
            FederationError,
            f"something of that name is of another kind ({message})",
            f"see what it is, and whether FEDERATION_{side.upper()}_URL leads to the right database; drop nothing yet",
        )
    # The one DETAIL that is kept: it names objects, never values. A retyped column that something reads has no state of
    # its own; the server's function tells it apart in every language.
    retyped = diagnostic is not None and diagnostic.source_function in _RETYPING
    if state == "2BP01" or (state == "0A000" and retyped):
        dependents = diagnostic.message_detail if diagnostic else None
        return made(
            Refused,
            "; ".join(part for part in (message, *(dependents or "").splitlines()) if part),
            _to_do_about_dependents(dependents or ""),
        )
    if full := link_is_full(original):
        return made(Unreachable, *full)
    if state.startswith(("HV", "08")):  # sent by the cloud's server: a failure of our own session has no such state
        return made(
            Unreachable,
            f"the cloud does not reach the hospital ({message})",
            "check FEDERATION_LINK_HOST, _PORT, _DBNAME and the passwords, then run `federation link apply`",
        )
    if isinstance(original, psycopg.OperationalError) and (not state or state.startswith("57P")):
        return made(Unreachable, *_unreachable(message, side))
    return made(FederationError, f"the database refused a statement ({message})", server_hint)


_FULL_ROLE = re.compile(r'too many connections for role "(.+)"')
_FULL_SERVER = re.compile("sorry, too many clients already|remaining connection slots are reserved")


def link_is_full(error: object) -> tuple[str, str] | None:
    """Sentence and hint where the hospital admits no more sessions of the link, which only a DETAIL says.

    postgres_fdw raises 08001 with libpq's text as DETAIL: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    detail = (error.diag.message_detail if isinstance(error, psycopg.Error) else None) or ""
    if role := _FULL_ROLE.search(detail):
        return f"the hospital admits no more sessions of role {role[1]}, which is at its CONNECTION LIMIT", (
            "each backend of the cloud keeps one: keep the app's pools below the limit, or raise it (max_connections "
            "at the hospital, then `federation bootstrap local`)"
        )
    if _FULL_SERVER.search(detail):
        return "the hospital's server admits no more sessions, its max_connections is reached", (
            "end some there, or raise max_connections, then run `federation bootstrap local`"
        )
    return None


_TEMPORARY = re.compile(r"\bpg_temp_(\d+)\.")


def _to_do_about_dependents(detail: str) -> str:
    """The hint for what depends on an object; a session's temporary view goes with the session."""
    number = _TEMPORARY.search(detail)
    if number is None:
        return "drop what depends on it, or move it away, then run the command again"
    return (
        f"pg_temp_{number[1]} is a session's temporary schema and goes with it: find the session in pg_stat_activity "
        f"(from PostgreSQL 16: SELECT pg_stat_get_backend_pid({number[1]})), end it with pg_terminate_backend(pid), "
        "then run the command again"
    )


def _to_do_about_missing(message: str, side: Side) -> str:
    """The hint for an object that does not exist, by its kind, which the server's sentence begins with.

    In another language than English the sentence does not say it, and every hint is given.
    """
    hints = {
        "type": "a type: create it on both sides, in a release (op.create_type) or by its extension",
        "role": f"a role: an administrator runs `federation bootstrap {side}`",
    }
    earlier = (
        "what a release changes or drops must have been made by an earlier one: drop by hand what was made by hand"
    )
    kind = message.partition(" ")[0]
    if kind in hints:
        return hints[kind]
    return earlier if message.endswith(" does not exist") else "; ".join((*hints.values(), earlier))


def _unreachable(message: str, side: Side) -> tuple[str, str]:
    """Sentence and hint for a connection that failed or was lost.

    libpq gives no SQLSTATE for a login that the server refused, only a text that repeats itself for each address.
    """
    reason = re.split(r"\n|Multiple connection attempts", message, maxsplit=1)[0].strip().rstrip(":")
    reason = reason.split("FATAL:")[-1].strip()
    url = f"FEDERATION_{side.upper()}_URL"
    if re.search(r"database .* does not exist", reason):
        return f"the database does not exist ({reason})", f"an administrator runs `federation bootstrap {side}`"
    if re.search(r"password|authentication|role .* does not exist|pg_hba", reason):
        return f"the server refuses the login ({reason})", (
            f"check the role and the password in {url}; before the first use an administrator runs "
            f"`federation bootstrap {side}`"
        )
    return f"the database cannot be reached ({reason})", f"check {url} and that the server runs"
