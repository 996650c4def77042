"""Reads JSON strictly: it refuses everything that two readers could understand differently.

RFC 8259 leaves open what duplicate keys, lone surrogates, huge numbers and deep nesting mean, and Python adds NaN and
infinities. A job must mean the same to its producer, to this worker and to every consumer of its event, so all of
these are refused. Reading raises only :class:`NotStrictError`, which quotes nothing of the text but a duplicate key,
shortened.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from tasks import verbatim
from tasks.redaction import shorten

_SURROGATE = re.compile("[\ud800-\udfff]")


class NotStrictError(ValueError):
    """The text is not strict JSON. The message continues the name of the text: "is empty", "holds ..."."""


def loads(data: bytes, *, max_levels: int, keep_digits: bool = False) -> Any:
    """Read a JSON text in UTF-8 whose arrays and objects are nested at most ``max_levels`` deep.

    Args:
        data: the text.
        max_levels: the deepest nesting.
        keep_digits: return a number that a double would change as a :class:`tasks.verbatim.Verbatim`, for callers that
            write it with that module. Else it is refused.

    Raises:
        NotStrictError: it is anything else.
    """
    try:
        text = data.decode()
        value = (_decode_verbatim if keep_digits else _decode)(text)
    except NotStrictError:
        raise
    except UnicodeDecodeError as error:
        raise NotStrictError(f"is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise NotStrictError(
            "is empty" if not data.strip() else f"is not JSON (character {error.pos}: {error.msg})"
        ) from None
    except RecursionError:
        raise _too_deep(max_levels) from None
    except ValueError:  # Python's limit on the digits of an integer
        raise NotStrictError("holds an integer with too many digits") from None
    # Both checks visit every value, so they are skipped if the text shows that they would find nothing.
    if text.count("[") + text.count("{") > max_levels:
        check_levels(value, max_levels)
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(value)
    return value


def check_levels(value: Any, max_levels: int) -> None:
    """Refuse a value whose lists and objects are nested more than ``max_levels`` deep.

    Raises:
        NotStrictError: they are.
    """
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(max_levels):
        if not containers:
            return
        containers = [
            child
            for parent in containers
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    if containers:
        raise _too_deep(max_levels)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotStrictError(f"holds the key {shorten(key)} twice in one object; keep one")
            seen.add(key)
    return members


def _verbatim(digits: str) -> float:
    number = verbatim.read(digits)
    if math.isinf(number):
        raise NotStrictError("holds a number too large for a double; send it as a string")
    return number


def _double(digits: str) -> float:
    number = _verbatim(digits)
    if isinstance(number, verbatim.Verbatim):
        raise NotStrictError(
            "holds a number that a double would change, as it has too many digits; send it as a string"
        )
    return number


def _constant(name: str) -> NoReturn:
    raise NotStrictError(f"holds {name}, which is not JSON; send null or a string")


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=_double, parse_constant=_constant).decode
_decode_verbatim = json.JSONDecoder(object_pairs_hook=_object, parse_float=_verbatim, parse_constant=_constant).decode


def _too_deep(max_levels: int) -> NotStrictError:
    return NotStrictError(f"is nested deeper than {max_levels} levels; flatten it")


def _check_surrogates(value: Any) -> None:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, str) and not part.isascii() and _SURROGATE.search(part):
            raise NotStrictError("holds half a surrogate pair, which is no character; send whole characters")
