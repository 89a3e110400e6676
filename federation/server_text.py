"""What of a server's message may be repeated: no patient's value, and no character that drives a terminal.

The server writes values into the messages of some SQLSTATEs (``invalid input syntax for type date: "…"``), and whoever
writes a trigger or a DO block puts anything into RAISE. Of those only the SQLSTATE, its condition's name and the object
are repeated. The server's own log keeps the text.
"""

from __future__ import annotations

import re

import psycopg

_SAFE_CLASSES = re.compile(
    "0[01238AL9P]|2[45678BDF]|3[4BDF]|4[02]|5[34578]|72|F0|HV|XX|ZF",
)
"""Classes of SQLSTATEs whose messages name objects, settings and sessions, and quote no value; ZF is the toolkit's own.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

_RAISED = re.compile(r"\bRAISE$")
"""How the first line of CONTEXT ends where PL/pgSQL's RAISE wrote the message, in every language and over the link."""

_OWN_FUNCTION = re.compile(r"\b(federation|federation_private|auth)\.\w+\(")

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
UNPRINTABLE = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff{_BIDIRECTIONAL}]")
"""Characters that drive a terminal, or turn the order of what it shows."""


def is_safe(diagnostic: psycopg.errors.Diagnostic) -> bool:
    """Whether the message of an error or notice quotes no value: not the data's, and nobody's own text."""
    state = diagnostic.sqlstate or ""
    if not _SAFE_CLASSES.match(state):
        return False
    where = (diagnostic.context or "").split("\n", 1)[0]
    return state.startswith("ZF") or not _RAISED.search(where) or _OWN_FUNCTION.search(where) is not None


def condition(diagnostic: psycopg.errors.Diagnostic) -> str:
    """Name an error without its message: ``22P02 invalid text representation``, and the object, if the server says it.

    RAISE may give any text as the object, so it counts only where the server itself raised the error.
    """
    state = diagnostic.sqlstate or ""
    try:
        name = psycopg.errors.lookup(state).__name__
    except KeyError:
        name = ""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    parts = [f"{state} {words}".strip()]
    where = (diagnostic.context or "").split("\n", 1)[0]
    if not _RAISED.search(where):
        table = ".".join(filter(None, (diagnostic.schema_name, diagnostic.table_name)))
        named = {"table": table, "column": diagnostic.column_name, "constraint": diagnostic.constraint_name}
        parts += [f"{what} {name}" for what, name in named.items() if name]
    return ", ".join(parts)


def redact(error: BaseException, text: str) -> None:
    """Put ``text`` in place of the message of ``error`` and of those that it is chained to: a traceback prints them."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        link.args = (text,)
        link = link.__cause__ or link.__context__


def printable(text: str, *, keep: str = "") -> str:
    r"""``text`` with control and bidirectional characters written as ``\x1b`` or ``\u202e``, but for those to ``keep``.

    A name, a reason or an error's text may hold any, and a terminal obeys them.
    """
    return UNPRINTABLE.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode("ascii"), text
    )
