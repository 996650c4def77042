"""What the moves ought to do, once more and in plain Python: no Redis, no time, no bytes on a wire.

The machine makes each move here and on a real server, and compares the answers and then all that stands in Redis.
Where the scripts count in milliseconds, this model knows two states only: a lease holds or has lapsed, a moment is
ahead or has come, a ready job may still run or is too old, a permit is free or given. Of several that have lapsed or
come, the one that did so first goes first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.broker.move_limits import SUSPICIOUS_CRASHES
from worker.broker.records import ClaimAnswer, CompleteAnswer, Duplicate, TakeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from worker.broker.records import TakeRequest

#: Small enough that a few messages are too large, and that a few are too many for one take.
LARGEST_BYTES = 120
KEPT_BYTES = 60
#: Workers that may die on a job.
POISONOUS_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a producer sent it; the number is the test's own name for it.

    ``id`` is the job id (None: it has none), ``conversation`` is empty where it names none.
    """

    number: int
    id: str | None
    conversation: str
    raw: bytes = field(repr=False)
    is_dry_run: bool = False

    @property
    def beside(self) -> str:
        """What its end is remembered by, where its id stands for another conversation."""
        return f"{self.id}\n{self.conversation}" + ("\ndry run" if self.is_dry_run else "")

    @property
    def kept(self) -> bytes:
        """What a record keeps of it."""
        return self.raw if len(self.raw) <= LARGEST_BYTES else self.raw[:KEPT_BYTES]

    @property
    def in_dead_letter(self) -> bytes:
        """What a dead letter keeps of it."""
        return self.raw[:KEPT_BYTES]


@dataclass(slots=True)
class Record:
    """A job that was taken once.

    ``too_old_at`` is the moment since when its deadline is over (None: it is ahead).
    """

    message: Message
    token: str
    calls: int = 0
    crashes: int = 0
    is_retry: bool = False
    progress: bytes = b""
    has_deadline: bool = False
    too_old_at: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """A completion. Without ``outcome`` it drops a duplicate; without ``id`` nothing is remembered.

    ``event_id``, which is all that the event's id says in this model: the job's, or one of its own.
    """

    ref: str
    token: str
    outcome: str | None
    is_failure: bool
    id: str | None
    event_id: str = ""
    is_dry_run: bool = False
    has_own_id: bool = False


@dataclass(frozen=True, slots=True)
class Take:
    """A worker's call for jobs."""

    token: str
    worker: str
    wanted_bytes: int
    request: TakeRequest


@dataclass(frozen=True, slots=True)
class PutAside:
    """A delay of a job."""

    ref: str
    token: str
    calls: int
    is_retry: bool
    progress: bytes
    has_deadline: bool


@dataclass(slots=True)
class Fleet:
    """The fleet's flow control. A limit here is so low that it gives one permit."""

    version: int = 0
    epoch: int = 0
    rate: float = 0.0
    state: bytes = b""
    answered: int = 0
    failed: int = 0
    is_paused: bool = False
    has_permit: bool = True
    was_probed: bool = False


class Queue:
    """A queue, and every move of its jobs."""

    def __init__(self) -> None:
        self.stock: dict[int, list[Message]] = {0: [], 3: [], 6: [], 9: []}
        self.arrived: list[Message] = []
        self.requeued: list[str] = []
        self.retries: list[str] = []
        self.suspects: list[str] = []
        self.deadlines: set[str] = set()
        self.too_old: dict[str, int] = {}
        self.fleet = Fleet()
        self.records: dict[str, Record] = {}
        self.leases: set[str] = set()
        self.lapsed: list[str] = []
        self.delayed: set[str] = set()
        self.due: list[str] = []
        self.ids: dict[str, str] = {}
        self.events: list[tuple[int, str, str]] = []
        self.dead: list[tuple[int, str, str]] = []
        self.counters: Counter[str] = Counter()
        self.takes_of_new_jobs = 0
        self.draining: str | None = None

    @property
    def waiting(self) -> int:
        """Messages that nobody has taken yet."""
        return len(self.arrived) + sum(map(len, self.stock.values()))

    @property
    def ready(self) -> list[str]:
        """Jobs that are ready again."""
        return [*self.requeued, *self.retries, *self.suspects]

    def is_held(self, ref: str, token: str) -> bool:
        """Whether a token is the one that holds a job."""
        return ref in self.records and self.records[ref].token == token

    # -- what producers, time and the API do

    def send(self, message: Message, priority: int) -> None:
        """A producer pushes a message."""
        self.stock[priority].append(message)

    def arrive(self) -> None:
        """The oldest message of the first priority wakes a worker that waits for it."""
        self.arrived.append(self.stock[0].pop(0))

    def lapse(self, ref: str) -> None:
        """A lease passes without a renewal."""
        self.leases.discard(ref)
        self.lapsed = [other for other in self.lapsed if other != ref] + [ref]

    def come(self, ref: str) -> None:
        """The moment that a delayed job waits for comes."""
        self.delayed.discard(ref)
        self.due = [other for other in self.due if other != ref] + [ref]

    def age(self, ref: str, moment: int) -> None:
        """The deadline of a job passes, whether it is ready or not."""
        self.records[ref].has_deadline, self.records[ref].too_old_at = True, moment
        if ref in self.deadlines or ref in self.too_old:
            self._note_deadline(ref)

    def leave_deadline(self, ref: str, moment: int) -> None:
        """A worker of the version before takes a job and leaves its deadline behind."""
        self.deadlines.discard(ref)
        self.too_old[ref] = moment

    # -- the moves

    def take(self, take: Take) -> tuple[TakeState, list[str]]:
        """``take.lua``: the state it answers, and the jobs."""
        request, fleet, wanted = take.request, self.fleet, take.request.wanted
        fleet.answered += request.answered
        fleet.failed += request.failed
        if fleet.is_paused:
            return TakeState.PAUSED, []
        if request.is_probe and fleet.was_probed and not request.unused:
            return TakeState.LIMITED, []
        if fleet.rate:
            fleet.has_permit = fleet.has_permit or request.unused > 0
            if not fleet.has_permit:
                return TakeState.LIMITED, []
            wanted = min(wanted, 1)
        state, taken = self._take(take, wanted)
        if taken:
            fleet.has_permit = not fleet.rate
            fleet.was_probed = fleet.was_probed or request.is_probe
        return state, taken

    def _take(self, take: Take, wanted: int) -> tuple[TakeState, list[str]]:
        taken: list[str] = []
        request = take.request
        if self.suspects and request.held == 0:
            self.draining = None
            return TakeState.ALONE, [self._hold(self.suspects.pop(0), take.token)]
        if self.suspects:
            self.draining = self.draining or take.worker
            if self.draining == take.worker:
                return TakeState.DRAIN, taken

        for ready, most, is_from_the_end in self._sources(request, wanted):
            begun = len(taken)
            while ready and len(taken) < min(wanted, begun + most) and self._bytes(taken) < take.wanted_bytes:
                one = ready.pop(-1 if is_from_the_end else 0)
                taken.append(self._hold_new(one, take.token, taken) if isinstance(one, Message) else one)
                self._hold(taken[-1], take.token)
        return (TakeState.JOBS if taken else TakeState.EMPTY), taken

    def _sources(self, request: TakeRequest, wanted: int) -> Iterable[tuple[list[str] | list[Message], int, bool]]:
        """The lists in their turn: with how many jobs at most, and whether from the other end. Asked for lazily."""
        new = [(messages, wanted, request.which_new == "newest") for messages in (self.arrived, *self.stock.values())]
        if request.is_probe:
            yield from new
            yield self.requeued, wanted, False
            yield self.retries, wanted, False
            return
        yield self.requeued, wanted, False
        retries = len(self.retries)
        yield self.retries, request.retries_first, False
        yield from new
        yield self.retries, request.max_retries - (retries - len(self.retries)), False

    def _bytes(self, refs: Iterable[str]) -> int:
        return sum(len(self.records[ref].message.kept) for ref in refs)

    def _hold(self, ref: str, token: str) -> str:
        self.records[ref].token = token
        self.leases.add(ref)
        self._drop_deadline(ref)
        return ref

    def _hold_new(self, message: Message, token: str, taken: list[str]) -> str:
        fresh = sum(ref.startswith(f"{token}.{self.takes_of_new_jobs}.") for ref in taken)
        if not fresh:
            self.takes_of_new_jobs += 1
        ref = f"{token}.{self.takes_of_new_jobs}.{fresh + 1}"
        self.records[ref] = Record(message, token)
        self.counters["taken"] += 1
        return ref

    def claim(self, messages: Iterable[Message]) -> list[ClaimAnswer]:
        """``claim.lua`` for messages with an id and a conversation."""
        return [self._claim(message.id or "", message) for message in messages]

    def _claim(self, job_id: str, message: Message) -> ClaimAnswer:
        ended = f"ended {message.conversation}"
        if self.ids.get(f"{job_id}:other" if message.is_dry_run else job_id) == ended:
            return ClaimAnswer.DUPLICATE
        known = self.ids.setdefault(job_id, f"claimed {message.conversation}")
        return ClaimAnswer.GO if known in {f"claimed {message.conversation}", ended} else ClaimAnswer.CONFLICT

    def complete(self, ends: Iterable[End]) -> list[CompleteAnswer | Duplicate]:
        """``complete.lua``."""
        return [self._complete(end) for end in ends]

    def _complete(self, end: End) -> CompleteAnswer | Duplicate:
        if not self.is_held(end.ref, end.token):
            return CompleteAnswer.GONE
        message = self.records[end.ref].message
        where, other = end.id or "", f"{end.id or ''}:other"
        place = other if end.is_dry_run or not message.conversation else where
        claimed, ended = f"claimed {message.conversation}", f"ended {message.conversation}"
        meaning = self.ids.get(where, "")
        answer: CompleteAnswer | Duplicate
        if end.outcome is None or (message.conversation and self.ids.get(place) == ended):
            answer = Duplicate(self.ids.get(f"{place}:unlocked"))
            self.counters["deduplicated"] += 1
        elif message.conversation and meaning.startswith("ended ") and meaning != ended:
            return CompleteAnswer.CONFLICT
        elif not end.has_own_id and (meaning.startswith("ended ") or other in self.ids):
            return CompleteAnswer.TAKEN
        else:
            answer = CompleteAnswer.PUBLISHED
            event = message.number, end.outcome, end.event_id
            self.events.append(event)
            if end.is_failure:
                self.dead.append(event)
            if end.id is not None:
                self.ids[place] = ended
                if end.outcome != "locked":
                    self.ids[f"{place}:unlocked"] = end.outcome
                if end.is_dry_run and meaning in {"", claimed}:
                    self.ids[where] = claimed
            self.counters.update(("finished", f"outcome:{end.outcome}"))
        del self.records[end.ref]
        self._leave_flight(end.ref)
        return answer

    def delay(self, jobs: Iterable[PutAside]) -> list[bool]:
        """``delay.lua``."""
        answers = []
        for job in jobs:
            answers.append(self._let_go(job.ref, job.token, job.calls))
            if answers[-1]:
                record = self.records[job.ref]
                record.is_retry = record.is_retry or job.is_retry
                record.progress = job.progress or record.progress
                if job.has_deadline:
                    record.has_deadline, record.too_old_at = True, None
                self.delayed.add(job.ref)
                self.counters["delayed"] += 1
        return answers

    def restore_attempts(self, jobs: Iterable[tuple[str, int]]) -> None:
        """``restore_attempts.lua`` for pairs of ref and attempts."""
        for ref, attempts in jobs:
            record = self.records.get(ref)
            if record is not None and not record.token:
                record.calls = max(0, record.calls - attempts)

    def expire(self, *, token: str, at_most: int, most_bytes: int) -> list[str]:
        """``expire.lua``: the jobs that are to be ended."""
        expired: list[str] = []
        for ref in sorted(self.too_old, key=self.too_old.__getitem__)[:at_most]:
            if self._bytes(expired) >= most_bytes:
                break
            del self.too_old[ref]
            for ready in (self.requeued, self.retries, self.suspects):
                if ref in ready:
                    ready.remove(ref)
                    expired.append(self._hold(ref, token))
        return expired

    def throttle(self, *, version: int, epoch: int, rate: float, state: bytes) -> bool:
        """``throttle.lua``; what version a change makes, the answer tells."""
        if version != self.fleet.version:
            return False
        self.fleet.epoch, self.fleet.rate, self.fleet.state = epoch, rate, state
        return True

    def release(self, jobs: Sequence[tuple[str, str, int]]) -> list[bool]:
        """``release.lua`` for triples of ref, token and calls: they go to the front, in their order."""
        answers = []
        for ref, token, calls in reversed(jobs):
            answers.append(self._let_go(ref, token, calls))
            if answers[-1]:
                self._ready_list(ref).insert(0, ref)
                self._note_deadline(ref)
                self.counters["released"] += 1
        return answers[::-1]

    def renew(self, jobs: Iterable[tuple[str, str]]) -> list[bool]:
        """``renew.lua`` for pairs of ref and token."""
        answers = []
        for ref, token in jobs:
            answers.append(self.is_held(ref, token))
            if answers[-1]:
                self._leave_flight(ref)
                self.leases.add(ref)
        return answers

    def promote(self, at_most: int) -> int:
        """``promote.lua``: how many jobs it made ready."""
        promoted, self.due = self.due[:at_most], self.due[at_most:]
        for ref in promoted:
            self._ready_list(ref).append(ref)
            self._note_deadline(ref)
        return len(promoted)

    def recover(self, *, token: str, at_most: int, most_bytes: int) -> tuple[int, list[str]]:
        """``recover.lua``: how many jobs it made ready, and those that are to be ended as poisoned."""
        ready = 0
        poisoned: list[str] = []
        for ref in self.lapsed[:at_most]:
            if self._bytes(poisoned) >= most_bytes:
                break
            record = self.records[ref]
            record.crashes += 1
            self.counters["crashes"] += 1
            self._leave_flight(ref)
            if record.crashes >= POISONOUS_CRASHES:
                record.token = token
                self.leases.add(ref)
                poisoned.append(ref)
            else:
                record.token = ""
                self._ready_list(ref).append(ref)
                self._note_deadline(ref)
                ready += 1
        return ready, poisoned

    def _let_go(self, ref: str, token: str, calls: int) -> bool:
        if not self.is_held(ref, token):
            return False
        self.records[ref].token, self.records[ref].calls = "", calls
        self._leave_flight(ref)
        return True

    def _leave_flight(self, ref: str) -> None:
        self.leases.discard(ref)
        self.lapsed = [other for other in self.lapsed if other != ref]

    def _ready_list(self, ref: str) -> list[str]:
        record = self.records[ref]
        if record.crashes >= SUSPICIOUS_CRASHES:
            return self.suspects
        return self.retries if record.is_retry else self.requeued

    def _note_deadline(self, ref: str) -> None:
        self._drop_deadline(ref)
        moment = self.records[ref].too_old_at
        if moment is None:
            self.deadlines.add(ref)
        else:
            self.too_old[ref] = moment

    def _drop_deadline(self, ref: str) -> None:
        self.deadlines.discard(ref)
        self.too_old.pop(ref, None)

    # -- what ought to stand in Redis

    def view(self) -> Mapping[str, object]:
        """All of it, in the shape in which :meth:`tests.model.standing.Standing.view` gives what does."""
        return {
            "stock": {step: [message.raw for message in messages] for step, messages in self.stock.items()},
            "arrived": [message.raw for message in self.arrived],
            "again": self.requeued,
            "retries": self.retries,
            "suspects": self.suspects,
            "deadlines": self.deadlines,
            "too old": sorted(self.too_old, key=self.too_old.__getitem__),
            "fleet": (
                self.fleet.version,
                self.fleet.epoch,
                self.fleet.rate,
                self.fleet.state,
                self.fleet.answered,
                self.fleet.failed,
            ),
            "leases": self.leases,
            "lapsed": self.lapsed,
            "delayed": self.delayed,
            "due": self.due,
            "records": {
                ref: (
                    record.message.kept,
                    len(record.message.raw),
                    record.token,
                    record.calls,
                    record.crashes,
                    record.is_retry,
                    record.progress,
                    record.has_deadline,
                )
                for ref, record in self.records.items()
            },
            "ids": self.ids,
            "events": self.events,
            "dead": self.dead,
            "counters": {name: count for name, count in self.counters.items() if count},
            "draining": self.draining,
        }
