"""SQL as tokens: enough of PostgreSQL's lexical rules to find statements, their words and the relations that they name.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

_TOKEN = re.compile(
    r"""
    (?P<space>\s+ | --[^\n]* | /\*.*?\*/)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag))
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<word>[^\W\d][\w$]*)
    | (?P<meta>\\[^\n]*)
    | (?P<symbol>\d[\w.]* | .)
    """,
    re.VERBOSE | re.DOTALL,
)

Name: TypeAlias = tuple[str | None, str]
"""Schema, where it is written, and name."""


@dataclass(frozen=True)
class Token:
    """``kind`` is space, string, quoted, word, meta (psql's backslash command) or symbol."""

    kind: str
    text: str

    @property
    def word(self) -> str:
        """A keyword in capitals; of anything but a bare word, its text."""
        return self.text.upper() if self.kind == "word" else self.text

    @property
    def name(self) -> str | None:
        """The identifier that it stands for, or None."""
        if self.kind == "quoted":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower() if self.kind == "word" else None


def tokens_of(text: str) -> list[Token]:
    """All but space and comments."""
    return [token for token in _lexed(text) if token.kind != "space"]


def statements_of(text: str) -> list[str]:
    """The statements of a script for psql, comments included and semicolons not; ``\\gexec`` stays with its query."""
    found, current, depth, before = [], "", 0, ""
    for token in _lexed(text):
        depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "symbol" else 0
        if token.word == "ATOMIC" and before == "BEGIN":  # an SQL function's body, semicolons included
            depth += 1
        elif depth and token.word in {"CASE", "END"}:
            depth += 1 if token.word == "CASE" else -1
        if token.kind != "space":
            before = token.word
        if token.text == ";" and depth <= 0:
            found.append(current)
            current, depth = "", 0
            continue
        current += token.text
        if token.kind == "meta":
            found.append(current)
            current = ""
    return [statement.strip() for statement in (*found, current) if tokens_of(statement)]


def without_comments_before(statement: str) -> str:
    """The statement from its first token on."""
    return re.sub(r"\A(?:\s+|--[^\n]*\n|/\*.*?\*/)*", "", statement, flags=re.DOTALL)


def _lexed(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        yield Token(str(match.lastgroup), match.group())


class Reader:
    """A statement read from the left."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens

    def take(self, *words: str) -> bool:
        """Whether these keywords come next; then they are behind it."""
        if [token.word for token in self.tokens[: len(words)]] != list(words):
            return False
        self.tokens = self.tokens[len(words) :]
        return True

    def take_any(self, *alternatives: str) -> str | None:
        """The first of the alternatives (keywords separated by spaces) that comes next."""
        return next((words for words in alternatives if self.take(*words.split())), None)

    def skip_to(self, word: str) -> bool:
        """Go behind the next ``word`` outside parentheses, if there is one."""
        for n, token in _outermost(self.tokens):
            if token.word == word:
                self.tokens = self.tokens[n + 1 :]
                return True
        return False

    def name(self) -> Name | None:
        """A name, with its schema or without."""
        parts = self.parts()
        return (parts[-2] if len(parts) > 1 else None, parts[-1]) if parts else None

    def parts(self) -> list[str]:
        """The parts of a dotted name."""
        parts: list[str] = []
        while self.tokens and self.tokens[0].name is not None:
            parts.append(str(self.tokens.pop(0).name))
            if not self.take("."):
                break
        return parts

    def names(self) -> list[Name]:
        """Names separated by commas."""
        found = []
        self.take("ONLY")
        while (name := self.name()) is not None:
            found.append(name)
            self.take("*")
            self.parenthesised()  # ANALYZE names columns there
            if not self.take(","):
                break
            self.take("ONLY")
        return found

    def parenthesised(self) -> list[Token]:
        """What is between the parentheses that come next."""
        if not self.take("("):
            return []
        depth = 1
        for n, token in enumerate(self.tokens):
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth == 0:
                inside, self.tokens = self.tokens[:n], self.tokens[n + 1 :]
                return inside
        return []

    def has(self, *words: str) -> bool:
        """Whether one of the keywords is still to come, in parentheses or not."""
        return any(token.word in words for token in self.tokens)

    def items(self) -> Iterator[Reader]:
        """What is left, by commas outside parentheses."""
        return items_of(self.tokens)


def items_of(tokens: list[Token]) -> Iterator[Reader]:
    """The parts that commas outside parentheses separate."""
    start = 0
    for n, token in _outermost(tokens):
        if token.text == ",":
            yield Reader(tokens[start:n])
            start = n + 1
    yield Reader(tokens[start:])


def _outermost(tokens: list[Token]) -> Iterator[tuple[int, Token]]:
    depth = 0
    for n, token in enumerate(tokens):
        depth -= token.text == ")"
        if depth == 0 and token.text != "(":
            yield n, token
        depth += token.text == "("


def read_by(tokens: list[Token]) -> set[Name] | None:
    """The relations that the queries among ``tokens`` read; None where that cannot be told.

    A FROM counts where its own parentheses hold a SELECT: that of extract() and of IS DISTINCT FROM does not.
    """
    for n, token in enumerate(tokens):
        begins = n == 0 or tokens[n - 1].text == "("
        if token.word in {"TABLE", "LATERAL", "INTO"} or (token.word == "WITH" and begins):
            return None
    found: set[Name] = set()
    selecting = [False]
    listing = [False]  # inside a FROM clause, where a comma is followed by another relation
    n = 0
    while n < len(tokens):
        word = tokens[n].word
        n += 1
        if word == "(":
            selecting.append(False)
            listing.append(False)
        elif word == ")" and len(selecting) > 1:
            selecting.pop()
            listing.pop()
        elif word == "SELECT":
            selecting[-1], listing[-1] = True, False
        elif word in {"WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "UNION", "INTERSECT", "EXCEPT", "WINDOW", "FOR"}:
            listing[-1] = False
        elif (
            (word == "FROM" and selecting[-1] and not _is_distinct(tokens, n))
            or word == "JOIN"
            or (word == "," and listing[-1])
        ):
            listing[-1] = True
            reader = Reader(tokens[n:])
            if reader.take("("):  # a subquery, which is met next, or joined relations, which are not told apart
                if not reader.take("SELECT"):
                    return None
                continue
            reader.take("ONLY")
            name = reader.name()
            if name is None:
                return None
            if not reader.take("("):  # a function
                found.add(name)
            n = len(tokens) - len(reader.tokens)
            if n and tokens[n - 1].text == "(":
                n -= 1
    return found


def _is_distinct(tokens: list[Token], n: int) -> bool:
    """Whether the FROM before ``n`` ends IS [NOT] DISTINCT FROM."""
    return [token.word for token in tokens[max(n - 3, 0) : n - 1]][-2:] in (["IS", "DISTINCT"], ["NOT", "DISTINCT"])
