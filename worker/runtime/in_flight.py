"""The register of the jobs in flight in this worker, and how many more it can take.

A job is in flight from the take that brought it until Redis has confirmed that it is completed, delayed or released.
The asyncio loop adds and removes jobs. Celery's thread sets the limit and reads, so each operation is one step of a
dict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tasks.message import Accepted
from tasks.trace import JobTrace
from worker.broker.records import TAKE_JOBS

if TYPE_CHECKING:
    import asyncio

    from tasks.decision import Decision
    from tasks.message import ParsedJob
    from worker.broker.records import Delivery
    from worker.message.controls import Note
    from worker.runtime.settlement import Settlement

#: Jobs at once at most, the same bound as that of CONCURRENCY: beyond it the loop has no time to keep the leases.
MAX_SLOTS = 10_000


class Announced(Protocol):
    """A job as Celery was shown it."""

    number: int
    id: str

    def settled(self, how: Settlement) -> None:
        """Report to Celery how the job left this worker."""


class DeliveryTrace(JobTrace, Protocol):
    """What records a delivery, from the reading of its message until Redis has confirmed how it left this worker."""

    @property
    def number(self) -> int:
        """Which delivery of the job it is, from 1; those are counted that ended in a delay, or with their worker."""

    def ended(
        self,
        outcome: str,
        *,
        attempts: int,
        error: str | None = None,
        reason: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Record how the job left this worker.

        Args:
            outcome: the event's, or another label.
            attempts: calls made for the job that count, in all deliveries.
            error: a label of what went wrong; None: nothing.
            reason: why the job waits, if it does.
            seconds: how long it waits, if it does.
        """


class Tracer(Protocol):
    """Records deliveries."""

    def begin(self, job: ParsedJob, delivery: Delivery) -> DeliveryTrace | None:
        """Begin to record a delivery; None: nothing is recorded."""


@dataclass(frozen=True, slots=True)
class Held:
    """The decision to set a job aside until its hold is released; ``hold`` is the digest of the hold's selector."""

    hold: str


@dataclass(slots=True, eq=False)
class Assignment:
    """A job in flight in this worker.

    Attributes:
        delivery: the job as the take brought it.
        read: the job as it was read from its message, once that has happened.
        decision: how it ends or goes on, once that is known.
        task: the asyncio task that runs it, once it has begun.
        begun_at: when it began, on the monotonic clock.
        trace: records the delivery; None: nothing does.
        announced: the job as Celery was shown it; None if Celery was not shown it.
        is_at_celery: Celery is being shown the job, and gives it back to be run.
        is_revoked: Celery knows that the job is revoked.
        cancel_note: who cancelled its id, and why; None: nobody did.
        is_cancelled: the job is to be released.
        is_set_aside: the job is on its way to those on hold, and uses no slot.
        deadline_ms: when the job is too old, where Redis has to know; else 0.
    """

    delivery: Delivery
    read: ParsedJob | None = None
    decision: Decision | Held | None = None
    task: asyncio.Task[None] | None = None
    begun_at: float = 0.0
    trace: DeliveryTrace | None = None
    announced: Announced | None = None
    is_at_celery: bool = False
    is_revoked: bool = False
    cancel_note: Note | None = None
    is_cancelled: bool = False
    is_set_aside: bool = False
    deadline_ms: int = 0

    @property
    def parsed(self) -> ParsedJob:
        """The job as it was read from its message.

        Raises:
            ValueError: it was not read yet.
        """
        if self.read is None:
            raise ValueError("the message of this job was not read yet")
        return self.read

    @property
    def accepted(self) -> Accepted:
        """The job, if its message is a valid one.

        Raises:
            ValueError: the message is no valid job, or was not read yet.
        """
        if not isinstance(self.read, Accepted):
            raise ValueError("the message of this job is not a valid job")  # noqa: TRY004 - no argument has a wrong type
        return self.read

    @property
    def due_ms(self) -> float:
        """When the job was first taken, or its eta if that is later, in milliseconds since the epoch."""
        not_before = self.read.not_before if isinstance(self.read, Accepted) else None
        received_ms = self.delivery.received_ms
        return received_ms if not_before is None else max(received_ms, not_before.timestamp() * 1000)


class InFlight:
    """The jobs in flight in this worker. ``limit`` is how many there may be at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.is_closed = False
        self.is_draining = False
        self._has_suspect = False
        self._assignments: dict[tuple[str, str], Assignment] = {}
        #: How many of them failed before.
        self.retries = 0
        self._set_aside = 0

    def __len__(self) -> int:
        return len(self._assignments)

    def deliveries(self) -> list[Delivery]:
        """The deliveries of the jobs in flight now."""
        return [assignment.delivery for assignment in list(self._assignments.values())]

    def assignments(self) -> list[Assignment]:
        """The jobs in flight now."""
        return list(self._assignments.values())

    def running(self) -> list[Assignment]:
        """The jobs that have begun to run and are not settled yet."""
        return [assignment for assignment in self.assignments() if assignment.task is not None]

    def holds(self, assignment: Assignment) -> bool:
        """Return whether a job is still in flight."""
        return self._assignments.get(_key(assignment.delivery)) is assignment

    def add(self, delivery: Delivery) -> Assignment:
        """Register a job; return its entry, also where it is registered already."""
        key = _key(delivery)
        assignment = self._assignments.get(key)
        if assignment is None:
            assignment = self._assignments[key] = Assignment(delivery)
            self.retries += delivery.is_retry
            if delivery.runs_alone:
                self._has_suspect = True
        return assignment

    def get(self, delivery: Delivery) -> Assignment | None:
        """Return the entry of a job; None: it is not in flight."""
        return self._assignments.get(_key(delivery))

    def remove(self, delivery: Delivery) -> None:
        """Remove a job that has left this worker."""
        assignment = self._assignments.pop(_key(delivery), None)
        if assignment is not None:
            self.retries -= delivery.is_retry
            self._set_aside -= assignment.is_set_aside
        if delivery.runs_alone:
            self._has_suspect = False

    def set_aside(self, assignment: Assignment) -> None:
        """Let a job use no slot from now on: it is on its way to those on hold."""
        if not assignment.is_set_aside and self.holds(assignment):
            assignment.is_set_aside = True
            self._set_aside += 1

    def free_slots(self) -> int:
        """Return how many jobs to take now.

        Jobs on their way to those on hold use no slot, up to as many as one take brings. None are to be taken beside a
        suspect, which runs alone, and none while this worker finishes its jobs to run one.
        """
        if self.is_closed:
            return 0
        held = len(self._assignments)
        if held == 0:
            self.is_draining = False
        elif self.is_draining or self._has_suspect:
            return 0
        return max(0, self.limit - held + min(self._set_aside, TAKE_JOBS))


def _key(delivery: Delivery) -> tuple[str, str]:
    """Return what distinguishes a job's deliveries: this worker may take a job again that it lost."""
    return delivery.ref, delivery.lease_token
