"""Reads dead letters, and makes the messages of new jobs that repeat theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from settings import key_name_problem
from tasks import verbatim
from tasks.message import Rejection
from tasks.task_name import TASK_NAME
from worker.broker.move_limits import KEPT_BYTES
from worker.cli.paging import PageSize
from worker.cli.result import Result, read_result
from worker.message.decode import decoder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from redis import Redis

_read_message = decoder(TASK_NAME)


class NoJobError(ValueError):
    """The message of a dead letter is no valid job; the error says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One entry of the dead stream: its id there, the result in its event, and the message as it came from the queue.

    ``queue`` is the name of that queue; None: it is missing or invalid in the entry.
    """

    entry: str
    result: Result
    message: bytes = field(repr=False)
    queue: str | None = None

    def repeated(self, job_id: str, now: datetime) -> bytes:
        """Return the message of a new job that repeats this one.

        It is made from the message and not from the event. The event of a rejected message has only the fields that
        were understood, and a job made of these could do the opposite of what the producer asked.

        Raises:
            NoJobError: the message is no valid job.
        """
        job = _read_message(self.message, size=len(self.message), now=now)
        if isinstance(job, Rejection):
            # Of a message over 1 MiB, and of any in a letter of an earlier version, so many bytes were kept.
            if self.result.outcome != "rejected" and len(self.message) == KEPT_BYTES:
                raise NoJobError(f"Its message is too large: only the first {KEPT_BYTES:,} bytes were kept.")
            raise NoJobError(self.result.problem if self.result.outcome == "rejected" else job.problem.detail)
        headers: dict[str, Any] = {"task": TASK_NAME, "id": job_id, "replay_of": self.result.job_id}
        if job.expires_at is not None:
            headers["expires"] = job.expires_at.isoformat()
        if job.not_before is not None and job.not_before > now:
            headers["eta"] = job.not_before.isoformat()
        if job.traceparent is not None:
            headers["traceparent"] = job.traceparent
            if job.tracestate is not None:
                headers["tracestate"] = job.tracestate
        message = {
            "headers": headers,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {"body_encoding": "utf-8"},
            "body": verbatim.encode([[], job.received_fields, {}]).decode(),
        }
        return json.dumps(message).encode()


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Selects dead letters. An empty set means all.

    Attributes:
        names: job ids, or entries of the stream.
        outcomes: outcomes.
        errors: error types.
        rules: ids of rules.
        conversations: ids of conversations.
        since_ms: only those that were added then or later, in milliseconds of the server's clock.
    """

    names: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()
    errors: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()
    conversations: frozenset[str] = frozenset()
    since_ms: int | None = None

    def __call__(self, letter: DeadLetter) -> bool:
        """Return True if the filter selects this one."""
        result = letter.result
        return (
            (not self.names or not self.names.isdisjoint({result.job_id, letter.entry}))
            and (not self.outcomes or result.outcome in self.outcomes)
            and (not self.errors or result.error_type in self.errors)
            and (not self.rules or result.rule_id in self.rules)
            and (not self.conversations or any(map(result.is_of_conversation, self.conversations)))
        )

    @property
    def is_some(self) -> bool:
        """Whether it selects anything but all."""
        return self != DeadLetterFilter()


def pages(
    client: Redis, stream: str, chosen: DeadLetterFilter, *, newest: str | None = None
) -> Iterator[list[DeadLetter]]:
    """Yield the selected dead letters in pages, the oldest first, without those added meanwhile.

    Entries of other programs in the stream are skipped. ``newest``: the entry to end at; None: the newest one now.
    """
    if newest is None:
        last: Any = client.xrevrange(stream, count=1)
        newest = last[0][0].decode() if last else None
    page, start = PageSize(), "-" if chosen.since_ms is None else str(chosen.since_ms)
    while newest is not None:
        entries: Any = client.xrange(stream, min=start, max=newest, count=page.count)
        if not entries:
            return
        page.saw(fields for _, fields in entries)
        letters = (_letter(entry.decode(), fields) for entry, fields in entries)
        yield [letter for letter in letters if letter is not None and chosen(letter)]
        start = f"({entries[-1][0].decode()}"


def _letter(entry: str, fields: dict[bytes, bytes]) -> DeadLetter | None:
    result = read_result(fields.get(b"event", b""))
    if result is None:
        return None
    queue = fields.get(b"queue", b"").decode(errors="replace")
    return DeadLetter(entry, result, fields.get(b"message", b""), None if key_name_problem(queue) else queue)
