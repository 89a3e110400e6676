"""The toolkit's own blocks, which send more than one statement each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from psycopg import sql

from federation.operations import foreign_tables, indexes, locking, user_mappings, views
from federation.preview.locks import ACCESS_EXCLUSIVE, SHARE_UPDATE_EXCLUSIVE, StepLocks
from federation.preview.tokens import Name, Reader, tokens_of


def sent_by(step: StepLocks, block: str) -> list[str] | None:
    """The statements that ``block`` sends, beyond the locks that are added to ``step``; None for another statement."""
    for template, rule in _OWN_BLOCKS:
        if found := template.fullmatch(block):
            return rule(step, found.groupdict())
    return None


def _value(literal: str) -> str:
    """What a quoted literal or name stands for, a name's parts still quoted."""
    literal = literal.strip()
    if literal.startswith("E'"):
        return literal[2:-1].replace("\\\\", "\\").replace("''", "'")
    return literal[1:-1].replace("''", "'")


def _named(text: str) -> Name:
    return Reader(tokens_of(text)).name() or (None, "")


def _surplus_dropped(step: StepLocks, values: dict[str, str]) -> list[str]:
    step.lock(ACCESS_EXCLUSIVE, (_value(values["schema"]), _value(values["table"])))
    return []


def _analyzed(step: StepLocks, values: dict[str, str]) -> list[str]:
    step.lock(SHARE_UPDATE_EXCLUSIVE, _named(_value(values["statement"]).removeprefix("ANALYZE ")))
    return []


def _rebuilt(_step: StepLocks, values: dict[str, str]) -> list[str]:
    return [_value(values["drop"]), _value(values["create"])]


def _views_locked(step: StepLocks, values: dict[str, str]) -> list[str]:
    table = step.relations.resolve(_named(_value(values["table"])))
    step.lock(ACCESS_EXCLUSIVE, *sorted(step.relations.views.get(table, ())))
    return []


def _locked_in_order(_step: StepLocks, values: dict[str, str]) -> list[str]:
    return [statement.replace("''", "'") for statement in re.findall(r"'((?:[^']|'')*)'", values["statements"])]


def _imported_beside(step: StepLocks, _values: dict[str, str]) -> list[str]:
    step.made_schemas.add("federation_import")
    return []


def _index_looked_at(step: StepLocks, values: dict[str, str]) -> list[str]:
    step.lock(SHARE_UPDATE_EXCLUSIVE, _named(_value(values["table"])))
    return []


def _nothing(_step: StepLocks, _values: dict[str, str]) -> list[str]:
    """Only the catalogs and the toolkit's own books are read, or privileges changed."""
    return []


def _pattern(template: sql.SQL, after: str = "") -> re.Pattern[str]:
    """What a template matches once its values are in; a value that it holds twice is the same."""
    parts: Iterator[str] = iter(re.split(r"\{(\w+)\}", template.as_string(None).strip().rstrip(";")))
    pattern, seen = re.escape(next(parts)), set()
    for name, text in zip(parts, parts, strict=True):
        pattern += f"(?P={name})" if name in seen else f"(?P<{name}>.*?)"
        pattern += re.escape(text)
        seen.add(name)
    return re.compile(pattern + re.escape(after), re.DOTALL)


_REVOKES = re.compile(
    r"DO \$federation\$\s+DECLARE\s+statement text;\s+BEGIN\s+FOR statement IN\s+SELECT DISTINCT "
    r"format\('REVOKE ALL ON %s %s FROM %s',.*?LOOP\s+EXECUTE statement;\s+END LOOP;\s+END \$federation\$",
    re.DOTALL,
)
"""What takes back default privileges, of the operations and of the binding."""

_OWN_BLOCKS: tuple[tuple[re.Pattern[str], Callable[[StepLocks, dict[str, str]], list[str]]], ...] = (
    (_pattern(foreign_tables._EXPECT), _nothing),
    (_pattern(foreign_tables._DROP_SURPLUS), _surplus_dropped),
    (_pattern(foreign_tables._ANALYZE), _analyzed),
    (_pattern(foreign_tables._IMPORT_BESIDE), _imported_beside),
    (_pattern(foreign_tables._REQUIRE_HOSPITAL), _nothing),
    (_pattern(sql.SQL("SELECT federation_private.require_hospital()")), _nothing),
    (_REVOKES, _nothing),
    (_pattern(views._REBUILD), _rebuilt),
    (_pattern(user_mappings._USE_SECRET), _nothing),
    (_pattern(locking._VIEWS_OVER), _views_locked),
    (_pattern(locking._IN_ORDER), _locked_in_order),
    (_pattern(indexes._FIRST), _nothing),
    (_pattern(indexes._DROP_INVALID, "\n\\gexec"), _index_looked_at),
    (_pattern(indexes._SAME_OR_NONE), _index_looked_at),
    (_pattern(indexes._SET_ASIDE), _index_looked_at),
)
