"""Which actions of ALTER TABLE write every row of the table anew, read from their text.

What is not known here (a domain with a constraint, a function that rewrites) is found while the step runs.

https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES
"""

from __future__ import annotations

import itertools
import re

from federation.preview.relations import Relation, Relations
from federation.preview.tokens import Reader, Token

_SERIAL = {"SMALLSERIAL", "SERIAL", "BIGSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"}
_CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE"}
_LENGTH = re.compile(r"(character varying|bit varying|numeric)(?:\((\d+)(?:,(\d+))?\))?")
_SPELLINGS = {"varchar": "character varying", "decimal": "numeric", "varbit": "bit varying"}


def rewrites(tokens: list[Token], table: Relation, relations: Relations) -> bool:
    """Whether an action (``ADD COLUMN …``, ``ALTER COLUMN … TYPE …``) writes the rows of ``table`` anew."""
    action = Reader(list(tokens))
    if action.take("ADD"):
        if action.tokens and action.tokens[0].word in _CONSTRAINTS:
            return False
        action.take("COLUMN")
        action.take("IF", "NOT", "EXISTS")
        action.name()
        return _fills(action, relations)
    if action.take("ALTER"):
        action.take("COLUMN")
        column = str((action.name() or (None, ""))[1])
        if action.take_any("TYPE", "SET DATA TYPE") is not None:
            return _converts(relations.types.get((table, column)), action.tokens)
        return action.take_any("SET EXPRESSION") is not None
    return action.take_any("SET LOGGED", "SET UNLOGGED", "SET ACCESS METHOD", "SET TABLESPACE") is not None


def _fills(definition: Reader, relations: Relations) -> bool:
    """Whether a new column has a value of its own in each row; a constant is kept once, in the catalog."""
    words = {token.word for token in definition.tokens}
    if definition.tokens and definition.tokens[0].word in _SERIAL:
        return True
    if "GENERATED" in words:
        return bool(words & {"IDENTITY", "STORED"})
    calls = (one.name for one, after in itertools.pairwise(definition.tokens) if after.text == "(")
    return definition.skip_to("DEFAULT") and any(name in relations.volatile for name in calls)


def _converts(old: str | None, tokens: list[Token]) -> bool:
    """Whether values of type ``old`` become others, or have to be looked at: a longer limit lets them be."""
    if old is None or any(token.word == "USING" for token in tokens):
        return True
    words = list(itertools.takewhile(lambda token: token.word != "COLLATE", tokens))
    new = re.sub(r" ?([(),]) ?", r"\1", " ".join(token.text.lower() for token in words))
    new = re.sub(r"^\w+", lambda name: _SPELLINGS.get(name.group(), name.group()), new)
    if new == old:
        return False
    was, is_now = _LENGTH.fullmatch(old), _LENGTH.fullmatch(new)
    if was is None or is_now is None or was[1] != is_now[1]:
        return not ({old.partition("(")[0], new} <= {"text", "character varying"})
    if is_now[2] is None:
        return False
    return was[2] is None or int(is_now[2]) < int(was[2]) or (was[3] or "0") != (is_now[3] or "0")
