"""The sandbox's own endpoints: change the script and the token of a running server, and read its log.

| request | meaning |
| --- | --- |
| ``GET`` or ``PUT /_sandbox/script`` | the `sandbox.script.Script` in use, as JSON |
| ``PUT /_sandbox/token`` | ``{"token": "..."}``, the only one accepted from now on; null accepts any. Not readable |
| ``GET /_sandbox/calls`` | the log, one JSON object a line; ``DELETE`` empties it and its counts |
| ``GET /_sandbox/stats`` | the counts |

These requests are neither logged nor scripted, and need no token: the sandbox keeps no secrets.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from sandbox.script import Script
from sandbox.wire import message, response

if TYPE_CHECKING:
    from sandbox.http_request import Request
    from sandbox.upstream import Upstream

PREFIX = b"/_sandbox/"


class _Token(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str | None


def control(upstream: Upstream, request: Request) -> bytes:
    """Carry out a control request and return the response to it."""
    match request.method, request.path.removeprefix(PREFIX):
        case "GET", b"script":
            return response(200, upstream.script.model_dump_json().encode())
        case "PUT", b"script" | b"token":
            return _put(upstream, request)
        case "GET", b"calls":
            lines = "".join([f"{call.as_json()}\n" for call in upstream.log.calls()])
            return response(200, lines.encode(), "application/x-ndjson")
        case "DELETE", b"calls":
            upstream.log.reset()
            return message(200, "The log is empty")
        case "GET", b"stats":
            return response(200, json.dumps(upstream.log.stats()).encode())
        case _:
            return message(404, "No such control request")


def _put(upstream: Upstream, request: Request) -> bytes:
    try:
        if request.path == PREFIX + b"script":
            upstream.script = Script.model_validate_json(request.body)
        else:
            upstream.token = _Token.model_validate_json(request.body).token
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        return message(422, "; ".join(problems))
    return message(200, "Changed")
