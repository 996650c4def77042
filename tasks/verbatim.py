"""Reads and writes JSON numbers that a double would change, without changing them.

JSON does not bound a number's digits, and Python reads numbers as doubles: 19.990000000000000001 would become 19.99,
and 1e-400 would become 0.0. Such a number is still a float here, but keeps its text.
"""

from __future__ import annotations

import re
import secrets
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Marks a number's text while it is a string. It never leaves this module, so no other text can contain it.
_MARK = secrets.token_hex(16)
_MARKED = re.compile(b'"%s([^"]*)"' % _MARK.encode())


class Verbatim(float):
    """A number that no double is equal to; ``text`` is its original text."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """Read a JSON number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def read(text: str) -> float:
    """Read a JSON number with a fraction or an exponent: a float if that is equal, else a :class:`Verbatim`."""
    number = float(text)
    shortest = repr(number)
    if shortest == text:
        return number
    try:
        is_kept = Decimal(text) == Decimal(shortest)
    except ArithmeticError:  # the exponent is too large for a decimal
        is_kept = False
    return number if is_kept else Verbatim(text)


def are_in(values: Iterable[Any]) -> bool:
    """Return True if JSON values hold such numbers, at any depth."""
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
    """Return JSON in UTF-8 with such numbers unchanged; null for NaN and infinities."""
    return _MARKED.sub(rb"\1", to_json(_marked(value), inf_nan_mode="null"))


def size(value: Mapping[str, Any], bound: int) -> int:
    """Return how many bytes an object has as JSON, with such numbers unchanged; approximate if it is beyond the bound.

    Raises:
        PydanticSerializationError: it cannot be written as JSON.
    """
    written = len(to_json(value))
    if written <= bound and are_in(value.values()):  # a number with many digits is short as a double
        written = len(encode(value))
    return written


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _marked(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_marked(member) for member in value]
    return _MARK + value.text if isinstance(value, Verbatim) else value
