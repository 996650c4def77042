"""What happened in a round, as plain records that any invariant can be checked against. All times are wall-clock.

Everything runs on one machine, so the times of the harness, the sandbox API and Redis are those of one clock.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tests.chaos.messages import nameless_key
from tests.chaos.plan import Kind
from tests.chaos.steering import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.chaos.plan import Job, Plan
    from tests.chaos.steering import Steer


#: What a primary did so long before a failover its replicas may not have; they are mostly some milliseconds behind.
_FORGOTTEN_SECONDS = 1.0
#: Within so many seconds work goes on, or something is wrong.
_LOOKED_AT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way to Redis.

    Attributes:
        is_sure: Redis said that it has it, and a replica too where there are any; otherwise it may, or may not.
        is_at_primary: the primary said that it has it, and no replica did in time.
    """

    job: str
    raw: bytes = field(repr=False)
    began: float
    ended: float
    is_sure: bool
    is_at_primary: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A result event.

    Attributes:
        at: when Redis added it to the stream.
        tells_of_a_call: by its ``data.history``.
        was_on_hold: by its ``data.history``; also where that is so long that it may have lost its begin.
    """

    id: str
    job_id: str
    subject: str | None
    at: float
    outcome: str
    attempts: int
    problem: str | None
    is_failure: bool
    body: bytes = field(repr=False)
    tells_of_a_call: bool = False
    was_on_hold: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter: the event and the raw message."""

    event: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the API saw it; ``ended`` is None when it could not give its whole answer."""

    conversation: str
    key: str | None
    at: float
    ended: float | None
    answer: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker was killed or stalled, or left jobs behind at its end.

    Attributes:
        at: when.
        pod: which.
        how: for people.
        jobs: whose messages it held then, a job with two of them twice; None: unknown, as Redis could not be asked.
        may_call_late: it lives on, so a call that it was about to make may come after others have ended the job.
    """

    at: float
    pod: str
    how: str
    jobs: tuple[str, ...] | None
    may_call_late: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The end of a worker process.

    Attributes:
        told: what it was told by: SIGTERM, SIGKILL, or nothing.
        was_ready: whether it took jobs by then.
        seconds: how long it took from then.
    """

    pod: str
    at: float
    status: int
    told: str
    was_ready: bool
    seconds: float
    log_tail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which something was so."""

    begin: float
    end: float

    def touches(self, begin: float, end: float) -> bool:
        """Whether a time and this one have a moment in common."""
        return begin <= self.end and end >= self.begin


@dataclass(frozen=True, slots=True)
class Steered:
    """What an operator did.

    Attributes:
        began: when it was begun.
        done: when Redis had it.
        obeyed: when all workers told that they obey; None: that was not seen while it was in force.
        lifted: when its undoing began, or its time was over; infinite where it is for good.
    """

    steer: Steer
    began: float
    done: float
    obeyed: float | None
    lifted: float

    def is_for(self, job: Job) -> bool:
        """Whether it means a job."""
        if self.steer.action.is_pause:
            return True
        if job.kind in {Kind.INVALID, Kind.NAMELESS}:
            return False
        if self.steer.action in {Action.CANCEL_IDS, Action.REVOKE}:
            return job.id in self.steer.jobs
        return self.steer.who == (job.actor if self.steer.action is Action.HOLD_ACTOR else job.rule)


@dataclass(frozen=True, slots=True)
class Failover:
    """The queue went to another server.

    Attributes:
        how: for people.
        began: when that was caused.
        until: by then the old primary is none any more; what it did meanwhile, and just before, may be forgotten.
        is_lossless: all keys were handed over, and nothing is forgotten.
        is_split: until then there are two primaries, and a replica of the old one acknowledges what will be forgotten.
        published: the events that a primary had which was cut off, when that was over.
    """

    how: str
    began: float
    until: float
    is_lossless: bool = False
    is_split: bool = False
    published: frozenset[bytes] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class RuleHold:
    """A hold of a rule by its limit; ``at`` is when Redis set it."""

    rule: str
    at: float


@dataclass(frozen=True, slots=True)
class Ran:
    """A command of an operator's.

    Attributes:
        was_interrupted: by a SIGINT, as by Ctrl-C.
        output: what it said, at its end.
    """

    arguments: tuple[str, ...]
    status: int
    was_interrupted: bool
    output: str = field(repr=False)


@dataclass
class History:
    """A round, as it went.

    Attributes:
        began: when the first thing was done.
        away: when the API cut its connections and refused new ones.
        late: when the harness's own clock of calls was late, and by how much: seen in the API's event loop.
        left: what is left of jobs in Redis: the name of the place, and how many.
        strays: keys that stay for ever and are not meant to.
        counters: the worker's totals; None for a target that keeps none.
        steered: what operators did.
        commands: the commands that they ran.
        trail: the events in the control stream: what was done, and its reason.
        held_rules: the holds of rules by their limits.
        failovers: when the queue went to another server.
    """

    plan: Plan
    began: float
    attempt_timeout: float
    messages: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    away: list[Span] = field(default_factory=list)
    late: list[Span] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    counters: dict[str, int] | None = None
    steered: list[Steered] = field(default_factory=list)
    commands: list[Ran] = field(default_factory=list)
    trail: list[tuple[str, str]] = field(default_factory=list)
    held_rules: list[RuleHold] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)

    def key_of(self, event: Event) -> str:
        """The key of the job that an event is about."""
        if event.job_id in self._shared_ids:
            return f"{event.job_id} {event.subject}"
        if event.job_id.startswith("anonymous-"):  # the worker's own: a digest of the message, and a random part
            return self._nameless.get(event.job_id.rpartition("-")[0], event.job_id)
        return event.job_id

    def lines_of(self, key: str) -> list[str]:
        """All that happened to a job, in order, for people."""
        told = [(message.began, f"sent{'' if message.is_sure else ', perhaps'}") for message in self.messages_of[key]]
        told += [
            (call.at, f"called, answered {call.answer} {_after(call)}; key {call.key}") for call in self.calls_of(key)
        ]
        told += [
            (event.at, f"event {event.id}: {event.outcome}, attempts {event.attempts}, {event.problem}")
            for event in self.events_of[key]
        ]
        told += self._steers_of(key)
        told += [(loss.at, f"{loss.pod}: {loss.how}, {_held(loss)}") for loss in set(self.losses_of(key))]
        return [f"{at - self.began:9.3f} s  {what}" for at, what in sorted(told) if at != float("inf")]

    def _steers_of(self, key: str) -> Iterator[tuple[float, str]]:
        for each in self.steered:
            if key in self.jobs and each.is_for(self.jobs[key]):
                obeyed = "not seen" if each.obeyed is None else f"{each.obeyed - self.began:.3f} s"
                yield each.began, f"{each.steer.action} {each.steer.who}, obeyed: {obeyed}"
                yield each.lifted, f"end of {each.steer.action} {each.steer.who}"

    def calls_of(self, key: str) -> Sequence[Call]:
        """The calls for a job."""
        job = self.jobs.get(key)
        return self._calls_by_conversation[job.conversation] if job else ()

    def losses_of(self, key: str) -> list[Loss]:
        """The losses that the job was in the middle of, for certain or perhaps; once for each message lost."""
        sent = [message.began for message in self.messages_of[key]]
        if not sent:
            return []
        ended = min((event.at for event in self.events_of[key]), default=float("inf"))
        unknown = [loss for loss in self._unknown_losses if min(sent) <= loss.at <= ended]
        return [*self._losses_by_job[key], *unknown * len(sent)]

    def is_half_known(self, key: str) -> bool:
        """Whether a primary may have forgotten some of what was done for a job: calls, and attempts."""
        sent = min((message.began for message in self.messages_of[key]), default=float("inf"))
        ended = max((event.at for event in self.events_of[key]), default=float("inf"))
        return self.fails_over_between(sent, ended)

    def fails_over_between(self, begin: float, end: float) -> bool:
        """Whether a primary may have forgotten what was done in a time."""
        return any(
            begin <= each.until and end >= each.began - _FORGOTTEN_SECONDS
            for each in self.failovers
            if not each.is_lossless
        )

    def seconds_without_event(self, failover: Failover) -> float:
        """The longest time without an event that touches a failover, or its first seconds if it takes longer."""
        moments = sorted({failover.began, *(event.at for event in self.events)})
        end = failover.began + _LOOKED_AT_SECONDS
        return max(
            (after - at for at, after in itertools.pairwise(moments) if after >= failover.began and at <= end),
            default=0.0,
        )

    def is_acknowledged(self, begin: float, end: float) -> bool:
        """Whether what a primary and a replica acknowledged in this time must be kept."""
        return not any(begin <= each.until and end >= each.began for each in self.failovers if each.is_split)

    def forgotten_jobs(self, *, had_replica: bool) -> list[str]:
        """The jobs without an event that a primary had acknowledged, with a replica or alone."""
        found = []
        for key in self.jobs:
            messages = self.messages_of[key]
            is_sure = any(each.is_sure for each in messages)
            if not self.events_of[key] and (is_sure if had_replica else not is_sure and _any_at_primary(messages)):
                found.append(key)
        return found

    def forgotten_in(self, failover: Failover, *, had_replica: bool) -> int:
        """How many of them were sent last in this failover, or just before, and not in a later one."""
        later = [each.began for each in self.failovers if each.began > failover.began]
        begin, end = (at - _FORGOTTEN_SECONDS for at in (failover.began, min(later, default=float("inf"))))
        sent = [
            max(each.ended for each in self.messages_of[key]) for key in self.forgotten_jobs(had_replica=had_replica)
        ]
        return sum(begin <= at < end for at in sent)

    def forgotten_events(self, failover: Failover) -> int:
        """How many events a primary that was cut off had published which its successor does not have."""
        return len(failover.published - {event.body for event in self.events})

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """The planned jobs."""
        return {job.key: job for job in self.plan.jobs}

    @cached_property
    def messages_of(self) -> Mapping[str, list[Message]]:
        """The messages of each job."""
        found: dict[str, list[Message]] = defaultdict(list)
        for message in self.messages:
            found[message.job].append(message)
        return found

    @cached_property
    def events_of(self) -> Mapping[str, list[Event]]:
        """The events of each job."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            found[self.key_of(event)].append(event)
        return found

    @cached_property
    def _calls_by_conversation(self) -> Mapping[str, list[Call]]:
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            found[call.conversation].append(call)
        return found

    @cached_property
    def _losses_by_job(self) -> Mapping[str, list[Loss]]:
        found: dict[str, list[Loss]] = defaultdict(list)
        for loss in self.losses:
            for key in loss.jobs or ():
                found[key].append(loss)
        return found

    @cached_property
    def _unknown_losses(self) -> list[Loss]:
        return [loss for loss in self.losses if loss.jobs is None]

    @cached_property
    def _nameless(self) -> dict[str, str]:
        return {nameless_key(message.raw): message.job for message in self.messages}

    @cached_property
    def _shared_ids(self) -> set[str]:
        return {job.id for job in self.plan.jobs if job.kind is Kind.CONFLICT}


def _any_at_primary(messages: Sequence[Message]) -> bool:
    return any(each.is_at_primary for each in messages)


def _after(call: Call) -> str:
    return "in part or not at all" if call.ended is None else f"after {call.ended - call.at:.3f} s"


def _held(loss: Loss) -> str:
    return "perhaps with this job" if loss.jobs is None else f"with this job, among {len(loss.jobs)}"
