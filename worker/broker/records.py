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
    """A job that this worker has in flight: its record as of the take, and the lease.

    Attributes:
        ref: the job's permanent unique name in Redis.
        lease_token: names the take that has the job; every move of the job must present it.
        raw: the message's bytes, or the beginning of a message over 1 MiB.
        size: the size of the whole message in bytes.
        received_ms: the time of its first take, in milliseconds of the server's clock.
        attempts: calls made for it, in earlier deliveries and in this one.
        crashes: workers that died on it.
        lease_until: when the lease expires, on this process's monotonic clock; counted from before the take was sent.
        is_retry: an earlier call for it failed.
        progress: what an earlier delivery stored, and what this one stores when it is released; opaque to the broker.
        age_offset_ms: its first take on the clock of ages, seen from ``received_ms``: time on hold, and pauses before.
        runs_alone: this worker must run no other job beside it.
        has_permit: it used a permit or is a probe, which is given back if no call is made.
        is_probe: it was taken to test whether calls succeed again.
        taken_at: the time of the take, on this process's monotonic clock.
        is_newest: a new job, taken from the newest end of the queue.
        lease_lost: the lease expired, and another worker may have the job.
        claimed: the claim that was sent behind its take, perhaps for another job, and its :class:`ClaimAnswer`.
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
    age_offset_ms: int = 0
    runs_alone: bool = False
    lease_lost: bool = False
    has_permit: bool = False
    is_probe: bool = False
    taken_at: float = 0.0
    is_newest: bool = False
    claimed: tuple[Claim, int] | None = None

    @property
    def is_first(self) -> bool:
        """Whether no worker had the job before: it has its name from its first take (``take.lua``)."""
        return self.ref.startswith(f"{self.lease_token}.")


class TakeState(Enum):
    """The state that a take answered with, beside the jobs; see ``take.lua``."""

    JOBS = b"jobs"
    EMPTY = b"empty"
    ALONE = b"alone"
    DRAIN = b"drain"
    PAUSED = b"paused"
    LIMITED = b"limited"
    MORE = b"more"


@dataclass(frozen=True, slots=True)
class FleetNews:
    """The fleet's flow control as it stands in Redis.

    Attributes:
        version: a new one with each change; 0: no change yet.
        epoch: how often the rate was cut.
        rate: the fleet's limit in calls a second; 0: no limit.
        answered: calls that the API answered, since the queue was first used.
        failed: calls that failed, without refusals for load.
        paused_ms: the rest of a pause in which no worker takes jobs.
        state: the rest, for ``worker.flow_control.limit``; None: unchanged since the version that the caller knows.
        controls: the version of the operators' controls; 0: there were none yet.
        ages_behind_ms: how far the clock of ages is behind the server's: it stands still while operators pause.
    """

    version: int
    epoch: int
    rate: float
    answered: int
    failed: int
    paused_ms: int
    state: bytes | None
    controls: int = 0
    ages_behind_ms: int = 0


@dataclass(frozen=True, slots=True)
class TakeRequest:
    """What a worker requests from a take, and what it reports with it.

    Attributes:
        wanted: the jobs requested at most.
        held: the jobs that it has in flight.
        which_new: the end of the producers' lists that new jobs are taken from: ``oldest`` or ``newest``.
        is_probe: the job is a breaker's probe.
        retries_first: retries that may be taken before new jobs.
        max_retries: retries that may be taken at all.
        answered: calls that the API answered since the last take.
        failed: calls that failed since then.
        unused: permits without a call to give back, not older than UNUSED_SECONDS.
        version: the one of the fleet's flow control that the worker knows.
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
    """A change of the fleet's flow control, based on one version of it; without ``state`` it only starts a pause."""

    version: int
    epoch: int
    rate: float
    state: str
    pause_seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer of a take.

    Attributes:
        wait_ms: how long a pause or the rate limit holds jobs back.
        emptied_queue: the take left no job that is ready.
    """

    state: TakeState
    server_ms: int
    wait_ms: int
    fleet: FleetNews
    jobs: list[Delivery]
    emptied_queue: bool


class Claim(NamedTuple):
    """What a job id shall stand for. A dry run and the real job with the same id are different things."""

    id_digest: str
    fingerprint: str
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """How to delay a job in flight.

    Attributes:
        seconds: how long.
        is_retry: its call failed, so it comes back beside new jobs and not before them.
        deadline_ms: when it is too old, in milliseconds of the clock of ages; 0: counted from its first take.
        progress: what the next delivery must know; empty: unchanged.
    """

    delivery: Delivery
    seconds: float
    is_retry: bool = False
    deadline_ms: int = 0
    progress: bytes = b""


@dataclass(frozen=True, slots=True)
class Completion:
    """How to complete a job in flight.

    Attributes:
        event: the event to publish; empty: drop the job as a duplicate of one whose event is published.
        id_digest: the digest of its id; empty: the id is not kept.
        fingerprint: what its id stands for; empty: the message names no conversation.
        has_own_id: the event has an id of its own, so other events under the job's id do not matter.
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
    """The answer of a promote.

    Attributes:
        count: the delayed jobs that became ready; None: another worker did it just now.
        next_due_ms: the time until the next delayed job is due; None: there is none.
        next_deadline_ms: the time until the next of the jobs that are ready again expires; None: there is none.
        set_aside: due jobs that wait for a worker of a newer version, because only that one can read their records.
    """

    count: int | None
    next_due_ms: int | None
    next_deadline_ms: int | None
    fleet: FleetNews
    set_aside: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """The answer of a recover.

    Attributes:
        count: the jobs of dead workers that became ready; None: none were looked for.
        poisoned: the jobs that this worker must complete as poisoned.
        is_grace: the fleet was silent until just now, or the server's clock was set. No job is recovered before its
            worker had time to renew the lease, so each worker should renew now.
        workers: how many of these jobs each lost worker had, by its name.
        messages: the messages of some of these jobs.
    """

    count: int | None
    server_ms: int
    poisoned: list[Delivery]
    is_grace: bool = False
    workers: Mapping[str, int] = field(default_factory=dict)
    messages: Sequence[bytes] = field(default=(), repr=False)


class ClaimAnswer(IntEnum):
    """What a claim answers for a job id: run it, a duplicate, the id stands for something else, or it is cancelled."""

    GO = 0
    DUPLICATE = 1
    CONFLICT = 2
    CANCELLED = 3


class CompleteAnswer(IntEnum):
    """The result of a completion.

    GONE: this worker no longer had the job. TAKEN: the job id names another event. CONFLICT: it stands for another
    conversation by now. After TAKEN and CONFLICT nothing has changed, and the completion is to be made again with an
    event that has an id of its own.
    """

    GONE = 0
    PUBLISHED = 1
    TAKEN = 2
    CONFLICT = 3


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The result of a completion that was dropped as a duplicate.

    ``first_outcome`` is the outcome of the first job if it ended without a lock; None: it locked.
    """

    first_outcome: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Which jobs a queue has: ready ones, and those that were taken and are not completed (``Keys.under_way``)."""

    is_ready: bool
    is_under_way: bool
