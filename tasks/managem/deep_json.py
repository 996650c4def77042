"""Cuts off what is nested too deep in a JSON text, for readers that go one call deeper with each level."""

from __future__ import annotations

import json
import re
from typing import NoReturn

#: A string, or a bracket outside of one. A string without an end reaches to the end of the text, so that no text is
#: searched from each of its quotes.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def cut_off(text: str, max_levels: int) -> str:
    """Return a JSON text with null in place of each array and object that is nested deeper than ``max_levels``.

    Raises:
        ValueError: a part that was cut off is no JSON, or a bracket has no other one. The rest is not checked.
    """
    open_parts: list[list[str]] = [[]]
    levels = begin = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                if levels and levels % max_levels == 0:
                    open_parts[-1] += text[begin : token.start()], "null"
                    open_parts.append([])
                    begin = token.start()
                levels += 1
            case "]" | "}":
                levels -= 1
                if levels > 0 and levels % max_levels == 0:
                    _check("".join([*open_parts.pop(), text[begin : token.end()]]))
                    begin = token.end()
    if levels:
        raise ValueError("a bracket has no other one")
    return "".join([*open_parts[0], text[begin:]])


def _check(part: str) -> None:
    json.loads(part, parse_int=len, parse_float=len, parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
