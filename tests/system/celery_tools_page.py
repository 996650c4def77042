"""``docs/celery-tools.md`` as data: its tables, for the tests that try each row."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = (Path(__file__).parents[2] / "docs" / "celery-tools.md").read_text("utf-8")


def rows(title: str) -> dict[str, str]:
    """The rows of the table under a heading that begins so: what is told, by what it is about."""
    section = re.search(rf"^## {re.escape(title)}.*?$(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, title
    lines = [line for line in section[1].splitlines() if line.startswith("| ")][2:]
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
    return {about.replace("`", ""): told for about, told in cells}


def quoted(told: str) -> list[str]:
    """The sentences that a row quotes."""
    return re.findall(r'"([^"]+)"', told)
