"""Reads the forms that Celery's JSON gives to Python values that JSON does not have.

kombu writes ``uuid.UUID`` as ``{"__type__": "uuid", "__value__": {"hex": ...}}`` and ``datetime`` as ``{"__type__":
"datetime", "__value__": "2026-11-22T15:04:05+00:00"}``, and in the same way bytes, dates, times and decimals. A
producer that passes such a value to Celery never sees that form.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from tasks import rfc3339

_MARKS = {"__type__", "__value__"}
_TYPES = {
    "uuid": "UUID",
    "datetime": "datetime",
    "date": "date",
    "time": "time",
    "decimal": "Decimal",
    "bytes": "bytes",
    "base64": "bytes",
}
_HEX = re.compile(r"[0-9a-fA-F]{32}")


def python_type(value: Any) -> str | None:
    """Return the name of the Python type that Celery wrote as this value; None for an ordinary JSON value."""
    if isinstance(value, dict) and value.keys() == _MARKS and isinstance(value["__type__"], str):
        return _TYPES.get(value["__type__"])
    return None


def as_text(value: Any) -> Any:
    """Return a UUID or a datetime as its text, and every other value unchanged."""
    match python_type(value):
        case "UUID":
            hex_digits = value["__value__"].get("hex") if isinstance(value["__value__"], dict) else None
            if isinstance(hex_digits, str) and _HEX.fullmatch(hex_digits):
                return str(uuid.UUID(hex_digits))
        case "datetime":
            if rfc3339.is_isoformat(value["__value__"]):
                return value["__value__"]
    return value


def bytes_text(value: Any) -> tuple[str, bool] | None:
    """Return the text that Celery wrote for bytes, and True if it is base64; None for any other value."""
    if python_type(value) == "bytes" and isinstance(value["__value__"], str):
        return value["__value__"], value["__type__"] == "base64"
    return None
