"""What ``docs/logging.md`` lists of the log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"
_TROUBLES = {"warning", "error", "critical"}


class Row(NamedTuple):
    """An event in the page."""

    levels: set[str]
    limit: str
    fields: set[str]


def rows() -> dict[str, Row]:
    """The events, by name."""
    found = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*?) ?\| (.*?) ?\| .+ \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(found) == len({name for name, *_ in found})
    return {
        name: Row(set(re.findall(r"\w+", levels)), limit, set(re.findall(r"`(\w+)`", fields)))
        for name, levels, limit, fields in found
    }


def troubles() -> set[str]:
    """The events that may be warnings or worse."""
    return {name for name, row in rows().items() if row.levels & _TROUBLES}
