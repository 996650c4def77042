"""What came in, before and after it is looked at: the neutral types between the broker's envelope and a job.

The worker turns a queue message's bytes into a :class:`Message` or an :class:`UndecodableMessage` (it knows Celery's
formats); the job's own rules turn that into an :class:`Accepted` job or a :class:`Rejection`.
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
        id: the job id; derived and random where the message held none.
        has_own_id: whether the producer gave the id; a derived one is never deduplicated.
        args: positional arguments, as sent.
        kwargs: keyword arguments, as sent.
        not_before: the moment (aware) before which the job must not run, or None.
        expires_at: the moment (aware) after which the job must not be called, or None.
        traceparent: a well-formed W3C trace context header, or None.
        replay_of: the id of the job that this one repeats, or None.
        ignored: names of the message options that have no effect here (``link``, ``chord``, ...), for a warning.
        tracestate: what belongs to the traceparent, or None.
        naive_times: names of the options whose time has no offset and was read as UTC, for a warning.
        unchecked: why its values were not looked at for what no job may hold (duplicate keys, deep nesting). It is
            refused for that, if for nothing else, and its fields are not given back.
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
    """A queue message that could not be read, and what was understood of it nevertheless (null where nothing was).

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
        binding: what the id stands for while it is remembered (the conversation id); None: the id is the worker's own,
            and is not remembered.
        job: the job.
        received_fields: the job's fields as received, for the event.
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

    @property
    def subject(self) -> str:
        """The event's subject: the conversation id."""
        return self.job.conversation_id

    @property
    def is_dry_run(self) -> bool:
        """Whether it is another thing than the real job of its id."""
        return self.job.dry_run


@dataclass(frozen=True, slots=True)
class Rejection:
    """A message that is no valid job; it ends as ``rejected`` without a call.

    Attributes:
        binding: as for :class:`Accepted`; empty where the message held no usable conversation id.
        received_fields: what was understood of the job, or None (nothing, or over 16 KiB).
        is_dry_run: whether it said so. What it said wrong may have been that, but a message that did not say it is no
            dry run.
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
