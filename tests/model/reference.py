"""What the moves ought to do, once more and in plain Python: no Redis, no time, no bytes on a wire.

The machine makes each move here and on a real server, and compares the answers and then all that stands in Redis.
Where the scripts count in milliseconds, this model knows two states only: a lease holds or has lapsed, a moment is
ahead or has come. Of several that have lapsed or come, the one that did so first goes first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.broker.moves import SUSPICIOUS_CRASHES, ClaimAnswer, CompleteAnswer, Copy, TakeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


@dataclass(slots=True)
class Record:
    """A job that was taken once."""

    message: Message
    token: str
    calls: int = 0
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """A completion. Without ``outcome`` it drops a copy; without ``id`` nothing is remembered.

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
    """A worker's call for jobs; ``held`` is how many it holds already."""

    token: str
    worker: str
    wanted: int
    wanted_bytes: int
    held: int
    is_probe: bool


class Queue:
    """A queue, and every move of its jobs."""

    def __init__(self) -> None:
        self.stock: dict[int, list[Message]] = {0: [], 3: [], 6: [], 9: []}
        self.arrived: list[Message] = []
        self.again: list[str] = []
        self.suspects: list[str] = []
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

    # -- the moves

    def take(self, take: Take, *, is_paused: bool) -> tuple[TakeState, list[str]]:
        """``take.lua``: the state it answers, and the jobs."""
        taken: list[str] = []
        if is_paused:
            return TakeState.PAUSED, taken
        if self.suspects and take.held == 0:
            self.draining = None
            return TakeState.ALONE, [self._hold(self.suspects.pop(0), take.token)]
        if self.suspects:
            self.draining = self.draining or take.worker
            if self.draining == take.worker:
                return TakeState.DRAIN, taken

        names, fresh = "", 0
        ready: list[list[str] | list[Message]] = [self.again, self.arrived, *self.stock.values()]
        for waiting in ready[1:] + ready[:1] if take.is_probe else ready:
            while waiting and len(taken) < take.wanted and self._bytes(taken) < take.wanted_bytes:
                one = waiting.pop(0)
                if isinstance(one, Message):
                    if not names:
                        self.takes_of_new_jobs += 1
                        names = f"{take.token}.{self.takes_of_new_jobs}"
                    fresh += 1
                    taken.append(self._hold_new(one, take.token, f"{names}.{fresh}"))
                else:
                    taken.append(self._hold(one, take.token))
        return (TakeState.JOBS if taken else TakeState.EMPTY), taken

    def _bytes(self, refs: Iterable[str]) -> int:
        return sum(len(self.records[ref].message.kept) for ref in refs)

    def _hold(self, ref: str, token: str) -> str:
        self.records[ref].token = token
        self.leases.add(ref)
        return ref

    def _hold_new(self, message: Message, token: str, ref: str) -> str:
        self.records[ref] = Record(message, token)
        self.counters["taken"] += 1
        return self._hold(ref, token)

    def claim(self, messages: Iterable[Message]) -> list[ClaimAnswer]:
        """``claim.lua`` for messages with an id and a conversation."""
        return [self._claim(message.id or "", message) for message in messages]

    def _claim(self, job_id: str, message: Message) -> ClaimAnswer:
        ended = f"ended {message.conversation}"
        if self.ids.get(f"{job_id}:other" if message.is_dry_run else job_id) == ended:
            return ClaimAnswer.COPY
        known = self.ids.setdefault(job_id, f"claimed {message.conversation}")
        return ClaimAnswer.GO if known in {f"claimed {message.conversation}", ended} else ClaimAnswer.CONFLICT

    def complete(self, ends: Iterable[End]) -> list[CompleteAnswer | Copy]:
        """``complete.lua``."""
        return [self._complete(end) for end in ends]

    def _complete(self, end: End) -> CompleteAnswer | Copy:
        if not self.is_held(end.ref, end.token):
            return CompleteAnswer.GONE
        message = self.records[end.ref].message
        where, other = end.id or "", f"{end.id or ''}:other"
        place = other if end.is_dry_run or not message.conversation else where
        claimed, ended = f"claimed {message.conversation}", f"ended {message.conversation}"
        meaning = self.ids.get(where, "")
        answer: CompleteAnswer | Copy
        if end.outcome is None or (message.conversation and self.ids.get(place) == ended):
            answer = Copy(self.ids.get(f"{place}:unlocked"))
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

    def delay(self, jobs: Iterable[tuple[str, str, int]]) -> list[bool]:
        """``delay.lua`` for triples of ref, token and calls."""
        answers = []
        for ref, token, calls in jobs:
            answers.append(self._let_go(ref, token, calls))
            if answers[-1]:
                self.delayed.add(ref)
                self.counters["delayed"] += 1
        return answers

    def release(self, jobs: Sequence[tuple[str, str, int]]) -> list[bool]:
        """``release.lua`` for triples of ref, token and calls: they go to the front, in their order."""
        answers = []
        for ref, token, calls in reversed(jobs):
            answers.append(self._let_go(ref, token, calls))
            if answers[-1]:
                self._ready_list(ref).insert(0, ref)
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
                poisoned.append(self._hold(ref, token))
            else:
                record.token = ""
                self._ready_list(ref).append(ref)
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
        return self.suspects if self.records[ref].crashes >= SUSPICIOUS_CRASHES else self.again

    # -- what ought to stand in Redis

    def view(self) -> Mapping[str, object]:
        """All of it, in the shape in which :meth:`tests.model.standing.Standing.view` gives what does."""
        return {
            "stock": {step: [message.raw for message in messages] for step, messages in self.stock.items()},
            "arrived": [message.raw for message in self.arrived],
            "again": self.again,
            "suspects": self.suspects,
            "leases": self.leases,
            "lapsed": self.lapsed,
            "delayed": self.delayed,
            "due": self.due,
            "records": {
                ref: (record.message.kept, len(record.message.raw), record.token, record.calls, record.crashes)
                for ref, record in self.records.items()
            },
            "ids": self.ids,
            "events": self.events,
            "dead": self.dead,
            "counters": {name: count for name, count in self.counters.items() if count},
            "draining": self.draining,
        }
