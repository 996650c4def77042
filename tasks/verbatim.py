"""Numbers that a double does not keep as they were written, and JSON that gives them back unchanged.

JSON does not bound a number's digits, and Python reads most numbers as doubles: 19.990000000000000001 would be told as
19.99, and 1e-400 as 0.0. Such a number is still a float here, but remembers its text.
"""

from __future__ import annotations

import re
import secrets
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Stands before a number's text while it is a string. It never leaves this module, so that no text can hold it.
_MARK = secrets.token_hex(16)
_MARKED = re.compile(b'"%s([^"]*)"' % _MARK.encode())


class Verbatim(float):
    """A number whose nearest double is another one; ``text`` is how it was written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """Read a JSON number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def read(text: str) -> float:
    """A JSON number with a fraction or an exponent: a float where that is the same number, else a :class:`Verbatim`."""
    number = float(text)
    shortest = repr(number)
    if shortest == text:
        return number
    try:
        is_kept = Decimal(text) == Decimal(shortest)
    except ArithmeticError:  # an exponent that no machine can hold
        is_kept = False
    return number if is_kept else Verbatim(text)


def are_in(values: Iterable[Any]) -> bool:
    """Whether there are such numbers among JSON values, however deep."""
    for value in values:
        if isinstance(value, dict):
            if are_in(value.values()):
                return True
        elif isinstance(value, list):
            if are_in(value):
                return True
        elif isinstance(value, Verbatim):
            return True
    return False


def encode(value: Any) -> bytes:
    """JSON in UTF-8, such numbers in it as they were written; null for NaN and infinities."""
    return _MARKED.sub(rb"\1", to_json(_marked(value), inf_nan_mode="null"))


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _marked(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_marked(member) for member in value]
    return _MARK + value.text if isinstance(value, Verbatim) else value
