"""Expressions as ``sa.text()`` takes them, where a colon may begin a bind parameter."""

from __future__ import annotations

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from federation.operations.statements import DIALECT, as_text, escaped, expression


@given(st.text("a:\\x' _ü-%", max_size=12))
def test_an_expression_is_read_back_as_it_was(written: str) -> None:
    text = sa.text(escaped(written))
    assert text.compile(dialect=DIALECT).params == {}
    assert str(text.compile(dialect=DIALECT)) == written
    assert expression(text).as_string(None) == written
    assert as_text(text) == text.text


def test_what_needs_no_escape_has_none() -> None:
    assert escaped("'{}'::jsonb") == "'{}'::jsonb"
    assert escaped("'12:30'::time") == "'12:30'::time"


def test_a_declared_text_has_no_bind_parameters() -> None:
    assert as_text(sa.text("'a :x'::text")) == r"'a \:x'::text"
