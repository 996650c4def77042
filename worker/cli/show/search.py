"""Looks for jobs in all of Redis, in pages, and changes nothing.

A job moves on while it is looked for: from the lists of new messages to the records of jobs that were taken, and from
there to the streams. The search goes the same way, so that no job slips through.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tasks.message import Accepted
from tasks.task_name import TASK_NAME
from worker.broker.keys import Keys, digest
from worker.cli.result import read_result
from worker.cli.show.findings import Findings
from worker.cli.show.job_view import Place, Remembered
from worker.cli.show.ready import ready_messages
from worker.cli.show.taken import rule_of, still_taken, taken_jobs, time_at
from worker.cli.show.wanted import id_of
from worker.cli.stream_pages import newest_first
from worker.message.controls import read_controls, read_note
from worker.message.decode import decoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from settings import Settings
    from tasks.message import ParsedJob
    from worker.cli.result import Result
    from worker.cli.show.wanted import Wanted
    from worker.message.controls import Control

_decode = decoder(TASK_NAME)


class Search:
    """Looks for jobs. What was found is there also if :meth:`run` was interrupted.

    Args:
        client: a blocking client.
        settings: which queue and streams.
        wanted: which jobs.
        events: how many of the newest events and dead letters are read; None: all.

    Attributes:
        now_ms: the time at which it began, in milliseconds of the server's clock.
        findings: what it has found.
    """

    def __init__(self, client: Redis, settings: Settings, wanted: Wanted, *, events: int | None) -> None:
        self._client = client
        self._settings = settings
        self._wanted = wanted
        self._events = events
        now: Any = client.time()
        self.now_ms = now[0] * 1000 + now[1] // 1000
        self.findings = Findings(self.now_ms)

    def run(self) -> None:
        """Look everywhere.

        Raises:
            RedisError: the server refused, was lost, or took too long.
        """
        queues = self._queues()
        for keys in queues:
            self._look_at_new_messages(keys)
        for keys in queues:
            self._look_at_records(keys)
        self._look_at_streams()
        if self._wanted.job_id is not None:
            self._ask_the_id_memory(self._wanted.job_id, queues)
            if not self.findings.jobs:
                for keys in queues:  # it may have moved against the search: from a delay to a lease and back
                    self._look_at_records(keys)
        self._look_for_cancels()

    def _queues(self) -> list[Keys]:
        """Return the queue of the settings and the others that workers of its fleet took from."""
        own = self._settings.LOCK_QUEUE
        known: Any = self._client.zrange(Keys(own).queues, 0, -1)
        others = {name.decode(errors="replace") for name in known} - {own}
        return [Keys(name) for name in (own, *sorted(others))]

    def _look_at_new_messages(self, keys: Keys) -> None:
        seen: Counter[bytes] = Counter()
        for where, page in ready_messages(self._client, keys):
            for raw, times in Counter(filter(self._wanted.may_be_in_message, page)).items():
                job = self._read(raw, len(raw))
                if self._wanted.is_job(job):
                    # A page may repeat what the one before had, and a producer may have sent the same bytes twice.
                    for _ in range(times - seen[raw]):
                        self.findings.add_new(id_of(job), _new_place(job, keys.queue, where))
                    seen[raw] = max(seen[raw], times)

    def _look_at_records(self, keys: Keys) -> None:
        holds = self._holds()
        for records in taken_jobs(self._client, keys):
            for record in records:
                if self._wanted.may_be_in_message(record.raw):
                    job = self._read(record.raw, record.size)
                    if self._wanted.is_job(job):
                        self.findings.add_record(id_of(job), record.place(job, keys.queue, holds))
        # The streams are read next; they have the events of those that ended meanwhile.
        refs = self.findings.refs(keys.queue)
        self.findings.forget(keys.queue, refs - still_taken(self._client, keys, refs))

    def _holds(self) -> dict[str, Control]:
        """Return the operators' holds by their digests."""
        found: Any = self._client.hgetall(Keys(self._settings.LOCK_QUEUE).controls)
        return {each.selector.digest: each for each in read_controls(found).controls if each.kind == "hold"}

    def _look_for_cancels(self) -> None:
        """Look who cancelled the ids of the jobs that have not ended, and that of a job that may still come."""
        ids = [job.job_id for job in self.findings.jobs if job.place is not None and job.job_id is not None]
        if not self.findings.jobs and self._wanted.job_id is not None:
            ids = [self._wanted.job_id]
        if not ids:
            return
        prefix = Keys(self._settings.LOCK_QUEUE).cancelled_prefix
        answers: Any = self._client.mget([f"{prefix}{digest(job_id)}" for job_id in ids])
        for job_id, text in zip(ids, answers, strict=True):
            note = None if text is None else read_note(text)
            if note is not None:
                self.findings.cancel(job_id, note)

    def _look_at_streams(self) -> None:
        for entry, _, result in self._events_in(self._settings.RESULTS_CHANNEL):
            self.findings.add_end(entry, result)
        for entry, fields, result in self._events_in(self._settings.DEAD_STREAM):
            self.findings.add_letter(entry, fields.get(b"queue", b"").decode(errors="replace") or None, result)

    def _events_in(self, stream: str) -> Iterator[tuple[str, dict[bytes, bytes], Result]]:
        for page in newest_first(self._client, stream, at_most=self._events):
            for entry, fields in page:
                event = fields.get(b"event", b"")
                result = read_result(event) if self._wanted.may_be_in_event(event) else None
                if result is not None and self._wanted.is_result(result):
                    yield entry, fields, result

    def _ask_the_id_memory(self, job_id: str, queues: list[Keys]) -> None:
        for keys in queues:
            key = f"{keys.id_prefix}{digest(job_id)}"
            answers: Any = self._client.mget([key, f"{key}:other", f"{key}:unlocked", f"{key}:other:unlocked"])
            known, other, unlocked, other_unlocked = ((answer or b"").decode(errors="replace") for answer in answers)
            outcome = None
            if known.startswith("ended "):
                outcome = unlocked or "locked"
            elif other.startswith("ended "):
                outcome = other_unlocked or "locked"
            if known or other:
                self.findings.remember(job_id, Remembered(known.startswith("claimed "), outcome))
                return

    def _read(self, raw: bytes, size: int) -> ParsedJob:
        return _decode(raw, size=size, now=time_at(self.now_ms))


def _new_place(job: ParsedJob, queue: str, where: str) -> Place:
    not_before = job.not_before if isinstance(job, Accepted) else None
    return Place(
        state="ready",
        queue=queue,
        where=where,
        conversation_id=job.subject,
        rule_id=rule_of(job),
        due_ms=None if not_before is None else round(not_before.timestamp() * 1000),
        is_dry_run=job.is_dry_run,
    )
