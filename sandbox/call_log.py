"""Records the requests to the sandbox API and its answers.

It is bounded: it keeps the newest calls, and counts the calls of the latest million conversations. The token never
enters it. ``calls``, ``stats`` and ``reset`` may be used from another thread than the server's: they read, or replace,
the records in one step.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from sandbox.http_request import Request

IDS_COUNTED = 1_000_000


@dataclass(slots=True)
class Call:
    """One request, to the endpoint or to any other path. What is no HTTP request at all is refused without a record."""

    number: int
    at_monotonic: float
    at_wall: float
    method: str
    target: bytes
    """The request target exactly as it was on the wire."""
    conversation_id: str | None
    """The percent-decoded path segment; None when the request was not one to lock a conversation."""
    attempt: int
    """The number of this call among those of its conversation, from 1; 0 without a conversation."""
    authorization: Literal["absent", "right", "wrong", "unchecked"]
    idempotency_key: str | None
    traceparent: str | None
    accept: str | None
    user_agent: str | None
    cookie: str | None
    body_size: int
    answer: str = ""
    """The status, or the fault that came in its place: ``200``, ``drop:body``, ``wrong_body:array``."""
    ended_monotonic: float | None = None
    """When the answer, or the drop, was done; None while it is under way, and for ever if the client left before."""


class Stats(TypedDict):
    """Counts since the last reset."""

    calls: int
    conversations: int
    answers: dict[str, int]
    in_flight: int
    peak_in_flight: int


class _Records:
    def __init__(self, limit: int, in_flight: int) -> None:
        self.calls: deque[Call] = deque(maxlen=limit)
        self.attempts: dict[str, int] = {}
        self.answers: Counter[str] = Counter()
        self.total = 0
        self.peak_in_flight = in_flight


class CallLog:
    """The calls, their counts, and how many are being answered."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0
        self._records = _Records(limit, 0)

    def reset(self) -> None:
        """Delete every call and count; calls in flight go on."""
        self._records = _Records(self._limit, self._in_flight)

    def calls(self) -> list[Call]:
        """Return the calls that are kept, oldest first."""
        return list(self._records.calls)

    def stats(self) -> Stats:
        """Return the counts."""
        records = self._records
        return {
            "calls": records.total,
            "conversations": len(records.attempts),
            "answers": dict(records.answers),
            "in_flight": self._in_flight,
            "peak_in_flight": records.peak_in_flight,
        }

    def begin(
        self,
        request: Request,
        conversation_id: str | None,
        authorization: Literal["absent", "right", "wrong", "unchecked"],
    ) -> Call:
        """Record a request that has just come."""
        records = self._records
        records.total += 1
        self._in_flight += 1
        records.peak_in_flight = max(records.peak_in_flight, self._in_flight)
        call = Call(
            number=records.total,
            at_monotonic=time.monotonic(),
            at_wall=time.time(),
            method=request.method,
            target=request.target,
            conversation_id=conversation_id,
            attempt=_count(records.attempts, conversation_id),
            authorization=authorization,
            idempotency_key=request.header(b"idempotency-key"),
            traceparent=request.header(b"traceparent"),
            accept=request.header(b"accept"),
            user_agent=request.header(b"user-agent"),
            cookie=request.header(b"cookie"),
            body_size=len(request.body),
        )
        records.calls.append(call)
        return call

    def decided(self, call: Call, answer: str) -> None:
        """Record the answer that the call is about to get."""
        call.answer = answer
        self._records.answers[answer] += 1

    def end(self, call: Call, *, complete: bool) -> None:
        """Record that the answer ended: complete, or given up because the client left."""
        self._in_flight -= 1
        if complete:
            call.ended_monotonic = time.monotonic()

    def dropped_at_accept(self) -> None:
        """Record a connection that ended before its first request."""
        self._records.answers["drop:accept"] += 1


def _count(attempts: dict[str, int], conversation_id: str | None) -> int:
    if conversation_id is None:
        return 0
    count = attempts.get(conversation_id, 0) + 1
    attempts[conversation_id] = count
    if len(attempts) > IDS_COUNTED:
        del attempts[next(iter(attempts))]
    return count
