"""A fleet of workers, their queue and an API, in simulated time.

Real are the flow control, the handler with its judgements and decisions, the admission, the policy of retries and the
register of jobs in flight. A pod here does what ``worker.runtime.fetcher``, ``worker.runtime.executor`` and
``worker.runtime.maintenance`` do about them, each in a few lines; Redis is
:class:`~tests.flow_control.redis_model.RedisModel`.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

from tasks.decision import Decision, Finished, Later
from tasks.handler import LockConversation
from tasks.job import Job
from tasks.lock_call import LockCall
from tasks.managem.client import CallFailedError, Response
from tasks.message import Accepted, ParsedJob, Rejection
from tasks.outcome import Problem, ProblemType
from tasks.reporter import Reporter
from tasks.retry import RetryPolicy
from tests.flow_control.apis import Call
from tests.flow_control.redis_model import RedisModel
from tests.flow_control.simulation import BEGAN_MS, Timeline, pass_time
from tests.runtime.no_controls import NoControls
from worker.broker.broker_options import BrokerOptions
from worker.broker.keys import Keys
from worker.broker.records import Delay
from worker.flow_control.flow_control import FlowControl
from worker.flow_control.gate_answer import Wait
from worker.runtime.admission import Admission
from worker.runtime.batcher import SPACING_SECONDS
from worker.runtime.in_flight import Held, InFlight

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from tasks.run import Run
    from tests.flow_control.apis import Api
    from worker.broker.records import Delivery, Taken, TakeRequest
    from worker.runtime.in_flight import Assignment

#: The ways of a command to Redis and back, each, and the bookkeeping at the end of a job, in seconds.
_WAY_SECONDS = (0.0002, 0.001)
_SETTLE_SECONDS = 0.002
#: As in the worker.
_WAIT_SECONDS = 0.5
_LOOK_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 0.02
_PROMOTE_BETWEEN_MS = 20
_ASK_AGAIN_SECONDS = 1.0
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(slots=True)
class Story:
    """What became of a job."""

    name: str
    arrived_at: float
    calls: int = 0
    attempts: int = 0
    outcome: str = ""
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Made:
    """A call that was made."""

    at: float
    job: str
    pod: int
    status: int | None
    is_probe: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """The worker's settings, as far as they matter here."""

    concurrency: int = 20
    max_attempts: int = 8
    breaker_failures: int = 10
    rate_limit: float | None = None
    max_age_seconds: float = 86400.0
    retry_max_delay_seconds: float = 300.0


class _Clock:
    """The server's clock, as ``worker.runtime.clock`` keeps it."""

    def __init__(self, timeline: Timeline) -> None:
        self.now_ms = timeline.server_ms
        self.ages_behind_ms = 0  # no operator pauses a simulated fleet

    def now(self) -> datetime:
        return self.at(self.now_ms())

    @staticmethod
    def at(server_ms: float) -> datetime:
        return datetime.fromtimestamp(server_ms / 1000, UTC)


@dataclass(slots=True, eq=False)
class _Item:
    """A job that a pod runs."""

    delivery: Delivery
    assignment: Assignment
    run: Run | None = None
    life: Coroutine[Any, Any, Decision] | None = None


class World:
    """A fleet, a queue and an API.

    Args:
        api: answers calls.
        pods: how many workers; they start at the beginning.
        settings: the same for all.
        seed: for all that is left to chance.
        shown: what failed assertions say to repeat a run.
    """

    def __init__(self, api: Api, *, pods: int = 1, settings: Settings | None = None, seed: int = 1) -> None:
        self.settings = settings or Settings()
        self.seed = seed
        self.api = api
        self.timeline = Timeline()
        self.chance = Random(seed)
        #: Apart from the rest, so that a job which waits does not move all that happens meanwhile.
        self.backoff_chance = Random(seed)
        broker_options = BrokerOptions(Keys("q"), self.settings.rate_limit, "", 0, "", 0, 30_000, 0, 5)
        self.redis = RedisModel(
            self.timeline,
            interval_us=broker_options.interval_us,
            max_age_ms=round(self.settings.max_age_seconds * 1000),
        )
        self.jobs: dict[str, Story] = {}
        self.calls: list[Made] = []
        #: Moments at which the fleet's pauses begin and end.
        self.pauses: list[tuple[float, float]] = []
        self.token = "good"
        self.token_changed_at = -1.0
        self.listeners: deque[Pod] = deque()
        self._left = 0
        self.pods = [Pod(self, number) for number in range(pods)]

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.timeline.now

    # -- what producers do

    def send(self, *names: str, at: float = 0.0) -> None:
        """Enqueue jobs, now or later."""
        if at > self.now:
            self._left += len(names)
            self.timeline.at(at, self._arrive, names)
        else:
            self._left += len(names)
            self._arrive(names)

    def stream(self, names: Iterable[str], *, every: float, since: float = 0.0) -> None:
        """Enqueue jobs one by one."""
        for number, name in enumerate(names):
            self.send(name, at=since + number * every)

    def _arrive(self, names: Iterable[str]) -> None:
        for name in names:
            self.jobs[name] = Story(name, self.now)
            self.redis.new.append(name.encode())
            if self.listeners:
                self.listeners.popleft().a_message_came()

    # -- living

    def run(self, until: float) -> World:
        """Live on up to a moment, or until every job has ended."""
        was_disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)  # a line for each job of thousands would take longer than all else
        try:
            self.timeline.run(until, is_over=lambda: not self._left)
        finally:
            logging.disable(was_disabled)
        return self

    def live_on(self, until: float) -> World:
        """Live on up to a moment, though every job may have ended."""
        self._left += 1
        self.run(until)
        self._left -= 1
        return self

    def way(self) -> float:
        """How long a command is on its way."""
        return self.chance.uniform(*_WAY_SECONDS)

    def ended(self, name: str, outcome: str, attempts: int) -> None:
        """A job ended."""
        story = self.jobs[name]
        assert not story.outcome, f"{name} ended twice (seed {self.seed})"
        story.outcome, story.attempts, story.ended_at = outcome, attempts, self.now
        self._left -= 1

    # -- what came of it

    def stories(self, prefix: str = "") -> list[Story]:
        """Of the jobs whose names begin so."""
        return [story for name, story in self.jobs.items() if name.startswith(prefix)]

    def outcomes(self, prefix: str = "") -> dict[str, int]:
        """How many jobs, whose names begin so, ended how."""
        return dict(Counter(story.outcome for story in self.stories(prefix)))

    def finished(self, prefix: str, since: float = 0.0, until: float = 1e12) -> int:
        """How many jobs, whose names begin so, were locked in that time."""
        return sum(story.outcome == "locked" and since <= story.ended_at < until for story in self.stories(prefix))

    def last_end(self, prefix: str = "") -> float:
        """When the last of those jobs ended."""
        return max(story.ended_at for story in self.stories(prefix))

    def calls_in(self, since: float, until: float) -> list[Made]:
        """The calls of a time."""
        return [call for call in self.calls if since <= call.at < until]

    def most_calls_in_a_second(self, since: float, until: float) -> int:
        """Of the calls in that time."""
        times = [call.at for call in self.calls_in(since, until)]
        most = first = 0
        for last, moment in enumerate(times):
            while moment - times[first] >= 1:
                first += 1
            most = max(most, last - first + 1)
        return most

    def refused_share(self, since: float = 0.0, until: float = 1e12, statuses: tuple[int, ...] = (429, 503)) -> float:
        """The share of a time's calls that the API refused for load."""
        calls = self.calls_in(since, until)
        return sum(call.status in statuses for call in calls) / max(1, len(calls))

    def attempts_lost(self, prefix: str = "") -> int:
        """Attempts of locked jobs beyond the one that locked them."""
        return sum(story.attempts - 1 for story in self.stories(prefix) if story.outcome == "locked")


class _Client:
    """The API as one pod reaches it."""

    def __init__(self, world: World, pod: int) -> None:
        self._world = world
        self._pod = pod
        self.is_probe = False
        self._refused_token: str | None = None

    async def lock(self, conversation_id: str, **_: object) -> Response:
        world, token = self._world, self._world.token
        call = Call(world.now, conversation_id, self._pod, token)
        reply = world.api(call)
        world.calls.append(Made(call.at, call.job, call.pod, reply.status, self.is_probe))
        world.jobs[conversation_id].calls += 1
        await pass_time(reply.seconds)
        if reply.status is None:
            if reply.failure == "refused":
                raise CallFailedError("unreachable", "Connection refused.", was_sent=False)
            raise CallFailedError("timeout", "The API gave no answer within 10 seconds.")
        if reply.status == 401:
            self._refused_token = token
        body = b'{"id": "%s", "locked": true}' % conversation_id.encode() if reply.status == 200 else b""
        return Response(reply.status, body, reply.retry_after)

    def token_is_new(self) -> bool:
        return self._refused_token is not None and self._world.token != self._refused_token


class Pod:
    """One worker: it takes jobs, runs them, and carries out what is decided of them."""

    def __init__(self, world: World, number: int) -> None:
        settings = world.settings
        self.number = number
        self._world = world
        self._timeline = world.timeline
        self._redis = world.redis
        self.in_flight = InFlight(settings.concurrency)
        clock: Any = _Clock(world.timeline)
        client: Any = _Client(world, number)
        self._client: _Client = client
        flow = FlowControl(
            self.in_flight,
            name=f"pod-{number}",
            failures=settings.breaker_failures,
            is_rate_limited=settings.rate_limit is not None,
            max_pause=settings.retry_max_delay_seconds,
            changes=self._flow_changes,
            restore_attempts=self._restore_attempts,
            server_ms=world.timeline.server_ms,
            token_is_new=client.token_is_new,
            clock=world.timeline,
            rng=world.chance.random,
        )
        self.gates = flow.gates
        policy = RetryPolicy(
            max_attempts=settings.max_attempts, base_seconds=0.5,
            max_delay_seconds=settings.retry_max_delay_seconds, rng=world.backoff_chance.random,
        )  # fmt: skip
        self._handler = LockConversation(
            call=LockCall(api=client, flow=flow.calls, shown="state"),
            flow=flow.calls,
            policy=policy,
            on_retry=lambda _: None,
            reporter=Reporter(),
            sleep=pass_time,
        )
        self._admission = Admission(
            read=_read,
            look_ahead=_look_ahead,
            handler=self._handler,
            clock=clock,
            max_age_seconds=settings.max_age_seconds,
            controls=NoControls(),
        )
        self._closed_until = self._full_until = 0.0
        self._is_empty = self._is_taking = self._is_waiting = self._is_throttling = False
        self._wait_number = 0
        self._wake_at = -1.0
        start = world.chance.random() * _LOOK_SECONDS
        self._timeline.after(start, self._turn)
        self._timeline.after(start, self._look_around)

    # -- taking, as worker.runtime.fetcher does

    def _turn(self) -> None:
        now = self._timeline.now
        wanted = self.in_flight.free_slots()
        if self._is_taking or wanted <= 0:
            return
        if now < self._closed_until:
            self._wake(min(self._closed_until - now, _ASK_AGAIN_SECONDS))
        elif now < self._full_until and wanted < len(self.in_flight):
            self._wake(self._full_until - now)
        elif self._is_empty:
            self._wait_for_a_message()
        else:
            self._ask_and_take()

    def _wake(self, seconds: float) -> None:
        moment = self._timeline.now + seconds
        if not self._timeline.now < self._wake_at <= moment:
            self._wake_at = moment
            self._timeline.after(seconds, self._turn)

    def _wait_for_a_message(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._wait_number += 1
            self._world.listeners.append(self)
            self._timeline.after(_WAIT_SECONDS, self._wait_is_over, self._wait_number)

    def a_message_came(self) -> None:
        """The wait for a message has one."""
        self._timeline.after(self._world.way(), self._wait_is_over, self._wait_number)

    def _wait_is_over(self, number: int) -> None:
        if self._is_waiting and number == self._wait_number:
            self._is_waiting = self._is_empty = False
            if self in self._world.listeners:
                self._world.listeners.remove(self)
            self._turn()

    def _ask_and_take(self) -> None:
        answer = self.gates.ask()
        if isinstance(answer, Wait):
            self._wake(min(answer.seconds, _ASK_AGAIN_SECONDS))  # or sooner, when a job is settled
        elif answer.wanted > 0:
            self._is_taking = True
            sent_at = self._timeline.now
            self._timeline.after(self._world.way(), self._take, answer, sent_at)
        else:
            self._wake(_ASK_AGAIN_SECONDS)

    def _take(self, request: TakeRequest, sent_at: float) -> None:
        taken = self._redis.take(request, f"{self.number}")
        self._timeline.after(self._world.way(), self._taken, request, taken, sent_at)

    def _taken(self, request: TakeRequest, taken: Taken, sent_at: float) -> None:
        self._is_taking = False
        self.gates.took(request, taken)
        for delivery in taken.jobs:
            self.in_flight.add(delivery)
        self._is_empty = taken.emptied_queue
        if not taken.emptied_queue:
            self._full_until = sent_at + SPACING_SECONDS
        if taken.wait_ms:
            self._closed_until = self._timeline.now + min(taken.wait_ms / 1000, _ASK_AGAIN_SECONDS)
        if taken.jobs:
            self._receive(taken.jobs)
        self._turn()

    # -- running, as worker.runtime.executor does

    def _receive(self, deliveries: list[Delivery]) -> None:
        now = self._admission._clock.now()
        ready = []
        for delivery in deliveries:
            item = _Item(delivery, self.in_flight.add(delivery))
            decision = self._admission.admit(item.assignment, now)
            if decision is None:
                ready.append(item)
            elif not isinstance(decision, Held):
                self._carry_out(item, decision)
        if ready:
            claimed = self._world.way() + self._world.way()
            self._timeline.after(claimed, self._begin, ready)

    def _begin(self, items: list[_Item]) -> None:
        for item in items:
            item.run = self._admission.run_of(item.assignment)
            item.life = self._handler(item.assignment.accepted, item.run)
            self._go_on(item)

    def _go_on(self, item: _Item) -> None:
        assert item.life is not None
        assert item.run is not None
        self._client.is_probe = item.run.is_probe
        try:
            seconds = item.life.send(None)
        except StopIteration as end:
            item.run.is_over = True
            item.delivery.progress = item.run.progress.to_bytes()
            self._carry_out(item, end.value)
        else:
            self._timeline.after(seconds, self._go_on, item)

    def _give_permit_back(self, delivery: Delivery) -> None:
        if delivery.has_permit:
            delivery.has_permit = False
            self.gates.give_back_permit(delivery)
            self._closed_until = self._full_until = 0.0
            self._timeline.after(0, self._turn)

    def _carry_out(self, item: _Item, decision: Decision) -> None:
        self._give_permit_back(item.delivery)
        match decision:
            case Finished(event):
                self._timeline.after(_SETTLE_SECONDS, self._completed, item, event.outcome)
            case Later():
                self._timeline.after(_SETTLE_SECONDS, self._delayed, item, decision)

    def _completed(self, item: _Item, outcome: str) -> None:
        self._redis.complete(item.delivery)
        self._world.ended(item.delivery.raw.decode(), outcome, item.delivery.attempts)
        self._settled(item)

    def _delayed(self, item: _Item, later: Later) -> None:
        deadline = self._admission.deadline_ms(item.assignment)
        progress = item.delivery.progress
        self._redis.delay(
            Delay(item.delivery, later.delay, is_retry=later.is_retry, deadline_ms=deadline, progress=progress)
        )
        self._settled(item)

    def _settled(self, item: _Item) -> None:
        self.in_flight.remove(item.delivery)
        self._turn()

    def _restore_attempts(self, jobs: Counter[tuple[str, str]]) -> None:
        waiting = [(ref, attempts) for (_, ref), attempts in jobs.items()]
        self._timeline.after(self._world.way(), self._redis.restore_attempts, waiting)

    # -- flow control and maintenance

    def _flow_changes(self) -> None:
        if not self._is_throttling:
            self._is_throttling = True
            self._timeline.after(0, self._throttle)

    def _throttle(self) -> None:
        change = self.gates.change()
        if change is None:
            self._is_throttling = False
        else:
            self._timeline.after(self._world.way(), self._throttle_in_redis, change)

    def _throttle_in_redis(self, change: Any) -> None:
        fleet = self._redis.fleet
        before = fleet.paused_until_ms
        _, news = fleet.throttle(change)
        if fleet.paused_until_ms > before:
            self._world.pauses.append((self._timeline.now, (fleet.paused_until_ms - BEGAN_MS) / 1000))
        self._timeline.after(self._world.way(), self._throttled, news)

    def _throttled(self, news: Any) -> None:
        self.gates.saw(news)
        self._throttle()

    def _look_around(self) -> None:
        self._timeline.after(self._world.way(), self._promote)

    def _promote(self) -> None:
        promoted = self._redis.promote(between_ms=_PROMOTE_BETWEEN_MS, version=self.gates.version)
        self._timeline.after(self._world.way(), self._promoted, promoted)

    def _promoted(self, promoted: Any) -> None:
        self.gates.saw(promoted.fleet)
        if promoted.next_deadline_ms == 0:
            expired = self._redis.expire(f"{self.number}")
            for delivery in expired:
                self.in_flight.add(delivery)
            if expired:
                self._receive(expired)
        if promoted.count:
            self._is_empty = False
            self._turn()
        wait = _LOOK_SECONDS
        if promoted.next_due_ms is not None:
            wait = min(wait, max(_LOOK_AGAIN_SECONDS, promoted.next_due_ms / 1000))
        self._timeline.after(wait, self._look_around)


def _look_ahead(raw: bytes, *, now: datetime) -> ParsedJob:
    return _read(raw, size=len(raw), now=now)


def _read(raw: bytes, *, size: int, now: datetime) -> ParsedJob:  # noqa: ARG001
    """A message is its job's name; ``junk...`` is no job, and ``dry...`` is a dry run."""
    name = raw.decode()
    if name.startswith("junk"):
        return Rejection(name, None, None, Problem(ProblemType.INVALID_JOB, "Junk."), None, None)
    job = Job.model_construct(conversation_id=name, dry_run=name.startswith("dry"))
    return Accepted(name, name, job, {}, None, None, _TRACE, None, ())
