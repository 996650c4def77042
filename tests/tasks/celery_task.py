"""Helpers for the tests of the Celery task: fields, the published schemas, and the examples of the producers' page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
TRACE = "0af7651916cd43dd8448eb211c80319c"
ALL_FIELDS = {
    "conversation_id": "c-42",
    "reason": "asked for a bank transfer",
    "rule_id": "r-7",
    "policies": ["off-platform payment"],
    "actor": "rule-engine",
    "correlation_id": "flag-1881",
    "requested_at": "2026-11-22T15:04:05Z",
    "dry_run": False,
    "metadata": {"score": 0.93},
}


def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text("utf-8")))


_EVENT = schema("event")


def end_of(event: dict[str, Any]) -> tuple[str, str, int]:
    """A result event of the published schema: its type, its outcome and its attempts."""
    _EVENT.validate(event)
    return event["type"], event["data"]["outcome"], event["data"]["attempts"]


def expected_text(value: Any) -> str:
    """The id of a row in a table: only the expected text, as the rest may look different in each process."""
    return value if isinstance(value, str) and " " in value else ""


def page_examples() -> list[str]:
    """The programs in ``docs/producing.md``: one that sends jobs, one that tests a producer."""
    page = (ROOT / "docs" / "producing.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "from tasks.lock_conversation import" in block]
