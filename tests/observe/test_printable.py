"""Nothing from elsewhere reaches a terminal but printable characters, and JSON stays the same JSON."""

from __future__ import annotations

import codecs
import json

from hypothesis import given
from hypothesis import strategies as st

from worker.observe.printable import escape_unencodable, printable


@given(st.text())
def test_what_comes_out_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@given(st.text().filter(str.isprintable))
def test_what_is_printable_is_left_alone(text: str) -> None:
    assert printable(text) == text


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_on_one_line_stays_the_same(value: object) -> None:
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


@given(st.text())
def test_json_in_an_encoding_that_lacks_characters_stays_the_same(text: str) -> None:
    codecs.register_error("escape", escape_unencodable)
    assert json.loads(json.dumps(text, ensure_ascii=False).encode("ascii", "escape")) == text
