"""The types of a message on its way from Celery's format to a job.

The worker, which knows Celery's formats, turns a queue message's bytes into a :class:`Message` or an
:class:`UndecodableMessage`. The job's own rules turn that into an :class:`Accepted` job or a :class:`Rejection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from tasks.job import Job
    from tasks.outcome import Problem


@dataclass(frozen=True, slots=True)
class Message:
    """A queue message that could be read.

    Attributes:
        id: the job id; made from the bytes and a random number if the message has none.
        has_own_id: the producer gave the id; a job with a derived id is never a duplicate.
        args: positional arguments, as sent.
        kwargs: keyword arguments, as sent.
        not_before: the time (aware) before which the job must not run, or None.
        expires_at: the time (aware) after which no call may be made for the job, or None.
        traceparent: a well-formed W3C trace context header, or None.
        replay_of: the id of the job that this one repeats, or None.
        ignored: names of the message options that have no effect here (``link``, ``chord``, ...), for a warning.
        tracestate: the W3C header that belongs to the traceparent, or None.
        naive_times: names of the options whose time has no offset and was read as UTC, for a warning.
        unchecked: why its values were not checked for what no job may hold (duplicate keys, deep nesting). If nothing
            else is wrong it is rejected for that, and its event does not repeat its fields.
    """

    id: str
    has_own_id: bool
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    not_before: datetime | None
    expires_at: datetime | None
    traceparent: str | None
    replay_of: str | None
    ignored: tuple[str, ...]
    tracestate: str | None = None
    naive_times: tuple[str, ...] = ()
    unchecked: Problem | None = None


@dataclass(frozen=True, slots=True)
class UndecodableMessage:
    """A queue message that could not be read, and the parts of it that were understood (None if missing).

    ``unchecked`` is as for :class:`Message`.
    """

    id: str
    has_own_id: bool
    problem: Problem
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    replay_of: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    unchecked: Problem | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A valid job.

    Attributes:
        id: the job id.
        fingerprint: what the job id stands for while it is kept (the conversation id); None: the id was derived and is
            not kept.
        job: the job.
        received_fields: the job's fields as received, for the event.
        is_in_shadow: the worker's settings make it a dry run, whatever its ``dry_run`` is.
    """

    id: str
    fingerprint: str | None
    job: Job
    received_fields: Mapping[str, Any]
    not_before: datetime | None
    expires_at: datetime | None
    traceparent: str | None
    replay_of: str | None
    ignored: tuple[str, ...]
    tracestate: str | None = None
    naive_times: tuple[str, ...] = ()
    is_in_shadow: bool = False

    @property
    def subject(self) -> str:
        """The event's subject: the conversation id."""
        return self.job.conversation_id

    @property
    def is_dry_run(self) -> bool:
        """True for a dry run, which is a different thing than the real job with the same id."""
        return self.job.dry_run or self.is_in_shadow


@dataclass(frozen=True, slots=True)
class Rejection:
    """A message that is no valid job. It ends as ``rejected`` without a call.

    Attributes:
        fingerprint: as for :class:`Accepted`; empty if the message has no usable conversation id.
        received_fields: the fields that were understood; None if there are none, or over 16 KiB.
        is_dry_run: its ``dry_run`` is true, or the worker's settings make it a dry run. With any other value there,
            valid or not, it is none.
    """

    id: str
    fingerprint: str | None
    subject: str | None
    problem: Problem
    received_fields: Mapping[str, Any] | None
    replay_of: str | None
    is_dry_run: bool = False
    traceparent: str | None = None
    tracestate: str | None = None


ParsedJob: TypeAlias = Accepted | Rejection
