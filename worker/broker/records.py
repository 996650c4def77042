"""What the moves take and return: a job that a worker holds, requests and answers, and the fleet's flow control."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: One take returns at most this many jobs, so that no call holds the server up.
TAKE_JOBS = 256


@dataclass(slots=True)
class Delivery:
    """A job in this worker's hands: what its record held when it was taken, and the lease.

    Attributes:
        ref: the job's permanent random name in Redis.
        lease_token: names the take that holds it; every move of the job shows it.
        raw: the message's bytes, or the beginning of a message over 1 MiB.
        size: the message's own size in bytes.
        received_ms: when it was first taken, in milliseconds of the server's clock.
        attempts: calls made for it in earlier deliveries, and then by this one.
        crashes: workers that died on it.
        lease_until: when the lease is over, on this process's monotonic clock; counted from before the take was sent.
        is_retry: a call for it failed before.
        progress: what earlier deliveries left for this one, as it was put aside; the broker does not look at it.
        runs_alone: nothing may run beside it.
        has_permit: it was taken by a permit or as a probe, which goes back if it comes to no call.
        is_probe: it was taken to find out whether calls succeed again.
        taken_at: when that was, on this process's monotonic clock.
        is_newest: it is new, and was taken from the end where the newest stand.
        lease_lost: the lease is over and another worker may have the job.
        claimed: the claim that was sent with its take, perhaps for another job, and its :class:`ClaimAnswer`.
    """

    ref: str
    lease_token: str
    raw: bytes = field(repr=False)
    size: int
    received_ms: int
    attempts: int
    crashes: int
    lease_until: float
    queue: str
    is_retry: bool = False
    progress: bytes = field(default=b"", repr=False)
    runs_alone: bool = False
    lease_lost: bool = False
    has_permit: bool = False
    is_probe: bool = False
    taken_at: float = 0.0
    is_newest: bool = False
    claimed: tuple[Claim, int] | None = None


class TakeState(Enum):
    """What a take answered, beside the jobs."""

    JOBS = b"jobs"
    EMPTY = b"empty"
    ALONE = b"alone"
    DRAIN = b"drain"
    PAUSED = b"paused"
    LIMITED = b"limited"


@dataclass(frozen=True, slots=True)
class FleetNews:
    """The fleet's flow control as it stands in Redis.

    Attributes:
        version: another one with each change; 0: nobody has changed it yet.
        epoch: counts the times that the rate was cut.
        rate: calls a second that the fleet keeps to; 0: no limit.
        answered: calls that the API answered, since the queue was first used.
        failed: calls that failed, refusals for load left out.
        paused_ms: how long nobody takes a job yet.
        state: the rest of it, for ``worker.flow_control.limit``; None: as of the version that the caller knows.
    """

    version: int
    epoch: int
    rate: float
    answered: int
    failed: int
    paused_ms: int
    state: bytes | None


@dataclass(frozen=True, slots=True)
class TakeRequest:
    """What a worker asks of a take, and what it tells with it.

    Attributes:
        wanted: jobs at most.
        held: jobs that it has in flight.
        which_new: from which end of the producers' lists new jobs come: ``oldest`` or ``newest``.
        is_probe: the job is a breaker's probe.
        retries_first: retries that may go before new jobs.
        max_retries: retries at most.
        answered: calls that were answered since the last take.
        failed: calls that failed since then.
        unused: permits that came to no call and were given UNUSED_SECONDS ago at most.
        version: of the fleet's flow control, as far as known.
    """

    wanted: int
    held: int
    which_new: str = "oldest"
    is_probe: bool = False
    retries_first: int = TAKE_JOBS
    max_retries: int = TAKE_JOBS
    answered: int = 0
    failed: int = 0
    unused: int = 0
    version: int = -1


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the fleet's flow control, made from one version of it; without ``state`` it is a pause alone."""

    version: int
    epoch: int
    rate: float
    state: str
    pause_seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer of a take.

    ``wait_ms`` is how long a pause or the rate limit keeps jobs back; ``is_all``: the lists were empty then.
    """

    state: TakeState
    server_ms: int
    wait_ms: int
    fleet: FleetNews
    jobs: list[Delivery]
    emptied_queue: bool


class Claim(NamedTuple):
    """What a job id is to stand for. A dry run and the real job of one id are two things."""

    id_digest: str
    fingerprint: str
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """How a job in flight is put aside.

    Attributes:
        seconds: how long.
        is_retry: its call failed: it comes back beside new work, not before it.
        deadline_ms: when it is too old, in milliseconds of the server's clock; 0: as its first take says.
        progress: what the next delivery must know; empty: as before.
    """

    delivery: Delivery
    seconds: float
    is_retry: bool = False
    deadline_ms: int = 0
    progress: bytes = b""


@dataclass(frozen=True, slots=True)
class Completion:
    """How a job in flight ends.

    Attributes:
        event: empty: it is dropped as a copy of a job whose event is out.
        id_digest: of its id; empty: nothing is remembered of it.
        binding: what its id stands for; empty: nothing, the message names no conversation.
        has_own_id: the event's id is not the job's, so other events under the job's id do not matter.
    """

    ref: str
    lease_token: str
    event: bytes
    outcome: str
    is_dead_letter: bool
    id_digest: str
    fingerprint: str
    is_dry_run: bool = False
    has_own_id: bool = False


@dataclass(frozen=True, slots=True)
class Promoted:
    """How many delayed jobs became ready (None: another worker was here just now), and when the next will be due.

    ``next_deadline_ms``: when the next of the jobs that are ready again is too old.
    """

    count: int | None
    next_due_ms: int | None
    next_deadline_ms: int | None
    fleet: FleetNews


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many jobs of dead workers became ready (None: not now), and those to be ended as poisoned.

    Attributes:
        is_grace: the fleet was silent until a moment ago, or the server's clock was set. Jobs are not recovered before
            their workers had time to renew the leases, and should.
        workers: the workers that gave no sign of life, by name, and how many of these jobs each had.
        messages: of some of these jobs, their messages.
    """

    count: int | None
    server_ms: int
    poisoned: list[Delivery]
    is_grace: bool = False
    workers: Mapping[str, int] = field(default_factory=dict)
    messages: Sequence[bytes] = field(default=(), repr=False)


class ClaimAnswer(IntEnum):
    """What a claim says of a job id."""

    GO = 0
    DUPLICATE = 1
    CONFLICT = 2


class CompleteAnswer(IntEnum):
    """What became of a completion.

    Nothing yet where the job id names another event (TAKEN) or stands for another conversation by now (CONFLICT): it is
    to be made again, with an event that has an id of its own.
    """

    GONE = 0
    PUBLISHED = 1
    TAKEN = 2
    CONFLICT = 3


@dataclass(frozen=True, slots=True)
class Duplicate:
    """What became of a completion: it was dropped as a copy.

    ``first_outcome`` is how the first one ended, if without a lock; None: with one, or by a worker of the version
    before, which does not say.
    """

    first_outcome: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a queue has: jobs to be taken, and jobs that were taken and are not over (``Keys.under_way``)."""

    is_ready: bool
    is_under_way: bool
