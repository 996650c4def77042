"""Which jobs ``lock-worker show`` looks for: one by its id, or all of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.message import ParsedJob
    from worker.cli.result import Result

#: JSON writes these in more than one way, beside what it writes as ``\\u``.
_ESCAPED = frozenset('"\\/')


@dataclass(frozen=True, slots=True)
class Wanted:
    """The job with this id, or all jobs for this conversation: exactly one of the two is given."""

    job_id: str | None = None
    conversation_id: str | None = None

    def may_be_in_message(self, raw: bytes) -> bool:
        """Return False if a queue message is surely not of a wanted job; it is so quick that most need no decoding.

        Messages of Celery's protocol 2 have the job id as plain JSON, and name their task beside it. The body, which
        holds the conversation, is mostly in base64.
        """
        if self.job_id is None or b'"task"' not in raw:
            return True
        return self._may_hold(raw, self.job_id)

    def may_be_in_event(self, event: bytes) -> bool:
        """The same for an event."""
        return self._may_hold(event, self.job_id if self.job_id is not None else self.conversation_id or "")

    def is_job(self, job: ParsedJob) -> bool:
        """Return True if a message's job is wanted."""
        if self.job_id is not None:
            return id_of(job) == self.job_id
        return job.subject == self.conversation_id

    def is_result(self, result: Result) -> bool:
        """Return True if an event is of a wanted job."""
        if self.job_id is not None:
            return result.job_id == self.job_id
        return result.is_of_conversation(self.conversation_id or "")

    @staticmethod
    def _may_hold(text: bytes, name: str) -> bool:
        return bool(_ESCAPED.intersection(name)) or name.encode("utf-8", "surrogatepass") in text or b"\\u" in text


def id_of(job: ParsedJob) -> str | None:
    """Return the id of a message's job; None: its producer gave it none, and each reading makes up another."""
    return None if job.fingerprint is None else job.id
