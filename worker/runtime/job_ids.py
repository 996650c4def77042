"""What a job's id stands for while it is remembered, and the ids of events that the job's id cannot name.

Redis holds digests of both the id and the conversation: they are short, whatever a producer sends.

An event has its job's id, unless another event has that id already. The first event gets it: a lone dry run has its
job's id like any other job, and where a dry run came before its job, the job's event gets an id of its own. The step
that publishes decides, so two events never have the same id. The event's own id is derived from the job, so each worker
would choose the same one.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from worker.broker.keys import digest
from worker.broker.records import Claim

if TYPE_CHECKING:
    from tasks.message import ParsedJob
    from worker.broker.records import Delivery

EVENT_NAMESPACE = uuid.UUID("35cdaaa5-80cb-5ecf-8558-f29e11864c15")
"""The UUIDv5 of the URL ``urn:lock-worker:event``; it must never change."""

_RECORD_CHARACTERS = 16


def with_lasting_id(intake: ParsedJob, delivery: Delivery) -> ParsedJob:
    """Return a job whose message names no id with one that is the same in each delivery; any other job as it is.

    So all calls of the job carry one ``Idempotency-Key``. It begins like the id that the parser derived, with a digest
    of the message, and ends with one of the job's record, whose name no other job has.
    """
    if intake.fingerprint is not None:
        return intake
    record = digest(f"{delivery.queue}\n{delivery.ref}")[:_RECORD_CHARACTERS]
    return replace(intake, id=f"{intake.id.rpartition('-')[0]}-{record}")


def to_claim(intake: ParsedJob) -> Claim | None:
    """Return what a job's id is to stand for before it begins; None: the message names no id, or no conversation."""
    return Claim(digest(intake.id), digest(intake.fingerprint), intake.is_dry_run) if intake.fingerprint else None


def to_remember(intake: ParsedJob, *, is_conflict: bool, has_own_id: bool) -> Claim:
    """Return what the end of a job is remembered by; with an empty digest it is not remembered.

    In a conflict the id goes on standing for what it stood for, and this end is remembered beside it.
    """
    fingerprint = digest(intake.fingerprint) if intake.fingerprint else ""
    if is_conflict:
        return Claim(digest(_beside(intake)), fingerprint)
    if intake.fingerprint is None or (has_own_id and not intake.fingerprint):
        return Claim("", "")
    return Claim(digest(intake.id), fingerprint, intake.is_dry_run)


def own_event_id(intake: ParsedJob, *, is_conflict: bool) -> str:
    """Return the id of an event that its job's id cannot name.

    No other event has it as long as the end is remembered. A message that names no conversation is never a duplicate,
    however alike, so theirs is random.
    """
    if not intake.fingerprint:
        return str(uuid.uuid4())
    return str(uuid.uuid5(EVENT_NAMESPACE, f"{_beside(intake)}\n{'conflict' if is_conflict else 'second'}"))


def _beside(intake: ParsedJob) -> str:
    """Return id and fingerprint in one text. Neither holds a line break, so no two jobs have the same."""
    return f"{intake.id}\n{intake.fingerprint}" + ("\ndry run" if intake.is_dry_run else "")
