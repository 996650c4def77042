"""The messages of the demo: kinds of good and bad ones, each with the outcome that it must have."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sandbox.demo_script import DEMO_SCRIPT
from sandbox.faults import Delay, Respond, WrongBody
from sandbox.script import Rule, Script
from tasks.task_name import TASK_NAME
from worker.cli.producer import OutgoingJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The end of a duplicate, beside the outcomes that events have.
DROPPED = "dropped"

_HANGS_MS = 60_000
_SEED = 20261122


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of message.

    Attributes:
        name: for people.
        share: its share of all messages, of which there is at least one; 0: its number does not follow from a share.
        max_jobs: the most messages of it.
        end: the outcome that each must have.
        ids: the prefix of its conversation ids, which decides on the sandbox's faults.
        fields: the job's fields beside the conversation id.
        seconds: Celery's ``eta`` and ``expires``, in seconds from now.
        task: the task's name.
        raw: makes a message that no Celery client would send, from a job id and a conversation id.
    """

    name: str
    share: float
    end: str
    ids: str = "c"
    fields: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    task: str = TASK_NAME
    raw: Callable[[str, str], bytes] | None = None
    max_jobs: int = 10_000

    def count(self, total: int) -> int:
        """Return how many of ``total`` messages are of this kind."""
        return min(self.max_jobs, max(1, int(total * self.share)))


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of the demo.

    Attributes:
        kind: its kind.
        message: a job for a stock Celery producer, or raw bytes for the queue.
        job_id: the id in it; None: it cannot be read.
        conversation_id: the conversation in it.
    """

    kind: Kind
    message: OutgoingJob | bytes
    job_id: str | None
    conversation_id: str


def make_messages(count: int) -> list[Sent]:
    """Return the messages in the order to send them: mixed, in the same way in every run."""
    special = [_make(kind, number) for kind in _SPECIAL for number in range(kind.count(count))]
    copies = _COPY.count(count)
    valid = [_make(_VALID, number) for number in range(count - len(special) - copies)]
    messages = [
        *valid,
        *special,
        *(Sent(_COPY, job.message, job.job_id, job.conversation_id) for job in valid[:copies]),
    ]
    random.Random(_SEED).shuffle(messages)  # noqa: S311 - no secret depends on it
    return messages


def script(latency_ms: float) -> Script:
    """Return the faults of the sandbox API for these messages."""
    return Script(
        rules=(
            Rule(then=Delay(ms=latency_ms)),
            Rule(ids="hanging*", nth_call=1, then=Delay(ms=_HANGS_MS)),
            Rule(ids="unsure*", nth_call=1, then=WrongBody(what="locked_false")),
            Rule(ids="down*", then=Respond(status=500)),
            *DEMO_SCRIPT.rules,
        )
    )


def _make(kind: Kind, number: int) -> Sent:
    job_id = str(uuid4())
    conversation_id = f"{kind.ids}-{number:04}"
    if kind.raw is not None:
        return Sent(kind, kind.raw(job_id, conversation_id), None if kind is JUNK else job_id, conversation_id)
    now = datetime.now(UTC)
    options = {name: now + timedelta(seconds=seconds) for name, seconds in kind.seconds.items()}
    fields = {"conversation_id": conversation_id, "rule_id": "demo", **kind.fields}
    return Sent(kind, OutgoingJob(fields, {"task_id": job_id, **options}, kind.task), job_id, conversation_id)


def _from_another_language(job_id: str, conversation_id: str) -> bytes:
    """Return the smallest valid message: no ``properties``, no ``delivery_info``, a body that is not encoded."""
    headers = {"task": TASK_NAME, "id": job_id}
    return json.dumps({"headers": headers, "body": json.dumps([[conversation_id], {}, {}])}).encode()


def _junk(job_id: str, _: str) -> bytes:
    return b"\x80\x04\x95 pickled? " + job_id.encode()


_VALID = Kind("a valid job", 0, "locked")
_COPY = Kind("the same job, sent again", 0.04, DROPPED)
JUNK = Kind("bytes that are no message", 0.02, "rejected", raw=_junk)
_SPECIAL = (
    Kind("the API fails twice, then works", 0.06, "locked", ids="flaky"),
    # Few, because each pauses the whole fleet for a second.
    Kind("the API asks to wait for a second (429)", 0.01, "locked", ids="busy", max_jobs=3),
    Kind("the API hangs once", 0.01, "locked", ids="hanging", max_jobs=10),
    Kind("the API says once that it is not locked", 0.02, "locked", ids="unsure"),
    Kind("the API fails every time (500)", 0.02, "exhausted", ids="down"),
    Kind("the API knows no such conversation (404)", 0.05, "refused", ids="missing"),
    Kind("the API forbids it (403)", 0.03, "refused", ids="forbidden"),
    Kind("a job for later (eta)", 0.02, "locked", ids="later", seconds={"eta": 2}),
    Kind("a job that expires before its eta", 0.01, "expired", ids="expired", seconds={"eta": 2, "expires": 1}),
    Kind("a dry run", 0.02, "would_lock", ids="dry", fields={"dry_run": True}),
    Kind("a bare message from another language", 0.03, "locked", ids="bare", raw=_from_another_language),
    Kind("an unknown field", 0.02, "rejected", ids="typo", fields={"dryrun": True}),
    Kind("a conversation id of 300 characters", 0.01, "rejected", ids="long", fields={"conversation_id": "c" * 300}),
    Kind("an unknown task", 0.01, "rejected", ids="unknown", task="moderation.unlock_conversation"),
    JUNK,
)
KINDS = (_VALID, *_SPECIAL, _COPY)
