"""Flow control of one process: how many jobs it takes, from where, and what a failed call costs its job.

The fetcher asks before each take and reports its result; the handler reports the result of each call. Both run on the
asyncio loop. The pause and the rate limit of the whole fleet are in Redis. Each take obeys them there, returns them to
this process and carries its counts to Redis, so none of that costs a round trip of its own. ``docs/flow-control.md``
has the whole design.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol, assert_never

from tasks.outcome import Problem, ProblemType
from tasks.verdict import Blame
from worker.broker.moves import UNUSED_SECONDS
from worker.broker.records import Change, FleetNews, TakeRequest
from worker.flow_control import limit as limits
from worker.flow_control.breaker import Breaker
from worker.flow_control.gate import Wait
from worker.flow_control.queue_ends import QueueEnds
from worker.flow_control.retries import RetryShare

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.handler import Run
    from worker.broker.records import Delivery, Taken

logger = logging.getLogger(__name__)

#: A call is stuck if it takes longer than this, and so many times as long as answered calls usually do. A stuck call
#: uses no place of a slow start.
_STUCK_SECONDS = 0.5
_STUCK_TIMES = 3.0
_USUAL_WEIGHT = 0.1
#: From this many stuck calls on, new jobs are taken from both ends of the queue.
_SUSPICIOUS_STUCK = 3
_FIRST_PROBE_SECONDS = 0.5
_MAX_PROBE_SECONDS = 10.0
_TOKEN_PROBE_SECONDS = 5.0
_SLOW_START_SECONDS = 0.1
#: 401s in a row from different jobs that open the breaker of the token.
_TOKEN_FAILURES = 3
#: One job refused with 401 again and again counts against the token once no call succeeded for so many seconds.
_TOKEN_SILENCE_SECONDS = 5.0
#: Jobs that wait for their next call may keep at most this share of the slots.
_WAITING_SHARE = 0.25
#: From this share of bad fresh jobs on, new jobs are taken from both ends of the queue, so that a block of bad ones at
#: the front does not hold up the others, and no job waits in its slot.
_MANY_BAD = 0.1
#: A job that is refused for load again is itself the reason if so many other calls were answered since, less one for
#: each time that it was refused.
_OTHERS_ANSWERED = 4
#: A job is at fault once it failed so often while other calls were answered since its previous failure.
_FAULTS = 2
#: At most this many calls of a run of failures get their attempts back.
_RUN = 1000
#: The time between two samples of the fleet's counts, which measure its rate, in seconds.
_COUNTS_APART_SECONDS = 0.05
#: Jitter in seconds before a pod raises the rate, so that one pod does it and not all at once.
_RAISE_JITTER_SECONDS = 0.25
#: Without a limit, refusals of less than this share of the calls in a second do not mean that the rate is too high.
_STRAY_SHARE = 0.05
_STRAY_PAUSE_SECONDS = 0.5
#: How often a worker reports again that its breaker is open, in seconds.
_REPORT_SECONDS = 10.0
#: How long a worker that lacks resources for a call takes no jobs, and how often it logs that at most, in seconds.
_NO_RESOURCES_SECONDS = 1.0
_NO_RESOURCES_LOG_SECONDS = 60.0
_MEANWHILE = "Meanwhile jobs wait in Redis and lose no attempt; once a probe succeeds they go on by themselves."
_API_DOWN = (
    "Calls to the API fail one after the other, whatever the job; the reason of each is in its job_retry line. "
    f"If this lasts, see whether the API is up and whether API_URL is right. {_MEANWHILE}"
)
_REFUSED = (
    "The API does not accept the worker's token (it answers 401). Put a valid one into API_TOKEN_FILE, which is read "
    f"again without a restart, or into API_TOKEN and restart the worker. {_MEANWHILE}"
)

NO_NEWS = FleetNews(version=0, epoch=0, rate=0.0, answered=0, failed=0, paused_ms=0, state=None)


class InFlight(Protocol):
    """The jobs in flight in this worker, as numbers."""

    limit: int
    retries: int

    def __len__(self) -> int: ...

    def free_slots(self) -> int:
        """Return how many more jobs this worker can take now."""


class FlowControl:
    """Decides what this process takes and when, by its own calls and by what it knows of the fleet.

    Args:
        in_flight: the jobs that this worker has.
        name: this worker's name in Redis.
        failures: the failures in a row that open the breaker; 0 for no breaker.
        is_rate_limited: RATE_LIMIT_PER_SECOND is set, so that every call needs a permit.
        max_pause: the longest wait that the API may ask for, in seconds.
        changes: called when :meth:`change` has something to write.
        restore_attempts: lowers the attempts of jobs that wait in Redis, by the key of their runs.
        server_ms: returns the time of the Redis server, in milliseconds.
        token_is_new: returns True if the token has changed since the API refused it.
        clock: returns monotonic seconds.
        rng: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        in_flight: InFlight,
        *,
        name: str,
        failures: int,
        is_rate_limited: bool,
        max_pause: float,
        changes: Callable[[], None],
        restore_attempts: Callable[[Counter[tuple[str, str]]], None],
        server_ms: Callable[[], float],
        token_is_new: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.api = Breaker(
            "api_down",
            advice=_API_DOWN,
            failures=failures,
            first_wait=_FIRST_PROBE_SECONDS, max_wait=_MAX_PROBE_SECONDS,
            clock=clock, rng=rng,
        )  # fmt: skip
        self.token = Breaker(
            "token_refused",
            advice=_REFUSED,
            failures=_TOKEN_FAILURES,
            first_wait=_TOKEN_PROBE_SECONDS, max_wait=_TOKEN_PROBE_SECONDS,
            clock=clock, rng=rng,
        )  # fmt: skip
        self.breakers = (self.token, self.api)
        self.retries = RetryShare()
        self.fleet = NO_NEWS
        self.limit = limits.NO_LIMIT
        #: The problem of the last failed call.
        self.last_problem: Problem | None = None
        self._in_flight = in_flight
        self._name = name
        self._is_rate_limited = is_rate_limited
        self._max_pause = max_pause
        self._changes = changes
        self._restore_attempts = restore_attempts
        self._server_ms = server_ms
        self._token_is_new = token_is_new
        self._clock = clock
        self._rng = rng
        self._paused_until = 0.0
        self._no_resources_until = 0.0
        self._no_resources_logged_at = float("-inf")
        self._answered = self._failed = 0
        self._asked_at = 0.0
        self._unused_permits: deque[float] = deque()
        self._is_probe_unused = False
        self._waiting_in_slots = 0
        self._queue_ends = QueueEnds()
        self._is_spreading = False
        self._usual_seconds = 0.0
        self._failed_late = False
        self._token_is_proven = False
        self._token_served_at = 0.0
        self._refusal: limits.LoadRefusal | None = None
        self._longer_pause = 0.0
        self._is_unexplained = False
        self._refused_at: deque[float] = deque()
        self._raise_late_ms = 0.0
        self._seen: deque[tuple[float, int]] = deque()
        self._calling: dict[int, tuple[Run, float]] = {}
        self._in_run: deque[tuple[float, Run]] = deque(maxlen=_RUN)
        self._answered_when_opened = 0
        self._reported: list[str] = []
        self._reported_at = 0.0

    # -- called by the fetcher

    @property
    def version(self) -> int:
        """The version of the fleet's flow control that this process knows."""
        return self.fleet.version

    def ask(self) -> TakeRequest | Wait:
        """Return what to take now, or how long to wait and why."""
        now = self._asked_at = self._clock()
        if now < self._paused_until:
            return Wait(self._paused_until - now, "paused")
        if now < self._no_resources_until:
            return Wait(self._no_resources_until - now, "no_resources")
        if self.token.is_open and self._token_is_new():
            self.token.give_back_probe()
        jobs, is_probe = self._in_flight.free_slots(), False
        stuck = self._stuck(now)
        probed: list[Breaker] = []
        for breaker in self.breakers:
            answer = breaker.ask(jobs, len(self._in_flight), stuck)
            if isinstance(answer, Wait) or answer.jobs == 0:
                for other in probed:
                    other.give_back_probe()
                if isinstance(answer, Wait):
                    return answer
                # A slow start also goes on with time, so ask again soon.
                return (
                    Wait(_SLOW_START_SECONDS, breaker.reason) if jobs else self._take_request(0, stuck, is_probe=False)
                )
            if answer.is_probe:
                probed.append(breaker)
                is_probe = True
            jobs = answer.jobs
        return self._take_request(jobs, stuck, is_probe=is_probe)

    def _stuck(self, now: float) -> int:
        """Return how many calls take far longer than answered calls usually do."""
        since = now - max(_STUCK_SECONDS, _STUCK_TIMES * self._usual_seconds)
        stuck = 0
        for key, (run, began) in list(self._calling.items()):  # in the order in which they began
            if began > since:
                break
            if run.is_over:  # the call was interrupted
                del self._calling[key]
            else:
                stuck += 1
        return stuck

    def _take_request(self, jobs: int, stuck: int, *, is_probe: bool) -> TakeRequest:
        which_new = self._which_new(stuck, is_probe=is_probe)
        if jobs > 1 and self._is_spreading:
            jobs = (jobs + 1) // 2  # the other half from the other end
        limit, in_flight = self._in_flight.limit, self._in_flight.retries
        first = min(self.retries.max_first(limit, in_flight), self.retries.first(jobs))
        return TakeRequest(
            wanted=jobs,
            held=len(self._in_flight),
            which_new=which_new,
            is_probe=is_probe,
            retries_first=0 if self.api.is_in_doubt or self._is_outage_near else first,
            max_retries=self.retries.max_total(limit, in_flight),
            answered=self._answered,
            failed=self._failed,
            unused=self._permits_to_give_back() or int(is_probe and self._is_probe_unused),
            version=self.fleet.version,
        )

    def _which_new(self, stuck: int, *, is_probe: bool) -> str:
        self._is_spreading = (
            is_probe or stuck >= _SUSPICIOUS_STUCK or self.api.evidence.is_suspicious or self._has_many_bad
        )
        if not self._is_spreading:
            return "oldest"
        fresh = [run.is_newest for run, _ in self._calling.values() if not run.is_retry]
        newest = sum(fresh)
        is_newest = self._queue_ends.next_is_newest(newest, len(fresh) - newest, self._in_flight.limit)
        return "newest" if is_newest else "oldest"

    def took(self, request: TakeRequest, taken: Taken) -> None:
        """Record the answer of a take; Redis has this process's counts now."""
        self._answered -= request.answered
        self._failed -= request.failed
        for _ in range(min(request.unused, len(self._unused_permits))):
            self._unused_permits.popleft()
        if request.is_probe:
            self._is_probe_unused = False
        needs_permit = request.is_probe or self._is_rate_limited or taken.fleet.rate > 0
        for delivery in taken.jobs:
            delivery.has_permit = needs_permit
            delivery.is_probe = request.is_probe
            delivery.taken_at = self._asked_at
            delivery.is_newest = request.which_new == "newest" and not delivery.is_retry
        if taken.jobs:
            self.retries.took(len(taken.jobs), sum(delivery.is_retry for delivery in taken.jobs))
        elif request.is_probe:
            self._probe_again()
        self.saw(taken.fleet)

    def not_taken(self) -> None:
        """Record that a take failed."""
        self._probe_again()

    def give_back_permit(self, delivery: Delivery) -> None:
        """Give back the permit, or the probe, of a job that made no call."""
        self._unused_permits.append(delivery.taken_at)
        self._is_probe_unused |= delivery.is_probe
        self._probe_again()

    def _permits_to_give_back(self) -> int:
        """Return how many unused permits are young enough to be given back."""
        while self._unused_permits and self._clock() - self._unused_permits[0] > UNUSED_SECONDS:
            self._unused_permits.popleft()
        return len(self._unused_permits)

    def _probe_again(self) -> None:
        for breaker in self.breakers:
            breaker.give_back_probe()

    def saw(self, fleet: FleetNews) -> None:
        """Take note of the fleet's flow control as it is in Redis."""
        now = self._clock()
        if fleet.version != self.fleet.version:
            if fleet.state is None and fleet.version:
                return  # an answer that a newer one has overtaken
            self._raise_late_ms = 1000 * _RAISE_JITTER_SECONDS * self._rng()
            self.limit = limits.NO_LIMIT if fleet.state is None else limits.from_json(fleet.state)
            self._is_unexplained = fleet.state is not None and self.limit.rate == 0 and fleet.rate > 0
            if fleet.epoch != self.fleet.epoch or (fleet.rate > 0) != (self.fleet.rate > 0):
                logger.info("fleet_limit", extra=limits.describe(self.limit))
        if fleet.epoch != self.fleet.epoch:
            self._refusal = None  # another worker was refused and has cut the rate
        if fleet.answered > self.fleet.answered and self.fleet is not NO_NEWS:
            self._token_is_proven = True  # most likely all workers have the same token
        self.fleet = fleet
        if fleet.paused_ms:
            self._paused_until = now + fleet.paused_ms / 1000
        elif self._refusal is None and not self._longer_pause:  # else our pause is still on its way to Redis
            self._paused_until = min(self._paused_until, now)
        self._note_counts(now)
        if self.api.is_open and fleet.answered > self._answered_when_opened:
            self._answered_when_opened = fleet.answered
            self.api.probe_soon()
        if not fleet.paused_ms and self._raised() is not None:
            self._changes()

    # -- called by the handler

    @property
    def is_paused(self) -> bool:
        """True while the fleet takes no jobs because the API asked for a pause."""
        return self._clock() < self._paused_until

    def begins(self, run: Run) -> None:
        """Record that a call begins."""
        run.epoch = self.fleet.epoch
        self._calling[id(run)] = run, self._clock()

    def answered(self, run: Run) -> None:
        """Record that a call was answered, with a confirmation or with a final refusal."""
        began = self._call_is_over(run, well=True)
        self._answered += run.epoch == self.fleet.epoch  # a call from before a cut says nothing about the new rate
        self._token_is_proven, self._token_served_at = True, self._clock()
        for breaker in self.breakers:
            breaker.succeeded(began, self._in_flight.limit)
        while self._in_run and self._in_run[0][0] < began and not self.api.is_open:
            self._in_run.popleft()
        if run.is_retry:
            self.retries.ended(well=True)

    def refused(self, run: Run, status: int, retry_after: float | None) -> float:
        """Record that the API refused a call for load; returns the seconds that its job waits at least."""
        older = self._calls_before(run)
        answered = self.fleet.answered + self._answered
        progress = run.progress
        others = 0 if progress.answered is None else answered - progress.answered
        is_own = progress.load_refusals > 0 and others >= max(1, _OTHERS_ANSWERED - progress.load_refusals)
        progress.load_refusals += 1
        progress.answered = answered
        own_wait = min(self._max_pause, 0.5 * 2.0 ** min(progress.load_refusals, 6))
        if not is_own:
            self._note_refusal(run, status, retry_after, older)
            own_wait = min(own_wait, 1.0)  # the pause and the rate limit of the fleet hold it back
        return max(retry_after or 0.0, own_wait * (0.5 + self._rng()))

    def _note_refusal(self, run: Run, status: int, retry_after: float | None, older: int) -> None:
        if self._is_stray():
            # One of very many calls: pause as the API asks, but do not cut the rate.
            self._pause(status, _STRAY_PAUSE_SECONDS if retry_after is None else retry_after)
        elif run.epoch == self.fleet.epoch and self._refusal is None:
            self._refusal = limits.LoadRefusal(
                status,
                retry_after,
                self._accepted(),
                self._accepted_per_second() + (older if not self.limit.rate else 0),
            )
            change = self.change()
            if change is not None:
                logger.warning(
                    "fleet_paused",
                    extra={
                        "seconds": round(change.pause_seconds, 3),
                        "status": status,
                        "calls_per_second": round(change.rate, 3),
                    },
                )
                self._paused_until = max(self._paused_until, self._clock() + change.pause_seconds)
                self._changes()
        elif retry_after is not None and self._clock() + retry_after > self._paused_until + 0.1:
            # A call from before the cut says nothing about the new rate, but it may ask for a longer pause.
            self._longer_pause = retry_after
            self._paused_until = self._clock() + retry_after
            self._changes()

    def _is_stray(self) -> bool:
        """Return True if hardly any call is refused and there is no limit yet."""
        now = self._clock()
        self._refused_at.append(now)
        while now - self._refused_at[0] > 1:
            self._refused_at.popleft()
        return not self.limit.rate and len(self._refused_at) < _STRAY_SHARE * self._accepted_per_second()

    def _pause(self, status: int, seconds: float) -> None:
        if self._clock() + seconds <= self._paused_until:
            return
        extra = {"seconds": round(seconds, 3), "status": status, "calls_per_second": self.fleet.rate}
        logger.warning("fleet_paused", extra=extra)
        self._longer_pause = seconds
        self._paused_until = self._clock() + seconds
        self._changes()

    def failed(self, run: Run, blame: Blame, problem: Problem) -> int:
        """Record a failed call; returns how many attempts it costs its job."""
        if blame is Blame.RESOURCES:
            self._lacks_resources(run, problem)
            return 0
        self.last_problem = problem
        began = self._call_is_over(run, well=False)
        match blame:
            case Blame.TOKEN:
                return self._token_refused(run, began)
            case Blame.API | Blame.NETWORK:
                return self._api_failed(run, began, is_outright=blame is Blame.NETWORK)
            case Blame.JOB:
                self.api.succeeded(began, self._in_flight.limit)
                return 1
            case Blame.WORKER:
                return 1
            case _:
                assert_never(blame)

    def _lacks_resources(self, run: Run, problem: Problem) -> None:
        """Record that no call could be made. Take no jobs for a second, while those in flight free their resources."""
        self._call_is_over(run, well=None)
        if run.is_probe:
            self._probe_again()
        now = self._clock()
        self._no_resources_until = now + _NO_RESOURCES_SECONDS
        if now - self._no_resources_logged_at >= _NO_RESOURCES_LOG_SECONDS:
            self._no_resources_logged_at = now
            logger.error("no_resources", extra={"problem": problem.detail})

    def _api_failed(self, run: Run, began: float, *, is_outright: bool) -> int:
        self._failed += run.epoch == self.fleet.epoch
        is_at_fault = self._note_fault(run)
        if run.is_retry:
            self.retries.ended(well=False)
        if self.api.is_open and run.is_probe:
            if is_at_fault:
                self.api.give_back_probe()  # a job at fault says nothing about the API
            elif self.api.probe_failed(is_fresh=is_outright or not run.is_retry):
                self._restore_attempts_of_run()
        was_open = self.api.is_open
        self.api.failed(run.job, began, is_fresh=not run.is_retry, is_outright=is_outright)
        if was_open or self.token.is_open:
            return int(is_at_fault)
        if self.api.is_open:
            self._answered_when_opened = self.fleet.answered + self._answered
        self._in_run.append((began, run))
        return 1

    def _note_fault(self, run: Run) -> bool:
        """Count a failed call of a job; True if the job is at fault, whatever the API does now."""
        progress = run.progress
        answered = self.fleet.answered + self._answered
        progress.faults += progress.answered is not None and answered > progress.answered
        progress.answered = answered
        return progress.faults >= _FAULTS

    def _restore_attempts_of_run(self) -> None:
        """Give back the attempts that an outage cost before it was recognised."""
        waiting: Counter[tuple[str, str]] = Counter()
        for _, run in self._in_run:
            if run.progress.faults >= _FAULTS:
                continue
            if run.is_over:
                waiting[run.key] += 1
            else:
                run.attempts -= 1
        self._in_run.clear()
        if waiting:
            self._restore_attempts(waiting)

    def _token_refused(self, run: Run, began: float) -> int:
        """Record a 401. It counts against its job only if other calls were answered since the job's previous 401."""
        progress = run.progress
        answered, refused_before = self.fleet.answered + self._answered, progress.token_refusals
        others_succeed = refused_before > 0 and progress.answered is not None and answered > progress.answered
        is_again = refused_before > 0 and not others_succeed
        progress.answered = answered
        if self.token.is_open:
            if run.is_probe:
                self.token.probe_failed(is_fresh=True)
        elif self._token_is_proven:
            is_fresh = not run.is_retry and not is_again
            is_lasting = is_again and self._clock() - self._token_served_at > _TOKEN_SILENCE_SECONDS
            self.token.failed(run.job, began, is_fresh=is_fresh, is_outright=is_lasting)
        else:
            self.token.open_now()
        if self.token.is_open:
            self._token_is_proven = False
            progress.token_refusals = 0
            return 0
        if not others_succeed:
            progress.token_refusals += 1
            return 0
        progress.token_refusals = 1
        return refused_before

    @property
    def doubts_token(self) -> bool:
        """True if calls are answered 401 just now, so that a second try with the same token is useless."""
        return self.token.is_open or self.token.evidence.failures > 0

    @property
    def needs_permits(self) -> bool:
        """True if each call needs a permit, which only a take gives."""
        return self._is_rate_limited or self.fleet.rate > 0

    def holds_back(self) -> bool:
        """True if retries must go back through Redis, because only a take checks what is in force now.

        That is so while the fleet is paused, a breaker is not closed, or a rate limit is set.
        """
        return self.needs_permits or self.is_paused or any(breaker.is_in_doubt for breaker in self.breakers)

    def may_wait_in_slot(self) -> bool:
        """Return True if a job may keep its slot until its next call."""
        max_waiting = max(1, int(self._in_flight.limit * _WAITING_SHARE))
        is_useless = self.holds_back() or self._failed_late or self._has_many_bad or self._is_outage_near
        return not is_useless and self._waiting_in_slots < max_waiting

    @property
    def _is_outage_near(self) -> bool:
        """True if calls fail in a row without an answer between them that would make it the jobs' fault.

        A job that tries again in its slot would then only lose attempts, and new jobs are better evidence.
        """
        return self.api.failures_to_open > 0 and self.api.evidence.failures > 1

    @property
    def _has_many_bad(self) -> bool:
        return self.api.evidence.bad_share > _MANY_BAD

    def waits_in_slot(self, change: int) -> None:
        """Count one more (1) or one less (-1) job that waits in its slot."""
        self._waiting_in_slots += change

    def reason(self) -> Problem:
        """Return the reason why no call was made for a job that has expired."""
        if self.is_paused or self.fleet.rate > 0 or (self._is_rate_limited and not self.api.is_open):
            return Problem(
                ProblemType.RATE_LIMITED, "The API asked for fewer calls, or the rate limit left it no call."
            )
        if any(breaker.is_open for breaker in self.breakers) and self.last_problem is not None:
            return self.last_problem
        return Problem(ProblemType.TIMEOUT, "No call was made in time.")

    # -- what this process writes to Redis

    def change(self) -> Change | None:
        """Return the change to the fleet's flow control that this process has to write; None: nothing.

        It is based on the newest known version.
        """
        fleet = self.fleet
        if self._refusal is not None:
            lowered, pause = limits.cut(
                self.limit, self._refusal,
                now_ms=self._server_ms(), by=self._name, max_pause=self._max_pause,
            )  # fmt: skip
            why = f"the API answered {self._refusal.status} to {self._name}"
            return Change(fleet.version, fleet.epoch + 1, lowered.rate, lowered.to_json(), pause, why)
        if self._longer_pause:
            pause, self._longer_pause = self._longer_pause, 0.0
            return Change(fleet.version, fleet.epoch, fleet.rate, "", pause, "the API answered Retry-After")
        raised = self._raised()
        if raised is not None:
            return Change(fleet.version, fleet.epoch, raised.rate, raised.to_json(), 0.0, "")
        return None

    def _raised(self) -> limits.Limit | None:
        if self.limit.rate == 0:
            # A rate without its state was written by mistake. No worker would ever raise it, so it is removed.
            return limits.NO_LIMIT if self._is_unexplained else None
        return limits.raised(
            self.limit,
            now_ms=self._server_ms() - self._raise_late_ms,
            accepted=self._accepted(),
            accepted_per_second=self._accepted_per_second(),
        )

    def breaker_report(self) -> str | None:
        """A report of the open breakers for the operators (empty: none is open), or None where nothing is new."""
        now, opened = self._clock(), [breaker for breaker in self.breakers if breaker.is_open]
        reasons = [breaker.reason for breaker in opened]
        if reasons == self._reported and (not reasons or now - self._reported_at < _REPORT_SECONDS):
            return None
        self._reported, self._reported_at = reasons, now
        if not opened:
            return ""
        seconds = now - min(breaker.opened_at for breaker in opened)
        problem = "" if self.last_problem is None else f": {self.last_problem.detail}"
        return f"{','.join(reasons)} for {seconds:.0f} s{problem}"

    # -- measuring

    def _note_counts(self, now: float) -> None:
        if not self._seen or now - self._seen[-1][0] >= _COUNTS_APART_SECONDS:
            self._seen.append((now, self._accepted()))
        while self._seen[0][0] < now - limits.MAX_MEASURE_SECONDS:
            self._seen.popleft()

    def _call_is_over(self, run: Run, *, well: bool | None) -> float:
        """Record the end of a call, with ``well`` None if its result says nothing; returns when it began."""
        _, began = self._calling.pop(id(run), (run, self._clock()))
        if well:
            self._usual_seconds += _USUAL_WEIGHT * (self._clock() - began - self._usual_seconds)
        elif well is False:
            self._failed_late = self._clock() - began > _STUCK_SECONDS
        if well is not None and not run.is_retry:
            self._queue_ends.ended(is_newest=run.is_newest, well=well)
        return began

    def _calls_before(self, run: Run) -> int:
        """End a call, and return how many calls under way began before it."""
        older = 0
        for other, _ in self._calling.values():
            if other is run:
                break
            older += not other.is_over
        self._call_is_over(run, well=None)
        return older

    def _accepted(self) -> int:
        return self.fleet.answered + self.fleet.failed + self._answered + self._failed

    def _accepted_per_second(self) -> float:
        """Return how many calls a second of the fleet the API accepted recently."""
        now = self._clock()
        seconds = limits.measure_seconds(self.limit, self._server_ms())
        begin, then = now, self._accepted()
        for at, accepted in reversed(self._seen):
            begin, then = at, accepted
            if now - at >= seconds:
                break
        return max(0, self._accepted() - then) / max(seconds, now - begin)
