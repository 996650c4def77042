"""Numbers that a double would change are written as they were read, and nothing else is taken for one."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.verbatim import Verbatim, are_in, encode, read


@given(
    st.builds(
        lambda digits, exponent, sign: f"{sign}{digits[:1]}.{digits[1:]}e{exponent}",
        st.text("0123456789", min_size=2, max_size=30),
        st.integers(-400, 400),
        st.sampled_from(["", "-"]),
    )
)
@example("19.990000000000000001")
@example("1e-400")
@example("0.0e999999999999999999999")
def test_every_number_is_written_as_the_same_number(text: str) -> None:
    written = encode([read(text)]).decode().removeprefix("[").removesuffix("]")
    assert written == text or Decimal(written) == Decimal(text)


def test_a_number_that_is_kept_as_its_text_is_a_float_all_the_same() -> None:
    number = read("19.990000000000000001")
    assert isinstance(number, Verbatim)
    assert (number, number.text) == (19.99, "19.990000000000000001")


@pytest.mark.parametrize("text", ["", "a", '"', '\\"', "1e400", "\u2028", "ffffffffffffffff1e400"])
def test_no_text_is_taken_for_a_number(text: str) -> None:
    value = {text: [text, read("1e400"), 1.5, None]}
    assert encode(value).decode() == json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace(
        "Infinity", "1e400"
    )


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([], False), ([1, 1.5, "1e400", None, {}], False), ([{"a": [1, {"b": 2.5}]}], False),
        ([read("1e-400")], True), ([1, {"a": [{"b": read("1e-400")}]}], True),
    ],
)  # fmt: skip
def test_numbers_kept_as_text_are_found_at_any_depth(value: Any, found: bool) -> None:  # noqa: FBT001 - a parameter
    assert are_in(value) is found
