"""The table of keys in ``worker/broker/keys.py``, read by the tests: which key may stand in Redis, in what shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import worker.broker.keys

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = {
    "ref": r"[^:]+",
    "digest": r"[0-9a-f]{32}",
    "id": r"[0-9a-f]{32}",
    "rule": r"[0-9a-f]{32}",
    "end": r"[0-9a-f]{32}(:other)?",
    "3|6|9": "[369]",
}
#: What is gone by itself after a while, as the table says it.
_PASSES = ("TTL", "DEDUPLICATE_SECONDS")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    pattern: re.Pattern[str]
    kind: str
    has_ttl: bool


def rows(queue: str, names: Mapping[str, str]) -> list[Row]:
    """The table for one queue; ``names`` are the values of the settings that stand in it, as keys or in them."""
    doc = worker.broker.keys.__doc__ or ""
    lines = re.findall(r"^``(.+?)`` +(list|hash|zset|string|stream) +\S.*?  +(\S.*)$", doc, re.MULTILINE)
    words = {re.escape(f"<{word}>"): pattern for word, pattern in _WORDS.items()} | {"<queue>": re.escape(queue)}
    words |= {f"<{name}>": re.escape(value) for name, value in names.items()}
    found = []
    for name, kind, gone_when in lines:
        pattern = re.escape(names.get(name, name)).replace(r"\\x06\\x16", re.escape("\x06\x16"))
        for word, meaning in words.items():
            pattern = pattern.replace(word, meaning)
        found.append(Row(re.compile(pattern), kind, any(word in gone_when for word in _PASSES)))
    return found


def trouble(table: list[Row], key: str, kind: str, ttl_ms: int) -> str | None:
    """What is wrong about a key that stands in Redis; ``ttl_ms`` is -1 where it would stay for ever."""
    row = next((row for row in table if row.pattern.fullmatch(key)), None)
    if row is None:
        return f"{key!r} is not in the glossary of keys.py"
    if kind != row.kind:
        return f"{key!r} is a {kind}, and a {row.kind} in the glossary of keys.py"
    if row.has_ttl != (ttl_ms >= 0):
        return f"{key!r} has {'a' if ttl_ms >= 0 else 'no'} TTL, against the glossary of keys.py"
    return None
