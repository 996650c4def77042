"""Reads how many locks a rule may ask for in a time, such as ``200/10m``."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from tasks.plural import plural

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LIMIT = re.compile(r"([1-9]\d{0,8})/([1-9]\d{0,5})([smhd])")
_MAX_SECONDS = 7 * 86_400
_MAX_RULE_CHARACTERS = 128
_MAX_FILE_BYTES = 1024 * 1024


class RuleLimit(NamedTuple):
    """How many locks a rule may ask for in so many seconds."""

    locks: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.locks} locks in {self.seconds} s"


def read_limit(text: str) -> RuleLimit:
    """Read a limit such as ``200/10m``: locks, and a time in ``s``, ``m``, ``h`` or ``d``, of a week at most.

    Raises:
        ValueError: it is no such text; says what to write.
    """
    match = _LIMIT.fullmatch(text.strip())
    limit = match and RuleLimit(int(match[1]), int(match[2]) * _SECONDS[match[3]])
    if not limit or limit.seconds > _MAX_SECONDS:
        raise ValueError("write a number of locks and a time of a week at most, such as 200/10m")
    return limit


def read_limits_file(path: Path) -> Mapping[str, RuleLimit]:
    """Read the limits of single rules: a JSON object of rule ids and limits.

    Raises:
        ValueError: the file cannot be read, or is no such object; says what to write.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError("is larger than 1 MiB")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError('is no JSON; write an object such as {"r-7": "200/10m"}') from None
    if not isinstance(found, dict):
        raise ValueError('is no JSON object; write one such as {"r-7": "200/10m"}')  # noqa: TRY004 - no argument's type
    limits = {}
    for number, (rule, text) in enumerate(found.items(), start=1):
        if not 0 < len(rule) <= _MAX_RULE_CHARACTERS or not isinstance(text, str):
            raise ValueError(f"entry {number}: write a rule id of 1 to 128 characters and a limit such as 200/10m")
        try:
            limits[rule] = read_limit(text)
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
    return limits


def described(limits: Mapping[str, RuleLimit]) -> str | None:
    """Return a short text that is the same for equal limits only, however they were written; None: there are none."""
    if not limits:
        return None
    text = json.dumps(sorted((rule, *limit) for rule, limit in limits.items()))
    return f"{plural(len(limits), 'rule')}, digest {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
