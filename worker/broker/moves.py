"""The moves of a job between its states: one typed function for each Lua file, and the only caller of that file.

All moves are coroutines over a client that repeats no command by itself (``worker.broker.client``). What they take and
return is in ``worker.broker.records``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from redis.exceptions import NoScriptError

from worker.broker import scripts
from worker.broker.follow_up import FollowUp
from worker.broker.keys import UNACKED, UNACKED_INDEX, ledger_of
from worker.broker.records import (
    TAKE_JOBS,
    Backlog,
    ClaimAnswer,
    CompleteAnswer,
    Delivery,
    Duplicate,
    FleetNews,
    Promoted,
    Recovered,
    Taken,
    TakeState,
)
from worker.broker.stream_bounds import StreamBounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.client import Answers
    from worker.broker.keys import Keys
    from worker.broker.records import Change, Claim, Completion, Delay, TakeRequest
    from worker.broker.scripts import Script

Argument: TypeAlias = str | int | bytes
Command: TypeAlias = list[Argument]

#: The largest message that is read, and the largest body once it is decompressed. Of a larger message, and of that of a
#: dead letter, KEPT_BYTES are kept.
MAX_MESSAGE_BYTES = 1024 * 1024
KEPT_BYTES = 64 * 1024
#: One take, promote or recover moves at most this much, so that no call blocks the server for long.
TAKE_BYTES = 1024 * 1024
UPKEEP_JOBS = 500
#: A job runs alone once this many workers died on it, at the latest one crash before it would end as poisoned.
SUSPICIOUS_CRASHES = 2
#: The least MAX_DELIVERIES: a worker's death does not show which of its jobs killed it. Only a second death, with that
#: job running alone, does.
MIN_DELIVERIES = 2
#: How far a burst may run ahead of the rate limit, in microseconds: well below the quarter of a second that would be
#: too much.
BURST_US = 80_000
#: The same for the limit that follows from the API's refusals: an API that counts by the second refuses early calls.
LIMIT_BURST_US = 20_000
#: A permit that was not used for a call is given back within this time, in seconds, or not at all: given back later, it
#: would let calls of one second start in the next.
UNUSED_SECONDS = 0.1
#: The least time between two probes of the fleet.
PROBE_GAP_MS = 250
#: How long a worker's report that its breaker is open is valid.
BREAKER_REPORT_MS = 60_000
#: How long the note of a lost take is kept: far longer than the leases of its jobs last.
LOST_TAKE_MS = 86_400_000
#: A worker belongs to the fleet for this long after it registered. Each registers again three times as often.
WORKER_MS = 30_000
#: A worker is told of this many others with different settings.
_MAX_OTHERS = 20
#: The queues that workers took from: this many are kept, the latest ones.
_QUEUES_KEPT = 200
#: One call of expire searches the lists for at most this many jobs.
EXPIRE_JOBS = 50
#: It reads about this many entries of the lists at most: some milliseconds of the server's time.
EXPIRE_ENTRIES = 100_000
_LOW_RATE = 4
#: A take returns only the ref and the bytes of a new job.
_FIELDS_OF_A_NEW_JOB = 2
_LOW_RATE_STRETCH = 1.06
#: The log names this many of the jobs that one round recovers.
LOGGED_JOBS = 10
#: What recover answers instead of a count while the workers have time to renew their leases.
_GRACE = -2
#: A worker that drains its slots for a suspect has this long before another worker may try.
DRAIN_MS = 30_000


#: By number: looking a member up by value would take longer than all the rest of reading an answer.
_CLAIM_ANSWERS = tuple(ClaimAnswer)
_COMPLETE_ANSWERS = tuple(CompleteAnswer)


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """The settings that the moves need. Times are in milliseconds, the rate in calls a second of the whole fleet.

    Attributes:
        longest_lease_ms: the longest lease in the fleet. Workers may have leases of different lengths; how long the
            fleet must be silent to mean an outage, and how long all have to come back, depends on the longest.
    """

    fleet: Keys
    rate: float | None
    results: str
    results_maxlen: int
    dead: str
    dead_maxlen: int
    lease_ms: int
    dedup_ttl_ms: int
    max_deliveries: int
    max_age_ms: int = 0
    longest_lease_ms: int = 0
    bounds: StreamBounds = field(default_factory=StreamBounds)

    @property
    def suspicious_crashes(self) -> int:
        """Return the crashes from which on a job runs alone, so that no job is poisoned by a neighbour's crashes."""
        return max(1, min(SUSPICIOUS_CRASHES, self.max_deliveries - 1))

    @property
    def interval_us(self) -> int:
        """Return the microseconds between two calls of the fleet; 0 without a rate limit.

        Below four calls a second, a single extra call in a second would exceed 1.25 times the rate. There the interval
        is a little longer, so that a call that starts late does not bring that about.
        """
        if self.rate is None:
            return 0
        return math.ceil(1_000_000 / self.rate * (_LOW_RATE_STRETCH if self.rate < _LOW_RATE else 1))

    @property
    def silence_ms(self) -> int:
        """Return the silence of the whole fleet that means that the server was away: maintenance is far more frequent.

        Leases are renewed when a third of their time is over, so a silence shorter than two thirds has ended none.
        """
        return min(3_000, max(self.lease_ms, self.longest_lease_ms) * 2 // 3)

    @property
    def grace_ms(self) -> int:
        """Return how long the workers have to renew their leases after the server came back."""
        return min(max(self.lease_ms, self.longest_lease_ms), 3_000)


def command(script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, whole_text: bool = False) -> Command:
    """Return a script call: by digest, or by ``whole_text`` after the server said that it does not know the script."""
    name, what = ("EVAL", script.text) if whole_text else ("EVALSHA", script.sha)
    return [name, what, len(keys), *keys, *arguments]


def take_command(
    keys: Keys,
    broker_options: BrokerOptions,
    *,
    token: str,
    worker: str,
    request: TakeRequest,
    whole_text: bool = False,
) -> Command:
    """Return the call of ``take.lua`` for one request."""
    return command(
        scripts.TAKE,
        [
            keys.requeued, keys.suspects, keys.arrived, keys.leases, keys.counters, keys.maintenance, keys.draining,
            broker_options.fleet.pause, broker_options.fleet.rate, broker_options.fleet.limit, keys.retries,
            keys.deadlines, *keys.priority_lists,
        ],
        [
            keys.record_prefix, token, min(request.wanted, TAKE_JOBS), TAKE_BYTES, broker_options.lease_ms,
            worker, request.held, DRAIN_MS, MAX_MESSAGE_BYTES, KEPT_BYTES, broker_options.interval_us, BURST_US,
            LIMIT_BURST_US,
            request.which_new, int(request.is_probe), request.retries_first, request.max_retries,
            request.answered, request.failed, request.unused, PROBE_GAP_MS, request.version,
        ],
        whole_text=whole_text,
    )  # fmt: skip


def read_take(
    answer: list[Any], keys: Keys, broker_options: BrokerOptions, *, token: str, sent_at: float, wanted: int
) -> Taken:
    """Read the answer of ``take.lua`` to a request for ``wanted`` jobs.

    ``sent_at`` is the monotonic time just before the take was sent; the leases count from there.
    """
    state = TakeState(answer[0])
    server_ms = int(answer[1])
    jobs = [
        _new(job, keys, broker_options, token, sent_at, server_ms=server_ms)
        if len(job) == _FIELDS_OF_A_NEW_JOB
        else _delivery(job, keys, broker_options, token, sent_at, is_alone=state is TakeState.ALONE)
        for job in answer[4:]
    ]
    fleet = _fleet(answer[3])
    # Fewer than requested, and no bound of a take was reached: so there were no more.
    is_short = len(jobs) < min(wanted, TAKE_JOBS) and sum(len(job.raw) for job in jobs) < TAKE_BYTES
    is_limited = broker_options.rate is not None or fleet.rate > 0
    is_all = state is TakeState.EMPTY or (state is TakeState.JOBS and is_short and not is_limited)
    return Taken(state, server_ms, int(answer[2]), fleet, jobs, is_all)


def _fleet(answer: list[bytes]) -> FleetNews:
    version, epoch, rate, answered, failed, paused_ms, state = answer
    return FleetNews(
        version=int(version), epoch=int(epoch), rate=float(rate), answered=int(answered), failed=int(failed),
        paused_ms=int(paused_ms), state=state or None,
    )  # fmt: skip


def _new(
    job: list[bytes], keys: Keys, broker_options: BrokerOptions, token: str, sent_at: float, *, server_ms: int
) -> Delivery:
    ref, raw = job
    return Delivery(
        ref=ref.decode(), lease_token=token, raw=raw, size=len(raw), received_ms=server_ms, attempts=0, crashes=0,
        lease_until=sent_at + broker_options.lease_ms / 1000, queue=keys.queue,
    )  # fmt: skip


def _delivery(
    job: list[bytes], keys: Keys, broker_options: BrokerOptions, token: str, sent_at: float, *, is_alone: bool = False
) -> Delivery:
    ref, raw, size, first, calls, crashes, retry, progress = job
    return Delivery(
        ref=ref.decode(), lease_token=token, raw=raw, size=int(size),
        received_ms=int(first), attempts=int(calls), crashes=int(crashes),
        lease_until=sent_at + broker_options.lease_ms / 1000, queue=keys.queue,
        is_retry=retry == b"1", progress=progress, runs_alone=is_alone,
    )  # fmt: skip


def replay_command(keys: Keys, dead: str, letters: Sequence[tuple[str, bytes]], *, priority: int) -> Command:
    """Return the call of ``replay.lua``: entries of the dead stream, each with the message of its new job.

    It sends the whole text, because people call it so seldom that the server would not know the digest.
    """
    arguments = [part for letter in letters for part in letter]
    return command(scripts.REPLAY, [dead, keys.priority_list(priority)], arguments, whole_text=True)


def adopt_command(keys: Keys, jobs: Sequence[tuple[bytes, bytes]], *, priority: int) -> Command:
    """Return the call of ``adopt.lua``: tags in kombu's ``unacked``, each with its message.

    The last one is taken first. It sends the whole text, as :func:`replay_command` does.
    """
    arguments = [part for job in jobs for part in job]
    return command(scripts.ADOPT, [UNACKED, UNACKED_INDEX, keys.priority_list(priority)], arguments, whole_text=True)


async def backlogs(client: Client, queues: Sequence[Keys]) -> list[Backlog]:
    """Return what each of several queues has. It takes one command if all are idle, and one more write if not.

    Raises what the client raises.
    """
    if not await client.execute_command("EXISTS", *(key for keys in queues for key in (*keys.ready, *keys.under_way))):
        return [Backlog(is_ready=False, is_under_way=False)] * len(queues)
    commands = [["EXISTS", *names] for keys in queues for names in (keys.ready, keys.under_way)]
    answers = await client.send(*commands)
    try:
        exist = [await answers.next() > 0 for _ in commands]
    finally:
        await answers.close()
    return [Backlog(*pair) for pair in zip(exist[::2], exist[1::2], strict=True)]


class Client(Protocol):
    """Sends commands to Redis, each of them once."""

    async def execute_command(self, *command: Any) -> Any:
        """Send one command and return its answer."""

    async def send(self, *commands: Sequence[Argument]) -> Answers:
        """Send several commands in one write."""


class Moves:
    """The moves of one queue's jobs.

    All raise what the client raises (:class:`redis.exceptions.RedisError`, :class:`OSError`). After an error the move
    may have been made or not. All may be repeated, but for :meth:`take`, :meth:`recover`, :meth:`expire` and
    :meth:`restore_attempts`.
    """

    def __init__(self, client: Client, keys: Keys, broker_options: BrokerOptions) -> None:
        self._client = client
        self.keys = keys
        self.broker_options = broker_options

    async def take(
        self, request: TakeRequest, *, token: str, worker: str, sent_at: float, follow_up: FollowUp | None = None
    ) -> Taken:
        """Take jobs. ``sent_at`` is the present monotonic time.

        Do not repeat it blindly: the jobs of a lost answer are leased until they are recovered.
        """
        call = partial(take_command, self.keys, self.broker_options, token=token, worker=worker, request=request)
        try:
            answer = await (self._run(call()) if follow_up is None else follow_up.send_behind(call()))
        except NoScriptError:
            answer = await self._run(call(whole_text=True))
        return read_take(answer, self.keys, self.broker_options, token=token, sent_at=sent_at, wanted=request.wanted)

    async def wait(self, seconds: float) -> bytes | None:
        """Wait for a message on the producers' first list, and move it to ``arrived``, where the next take finds it.

        Returns the message, or None if none came in time.
        """
        message: bytes | None = await self._client.execute_command(*self._wait_command(seconds))
        return message

    def follow_up(self, claim: Claim | None, *, wait_seconds: float) -> FollowUp:
        """Return the claim of an id and the next wait, to be sent behind a take."""
        claiming = None if claim is None else (claim, command(*self._claiming([claim])))
        return FollowUp(self._client, claiming, self._wait_command(wait_seconds))

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimAnswer]:
        """Claim job ids before the first call; returns one answer for each."""
        return [_CLAIM_ANSWERS[code] for code in await self._call(*self._claiming(claims))]

    def _wait_command(self, seconds: float) -> Command:
        return ["BLMOVE", self.keys.priority_lists[0], self.keys.arrived, "RIGHT", "LEFT", str(seconds)]

    def _claiming(self, claims: Sequence[Claim]) -> tuple[Script, list[str], list[Argument]]:
        arguments = [part for claim in claims for part in (claim.id_digest, claim.fingerprint, int(claim.is_dry_run))]
        return scripts.CLAIM, [], [self.keys.id_prefix, self.broker_options.dedup_ttl_ms, *arguments]

    async def complete(self, completions: Sequence[Completion]) -> list[CompleteAnswer | Duplicate]:
        """Complete jobs: publish events, keep dead letters and job ids, and delete the records, in one step."""
        arguments: list[Argument] = [
            self.keys.record_prefix, self.keys.id_prefix, self.broker_options.results,
            self.broker_options.results_maxlen, self.broker_options.dead_maxlen, self.broker_options.dedup_ttl_ms,
            self.broker_options.bounds.results_bytes, self.broker_options.bounds.dead_bytes, self.keys.queue,
            KEPT_BYTES,
        ]  # fmt: skip
        for end in completions:
            arguments += [
                end.ref,
                end.lease_token,
                end.event,
                end.outcome,
                int(end.is_dead_letter),
                end.id_digest,
                end.fingerprint,
                int(end.is_dry_run),
                int(end.has_own_id),
            ]
        keys = [
            self.keys.leases, self.keys.counters, self.broker_options.results, self.broker_options.dead,
            ledger_of(self.broker_options.results), ledger_of(self.broker_options.dead),
        ]  # fmt: skip
        answers = await self._call(scripts.COMPLETE, keys, arguments)
        return [
            _COMPLETE_ANSWERS[answer]
            if isinstance(answer, int)
            else Duplicate(answer.decode("utf-8", "replace") or None)
            for answer in answers
        ]

    async def delay(self, delays: Sequence[Delay]) -> list[bool]:
        """Delay jobs; True for each that this worker still had."""
        arguments: list[Argument] = [self.keys.record_prefix]
        for delay in delays:
            job = delay.delivery
            arguments += [
                job.ref, job.lease_token, math.ceil(delay.seconds * 1000), job.attempts, "1" if delay.is_retry else "",
                delay.deadline_ms, delay.progress,
            ]  # fmt: skip
        keys = [self.keys.leases, self.keys.delayed, self.keys.counters]
        return [code == 1 for code in await self._call(scripts.DELAY, keys, arguments)]

    async def release(self, jobs: Sequence[Delivery]) -> list[bool]:
        """Release jobs, to be taken again at once; True for each that this worker still had."""
        arguments: list[Argument] = [
            self.keys.record_prefix,
            self.broker_options.suspicious_crashes,
            self.broker_options.max_age_ms,
        ]
        for job in jobs:
            arguments += [job.ref, job.lease_token, job.attempts]
        keys = [
            self.keys.leases, self.keys.requeued, self.keys.suspects, self.keys.counters, self.keys.retries,
            self.keys.deadlines,
        ]  # fmt: skip
        return [code == 1 for code in await self._call(scripts.RELEASE, keys, arguments)]

    async def renew(self, jobs: Sequence[Delivery]) -> list[bool]:
        """Renew the leases of jobs; True for each that this worker still has."""
        arguments: list[Argument] = [self.keys.record_prefix, self.broker_options.lease_ms]
        for job in jobs:
            arguments += [job.ref, job.lease_token]
        return [code == 1 for code in await self._call(scripts.RENEW, [self.keys.leases], arguments)]

    async def throttle(self, change: Change) -> tuple[bool, FleetNews]:
        """Change the fleet's flow control; False if another worker changed it since that version."""
        arguments: list[Argument] = [
            change.version, change.epoch, f"{change.rate:.6f}", change.state,
            math.ceil(change.pause_seconds * 1000), change.why,
        ]  # fmt: skip
        done, fleet = await self._call(
            scripts.THROTTLE, [self.broker_options.fleet.limit, self.broker_options.fleet.pause], arguments
        )
        return done == 1, _fleet(fleet)

    async def report_breakers(self, worker: str, report: str) -> None:
        """Show the operators which breakers of a worker are open; an empty report says that none is."""
        await self._call(
            scripts.REPORT_BREAKERS, [self.broker_options.fleet.breakers], [worker, report, BREAKER_REPORT_MS]
        )

    async def register(self, worker: str, digest: str, description: str) -> list[tuple[str, bytes]]:
        """Register a worker and its settings for a while; with an empty digest, remove it.

        ``description`` is a JSON object with its ``queues``. Returns the workers that have another digest, each with
        its description.
        """
        arguments: list[Argument] = [worker, digest, description, WORKER_MS, _MAX_OTHERS, _QUEUES_KEPT]
        keys = [self.broker_options.fleet.workers, self.broker_options.fleet.queues]
        answer = iter(await self._call(scripts.REGISTER, keys, arguments))
        return [(other.decode("utf-8", "replace"), text) for other, text in zip(answer, answer, strict=True)]

    async def restore_attempts(self, jobs: Sequence[tuple[str, int]]) -> None:
        """Lower the attempts of waiting jobs, each a ref and a number. Do not repeat it: each call lowers them."""
        arguments: list[Argument] = [self.keys.record_prefix]
        for ref, attempts in jobs:
            arguments += [ref, attempts]
        await self._call(scripts.RESTORE_ATTEMPTS, [], arguments)

    async def promote(self, *, between_ms: int, version: int = -1) -> Promoted:
        """Make due jobs ready, unless a worker of the fleet did so in the last ``between_ms``.

        ``version`` is the one of the fleet's flow control that the caller knows.
        """
        keys = [
            self.keys.delayed, self.keys.requeued, self.keys.suspects, self.keys.maintenance, self.keys.retries,
            self.keys.deadlines, self.broker_options.fleet.limit, self.broker_options.fleet.pause,
        ]  # fmt: skip
        arguments: list[Argument] = [
            self.keys.record_prefix, self.broker_options.suspicious_crashes, UPKEEP_JOBS, between_ms,
            self.broker_options.max_age_ms,
            version,
        ]  # fmt: skip
        count, next_due, next_deadline, fleet = await self._call(scripts.PROMOTE, keys, arguments)
        return Promoted(
            None if count < 0 else count,
            None if next_due < 0 else next_due,
            None if next_deadline < 0 else next_deadline,
            _fleet(fleet),
        )

    async def expire(self, *, token: str, sent_at: float) -> list[Delivery]:
        """Take jobs that are ready again and too old, to complete them. Do not repeat it blindly, like :meth:`take`."""
        keys = [self.keys.deadlines, self.keys.requeued, self.keys.retries, self.keys.suspects, self.keys.leases]
        arguments: list[Argument] = [
            self.keys.record_prefix, EXPIRE_JOBS, TAKE_BYTES, token, self.broker_options.lease_ms,
            self.broker_options.suspicious_crashes, EXPIRE_ENTRIES,
        ]  # fmt: skip
        _, *jobs = await self._call(scripts.EXPIRE, keys, arguments)
        return [_delivery(job, self.keys, self.broker_options, token, sent_at) for job in jobs]

    async def recover(self, *, token: str, sent_at: float, between_ms: int) -> Recovered:
        """Make the jobs of dead workers ready, unless a worker of the fleet did so in the last ``between_ms``."""
        keys = [
            self.keys.leases, self.keys.requeued, self.keys.suspects, self.keys.counters, self.keys.maintenance,
            self.keys.retries, self.keys.deadlines, self.keys.lost_takes,
        ]  # fmt: skip
        arguments: list[Argument] = [
            self.keys.record_prefix, self.broker_options.suspicious_crashes, self.broker_options.max_deliveries,
            UPKEEP_JOBS, token,
            self.broker_options.lease_ms, between_ms, self.broker_options.silence_ms, self.broker_options.grace_ms,
            TAKE_BYTES, self.broker_options.max_age_ms, LOGGED_JOBS, KEPT_BYTES,
        ]  # fmt: skip
        count, server_ms, workers, messages, *jobs = await self._call(scripts.RECOVER, keys, arguments)
        poisoned = [_delivery(job, self.keys, self.broker_options, token, sent_at) for job in jobs]
        return Recovered(
            None if count < 0 else count, int(server_ms), poisoned, is_grace=count == _GRACE,
            workers={name.decode(): jobs for name, jobs in zip(workers[::2], workers[1::2], strict=True)},
            messages=messages,
        )  # fmt: skip

    async def note_lost_takes(self, tokens: Sequence[str]) -> None:
        """Note takes whose answers were lost: their jobs are recovered without a crash, as no worker died on them."""
        await self._call(scripts.LOST_TAKES, [self.keys.lost_takes], [LOST_TAKE_MS, *tokens])

    async def _call(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> list[Any]:
        try:
            return await self._run(command(script, keys, arguments))
        except NoScriptError:
            # The server restarted or was flushed. It refused before anything ran, so sending the whole text is safe.
            return await self._run(command(script, keys, arguments, whole_text=True))

    async def _run(self, call: Command) -> list[Any]:
        answer: list[Any] = await self._client.execute_command(*call)
        return answer
