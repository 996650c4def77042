"""The faults of the sandbox API: a closed set of frozen models, each one way in which a real API fails.

These are data only, so that a script can be written in Python or as JSON, where ``kind`` names the model.
``sandbox.wire`` says how a fault looks on the wire, and ``sandbox.script`` when one happens.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MEBIBYTE = 1 << 20


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Delay(_Fault):
    """Wait before the answer, always as long. A delay beyond every timeout is an API that hangs."""

    kind: Literal["delay"] = "delay"
    ms: float = Field(ge=0)


class DelayBetween(_Fault):
    """Wait before the answer, evenly distributed between two bounds."""

    kind: Literal["delay_between"] = "delay_between"
    low_ms: float = Field(ge=0)
    high_ms: float = Field(ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low_ms > self.high_ms:
            raise ValueError("low_ms must not be above high_ms")
        return self


class DelayLognormal(_Fault):
    """Wait before the answer with the long tail that real APIs have: half of the calls wait longer than the median."""

    kind: Literal["delay_lognormal"] = "delay_lognormal"
    median_ms: float = Field(gt=0)
    sigma: float = Field(gt=0, le=5)


class Respond(_Fault):
    """Answer with this status, these headers, verbatim (``Retry-After``, ``Location``, ``Set-Cookie``), and this body.

    Without a body, a 2xx has the right conversation, and any other status a short JSON message.
    """

    kind: Literal["respond"] = "respond"
    status: int = Field(ge=200, le=599)
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None
    content_type: str = "application/json"


class Drop(_Fault):
    """Close the connection without notice: at the accept, or after the request, half the head or half the body.

    ``after_answer`` is a keep-alive connection that the server closes unannounced, so that the client meets it on its
    next request. ``reset`` sends a RST where there would be a FIN.
    """

    kind: Literal["drop"] = "drop"
    at: Literal["accept", "request", "headers", "body", "after_answer"]
    reset: bool = False


class Drip(_Fault):
    """Send one byte every so often: ``size`` bytes and then the rest of the right answer at once, or for ever.

    In the body these are blanks before the JSON; in the head they are the value of a header.
    """

    kind: Literal["drip"] = "drip"
    every_ms: float = Field(gt=0)
    size: int | None = Field(default=None, ge=1)
    part: Literal["head", "body"] = "body"


class Oversized(_Fault):
    """A right answer with a further field of ``size`` bytes; ``chunked`` hides the length until it has all come."""

    kind: Literal["oversized"] = "oversized"
    size: int = Field(ge=1, le=4096 * _MEBIBYTE)
    chunked: bool = False


class GzipBomb(_Fault):
    """As ``Oversized``, but compressed a thousandfold."""

    kind: Literal["gzip_bomb"] = "gzip_bomb"
    size: int = Field(ge=1, le=4096 * _MEBIBYTE)


Wrongness: TypeAlias = Literal[
    "empty",
    "not_json",
    "not_utf8",
    "array",
    "other_id",
    "id_missing",
    "locked_false",
    "locked_missing",
    "extra_fields",
    "unknown_enum",
    "nulls",
]


class WrongBody(_Fault):
    """A 200 whose body does not confirm the lock, or that does but strays from the documented shape.

    ``extra_fields``, ``unknown_enum`` and ``nulls`` are of the second sort.
    """

    kind: Literal["wrong_body"] = "wrong_body"
    what: Wrongness


class GarbageStatusLine(_Fault):
    """Something that is no HTTP where the status line belongs."""

    kind: Literal["garbage_status_line"] = "garbage_status_line"
    line: str = "220 mail.example ESMTP ready"


class HugeHeaders(_Fault):
    """A right answer with a header of ``size`` bytes."""

    kind: Literal["huge_headers"] = "huge_headers"
    size: int = Field(ge=1, le=64 * _MEBIBYTE)


AnyDelay: TypeAlias = Delay | DelayBetween | DelayLognormal
"""What comes before an answer."""

AnyAnswer: TypeAlias = Respond | Drop | Drip | Oversized | GzipBomb | WrongBody | GarbageStatusLine | HugeHeaders
"""What comes in place of the right answer."""

Fault: TypeAlias = Annotated[AnyDelay | AnyAnswer, Field(discriminator="kind")]
