"""What the moves ought to do, once more and in plain Python: no Redis, no time, no bytes on a wire.

The machine makes each move here and on a real server, and compares the answers and then all that stands in Redis.
Where the scripts count in milliseconds, this model knows two states only: a lease holds or has lapsed, a moment is
ahead or has come, a ready job may still run or is too old, a permit is free or given. Of several that have lapsed or
come, the one that did so first goes first. How long a job was on hold, and operators paused the fleet, is counted in
long times (``LONG_MS``); what is shorter does not count.
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
#: So long the machine says that a pause or a hold has lasted already: longer than any job may live.
LONG_MS = 7_200_000
#: The answer of a count of jobs that sets a hold.
HELD_BY_THIS_CALL = 2
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

    def in_dead_letter(self, outcome: str) -> bytes:
        """What the dead letter of this outcome keeps of it."""
        return self.kept[:KEPT_BYTES] if outcome == "rejected" else self.kept


@dataclass(slots=True)
class Record:
    """A job that was taken once.

    ``too_old_at`` is the moment, on the clock of ages, at which its deadline is over (None: it is ahead). ``offset`` is
    where its age begins, seen from its first take, and ``held_at`` since when it is on hold, both in long times.
    ``is_counted``: for the limit of its rule.
    """

    message: Message
    token: str
    calls: int = 0
    crashes: int = 0
    is_retry: bool = False
    progress: bytes = b""
    has_deadline: bool = False
    too_old_at: int | None = None
    offset: int = 0
    held_at: int = 0
    is_counted: bool = False


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


@dataclass(slots=True)
class Controls:
    """What operators asked for.

    ``holds`` tells of each whether its time is over, ``has_pause`` that one is noted, which may be over, too.
    ``behind`` is how far the clock of ages is behind, in long times. ``counted`` are the jobs of the one rule that
    has a limit, since its last hold.
    """

    version: int = 0
    holds: dict[str, bool] = field(default_factory=dict)
    has_pause: bool = False
    is_pausing: bool = False
    behind: int = 0
    cancelled: set[str] = field(default_factory=set)
    counted: int = 0

    def is_in_force(self, hold: str) -> bool:
        """Whether jobs of a hold are to stay where they are."""
        return not self.holds.get(hold, True)


class Queue:
    """A queue, and every move of its jobs. ``began_ms`` is the server's time before the first."""

    def __init__(self, began_ms: int) -> None:
        self._began_ms = began_ms
        self.stock: dict[int, list[Message]] = {0: [], 3: [], 6: [], 9: []}
        self.arrived: list[Message] = []
        self.requeued: list[str] = []
        self.retries: list[str] = []
        self.suspects: list[str] = []
        self.deadlines: dict[str, int | None] = {}
        self.fleet = Fleet()
        self.controls = Controls()
        self.records: dict[str, Record] = {}
        self.leases: set[str] = set()
        self.lapsed: list[str] = []
        self.delayed: set[str] = set()
        self.due: list[str] = []
        self.on_hold: set[tuple[str, str]] = set()
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

    @property
    def too_old(self) -> list[str]:
        """Jobs whose deadline is over, the first one first. A later pause of the past brings time back."""
        age_ms = self._began_ms - self.controls.behind * LONG_MS
        over = {ref: moment for ref, moment in self.deadlines.items() if moment is not None and moment < age_ms}
        return sorted(over, key=over.__getitem__)

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
        if ref in self.deadlines:
            self._note_deadline(ref)

    def leave_deadline(self, ref: str, moment: int) -> None:
        """A worker of the version before takes a job and leaves its deadline behind."""
        self.deadlines[ref] = moment

    # -- what operators do

    def pause(self) -> None:
        """``control.lua``: no worker takes jobs, and nobody gets older."""
        self.controls.has_pause = self.controls.is_pausing = True

    def pause_for_long(self) -> None:
        """The pause has lasted."""
        self.controls.behind += 1

    def end_pause(self) -> None:
        """The time of a pause is over."""
        self.controls.is_pausing = False

    def resume(self) -> bool:
        """``control.lua``."""
        was_pausing = self.controls.is_pausing
        self.controls.has_pause = self.controls.is_pausing = False
        return was_pausing

    def set_hold(self, hold: str) -> None:
        """``control.lua``; it drops what is over."""
        self.controls.holds = {each: is_over for each, is_over in self.controls.holds.items() if not is_over}
        self.controls.holds[hold] = False

    def remove_hold(self, hold: str) -> bool:
        """``control.lua``."""
        return self.controls.holds.pop(hold, None) is not None

    def cancel(self, ids: Iterable[str], *, is_new_only: bool) -> bool:
        """``cancel.lua``: whether that is news."""
        new = set(ids) - self.controls.cancelled
        self.controls.cancelled |= new
        return bool(new) or not is_new_only

    def count_rules(self, jobs: Iterable[tuple[str, str]], *, hold: str, limit: int) -> int:
        """``count_rules.lua`` for the refs and tokens of the jobs of one rule."""
        new = [ref for ref, token in jobs if self.is_held(ref, token) and not self.records[ref].is_counted]
        for ref in new:
            self.records[ref].is_counted = True
        if self.controls.is_in_force(hold):
            return 1
        self.controls.counted += len(new)
        if not new or self.controls.counted <= limit:
            return 0
        self.controls.holds[hold] = False
        self.controls.counted = 0
        return HELD_BY_THIS_CALL

    # -- the moves

    def take(self, take: Take) -> tuple[TakeState, list[str]]:
        """``take.lua``: the state it answers, and the jobs."""
        request, fleet, wanted = take.request, self.fleet, take.request.wanted
        fleet.answered += request.answered
        fleet.failed += request.failed
        if fleet.is_paused or self.controls.is_pausing:
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
        self.records[ref] = Record(message, token, offset=-self.controls.behind)
        self.counters["taken"] += 1
        return ref

    def claim(self, messages: Sequence[Message]) -> list[ClaimAnswer]:
        """``claim.lua`` for messages with an id and a conversation."""
        answers = [self._claim(message.id or "", message) for message in messages]
        return [
            ClaimAnswer.CANCELLED if answer is ClaimAnswer.GO and message.id in self.controls.cancelled else answer
            for message, answer in zip(messages, answers, strict=True)
        ]

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

    def hold(self, jobs: Iterable[tuple[str, str, int, bytes, str]]) -> list[bool]:
        """``hold.lua`` for ref, token, calls, progress and the hold."""
        answers = []
        for ref, token, calls, progress, hold in jobs:
            answers.append(self._let_go(ref, token, calls))
            if answers[-1]:
                record = self.records[ref]
                record.progress = progress or record.progress
                record.held_at = -self.controls.behind
                self.on_hold.add((hold, ref))
                self.counters["held"] += 1
        return answers

    def release_held(self, at_most: int) -> int:
        """``release_held.lua``: how many jobs it made ready."""
        free = [(hold, ref) for hold, ref in sorted(self.on_hold) if not self.controls.is_in_force(hold)][:at_most]
        for hold, ref in free:
            self._leave_hold(hold, ref)
            self._ready_list(ref).append(ref)
            self._note_deadline(ref)
        return len(free)

    def wake(self, refs: Iterable[str]) -> int:
        """``wake.lua``: how many jobs it made ready. They are to be ended, so no retry waits beside new jobs."""
        woken = 0
        holds = {ref: hold for hold, ref in self.on_hold}
        for ref in refs:
            if ref in holds and (holds[ref], ref) in self.on_hold:
                self._leave_hold(holds[ref], ref)
            elif ref in self.delayed or ref in self.due:
                self.delayed.discard(ref)
                self.due = [other for other in self.due if other != ref]
            else:
                continue
            is_suspect = self.records[ref].crashes >= SUSPICIOUS_CRASHES
            (self.suspects if is_suspect else self.requeued).append(ref)
            self._note_deadline(ref)
            woken += 1
        return woken

    def _leave_hold(self, hold: str, ref: str) -> None:
        """The time on hold does not count for the age."""
        self.on_hold.discard((hold, ref))
        record = self.records[ref]
        held = max(0, -self.controls.behind - record.held_at)
        record.offset += held
        if record.too_old_at is not None:
            record.too_old_at += held * LONG_MS

    def restore_attempts(self, jobs: Iterable[tuple[str, int]]) -> None:
        """``restore_attempts.lua`` for pairs of ref and attempts."""
        for ref, attempts in jobs:
            record = self.records.get(ref)
            if record is not None and not record.token:
                record.calls = max(0, record.calls - attempts)

    def expire(self, *, token: str, at_most: int, most_bytes: int) -> list[str]:
        """``expire.lua``: the jobs that are to be ended."""
        expired: list[str] = []
        for ref in self.too_old[:at_most]:
            if self._bytes(expired) >= most_bytes:
                break
            del self.deadlines[ref]
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
        self.deadlines[ref] = self.records[ref].too_old_at

    def _drop_deadline(self, ref: str) -> None:
        self.deadlines.pop(ref, None)

    # -- what ought to stand in Redis

    def view(self) -> Mapping[str, object]:
        """All of it, in the shape in which :meth:`tests.model.standing.Standing.view` gives what does."""
        return {
            "stock": {step: [message.raw for message in messages] for step, messages in self.stock.items()},
            "arrived": [message.raw for message in self.arrived],
            "again": self.requeued,
            "retries": self.retries,
            "suspects": self.suspects,
            "deadlines": self.deadlines.keys() - set(self.too_old),
            "too old": self.too_old,
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
            "on hold": self.on_hold,
            "controls": (
                self.controls.version,
                self.controls.has_pause,
                self.controls.behind,
                set(self.controls.holds),
            ),
            "cancelled": self.controls.cancelled,
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
                    record.offset,
                    record.is_counted,
                )
                for ref, record in self.records.items()
            },
            "ids": self.ids,
            "events": self.events,
            "dead": self.dead,
            "counters": {name: count for name, count in self.counters.items() if count},
            "draining": self.draining,
        }
