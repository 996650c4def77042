"""Writes the pages of this folder that are made from the code: ``python -m docs.generate``.

A test compares them with what is here, so none of them goes out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from docs import json_schemas
from docs.asyncapi import asyncapi
from docs.metrics import metrics_page
from settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent

_SETTINGS_HEAD = """\
# Settings

<!-- Made from settings.py by `make docs`; do not edit. -->

Every option is an environment variable. An empty one counts as not set. A wrong one stops the start with a message that
names every problem at once. A variable that looks like one of these and is none is named in a warning at the start
(`setting_unknown` in [logging.md](logging.md)), and `worker_started` there lists what is not the default. Traces are
switched on by OpenTelemetry's own variables (`OTEL_...`), which its SDK reads ([tracing.md](tracing.md)).

| Name | Default | Unit | Bounds | Meaning |
| --- | --- | --- | --- | --- |
"""


def settings_page() -> str:
    """The table of all options."""
    schema = Settings.model_json_schema()["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        found = schema[name]
        cells = (
            f"`{name}`",
            _default(field.default),
            found.get("unit", ""),
            _bounds({**found, **found.get("anyOf", [{}])[0]}),
            field.description or "",
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    return _SETTINGS_HEAD + "".join(rows)


def _default(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
        case SecretStr():
            return f"`{value.get_secret_value()}`"
        case _:
            return f"`{value}`"


def _bounds(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "minimum" in schema:
        return f"{schema['minimum']:,} to {schema['maximum']:,}"
    if "exclusiveMinimum" in schema:
        return f"over {schema['exclusiveMinimum']:,} to {schema['maximum']:,}"
    if "maxLength" in schema:
        return f"{schema['minLength']} to {schema['maxLength']} characters"
    if schema.get("type") == "boolean":
        return "`true`, `false`"
    return ""


def _as_json(made: Callable[[], dict[str, Any]]) -> Callable[[], str]:
    return lambda: json.dumps(made(), indent=2, ensure_ascii=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "asyncapi.json": _as_json(asyncapi),
    "schemas/job.json": _as_json(json_schemas.job),
    "schemas/message.json": _as_json(json_schemas.message),
    "schemas/event.json": _as_json(json_schemas.event),
}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (FOLDER / page).write_text(text(), encoding="utf-8")
