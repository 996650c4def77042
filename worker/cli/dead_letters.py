"""Reads dead letters: what each tells of its job, and the message of a new job that repeats it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.lock_conversation import TASK_NAME
from worker.cli.job_input import BadJob, checked
from worker.cli.result import Result, read_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

#: A dead letter may hold a message of a MiB.
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One entry of the dead stream: its id there, what its event tells, the error's type, and the job as sent."""

    entry: str
    result: Result
    error: str
    job: Any

    def repeated(self, job_id: str) -> bytes:
        """The message of a new job that does the same.

        Raises:
            BadJob: the letter holds no job that is valid.
        """
        if not isinstance(self.job, dict):
            raise BadJob("nothing was understood of the message.")
        fields = checked(self.job)
        if isinstance(fields, BadJob):
            raise fields
        message = {
            "headers": {"task": TASK_NAME, "id": job_id, "replay_of": self.result.job_id},
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {"body_encoding": "utf-8"},
            "body": json.dumps([[], fields, {}]),
        }
        return json.dumps(message).encode()


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters are meant. An empty set means all."""

    job_ids: frozenset[str]
    outcomes: frozenset[str]
    errors: frozenset[str]

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether this one is."""
        return (
            (not self.job_ids or letter.result.job_id in self.job_ids)
            and (not self.outcomes or letter.result.outcome in self.outcomes)
            and (not self.errors or letter.error in self.errors)
        )


def pages(client: Redis, stream: str, chosen: Chosen) -> Iterator[list[DeadLetter]]:
    """The dead letters that are there now, the oldest first, some at a time; none that is added meanwhile.

    What others wrote into the stream is left out.
    """
    newest: Any = client.xrevrange(stream, count=1)
    start = "-"
    while newest:
        entries: Any = client.xrange(stream, min=start, max=newest[0][0], count=_AT_ONCE)
        if not entries:
            return
        letters = (_read(entry.decode(), fields.get(b"event", b"")) for entry, fields in entries)
        yield [letter for letter in letters if letter is not None and chosen(letter)]
        start = f"({entries[-1][0].decode()}"


def _read(entry: str, event: bytes) -> DeadLetter | None:
    result = read_result(event)
    if result is None:
        return None
    data = json.loads(result.text)["data"]
    error = data["error"]
    return DeadLetter(entry, result, str(error.get("type", "")) if isinstance(error, dict) else "", data.get("job"))
