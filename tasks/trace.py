"""W3C Trace Context: reads a producer's headers, and makes those of a job's calls and its event.

A job has one trace for all its attempts and deliveries: the producer's, or one derived from the job's name in Redis.
Each call is a span of its own in it. The producer decides if the trace is sampled.

A :class:`Trace` records nothing, so a trace that begins with one is not sampled. The worker may record the spans of a
job (``worker.observe.tracing``) and then puts a :class:`JobTrace` of its own in its place.
"""

from __future__ import annotations

import random
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.verdict import Verdict

_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
)
_KEY = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = re.compile(rf"(?:{_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MAX_MEMBERS = 32
_MAX_STATE_CHARACTERS = 512
"""The length that every participant in a trace has to pass on. The last members of a longer one are dropped, as the
standard says."""
_SAMPLED = 0x01
#: A generator of its own: a simulation that seeds the common one gets the same numbers with any traces.
_RNG = random.Random()  # noqa: S311 - a span is no secret


class JobTrace(Protocol):
    """The trace of one delivery of a job: it makes the headers, and hears what they are sent with."""

    @property
    def state(self) -> str | None:
        """The ``tracestate`` that goes out with each call, or None."""

    def call_begins(self) -> str:
        """Return the ``traceparent`` of a call that begins now."""

    def call_ended(self, status: int | None, verdict: Verdict) -> None:
        """Note how the call that began last has ended; ``status`` is the answer's, None if none came."""

    def of_event(self) -> Trace:
        """Return the context that the job's event carries."""


class Trace(NamedTuple):
    """The trace of one job, of which nothing is recorded here.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: the job's own span.
        flags: two hexadecimal digits.
        state: the producer's ``tracestate``, or None.
    """

    trace_id: str
    span_id: str
    flags: str
    state: str | None

    @property
    def traceparent(self) -> str:
        """The header that names the job's own span."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def call_begins(self) -> str:
        """Return the header for one call, with a new span."""
        span = _RNG.getrandbits(64) or 1  # zero means none
        return f"00-{self.trace_id}-{span:016x}-{self.flags}"

    def call_ended(self, status: int | None, verdict: Verdict) -> None:
        """Nothing is recorded."""

    def of_event(self) -> Trace:
        """The event names the job's own span."""
        return self


def of_job(traceparent: str | None, tracestate: str | None, key: tuple[str, str]) -> Trace:
    """Return the trace of a job.

    Args:
        traceparent: the producer's, from :func:`read`.
        tracestate: the producer's, from :func:`read`.
        key: the job's queue, and its permanent name there.
    """
    own_trace_id, span_id = ids_of(key)
    if traceparent is None:
        return Trace(own_trace_id, span_id, "00", None)
    _, trace_id, _, flags = traceparent.split("-")
    return Trace(trace_id, span_id, flags, tracestate)


def ids_of(key: tuple[str, str]) -> tuple[str, str]:
    """Return the ids of a trace that begins with a job, and of the job's own span; the same wherever it is delivered.

    ``key`` is the job's queue, and its permanent name there.
    """
    drawn = blake2b("\0".join(key).encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
    return drawn[:32], drawn[32:]


def read(headers: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return ``traceparent`` and ``tracestate`` of a message's headers; None if missing or not well-formed.

    The first has the form and the flags of version 00. Without it, the second is None too.
    """
    inner = headers.get("headers")  # some tracing libraries for Celery put their headers one level down
    for found in (headers, inner):
        if isinstance(found, dict):
            traceparent = _traceparent(found.get("traceparent"))
            if traceparent is not None:
                return traceparent, _tracestate(found.get("tracestate"))
    return None, None


def _traceparent(value: Any) -> str | None:
    found = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or (found["version"] == "00" and found["more"] is not None):
        return None
    flags = int(found["flags"], 16) & _SAMPLED
    return f"00-{found['trace']}-{found['span']}-{flags:02x}"


def _tracestate(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    kept: list[str] = []
    size = 0
    for member in (member.strip(" \t") for member in value.split(",", _MAX_MEMBERS)[:_MAX_MEMBERS]):
        if not member:
            continue
        if not _MEMBER.fullmatch(member):
            return None
        size += len(member) + len(",")
        if size > _MAX_STATE_CHARACTERS + len(","):
            break
        kept.append(member)
    return ",".join(kept) or None
