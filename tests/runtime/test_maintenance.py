"""Leases are kept, due and lost jobs are found: what one round does, and that rounds go on whatever Redis answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.broker.keys import Keys
from worker.broker.moves import EXPIRE_JOBS, Moves
from worker.broker.records import Delivery, FleetNews, Promoted, Recovered
from worker.broker.refusals import NotConnectedError
from worker.flow_control.flow_control import NO_NEWS
from worker.observe.outages import Outages
from worker.runtime.clock import ServerClock
from worker.runtime.in_flight import InFlight
from worker.runtime.maintenance import Maintenance, QueueWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUE = "moderation.lock"
NOW_MS = 1_800_000_000_000


def delivery(ref: str, queue: str = QUEUE) -> Delivery:
    return Delivery(
        ref=ref, lease_token="take-1", raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0.0,
        queue=queue
    )  # fmt: skip


def promoted(count: int | None, next_due_ms: int | None = None, next_deadline_ms: int | None = None) -> Promoted:
    return Promoted(count, next_due_ms, next_deadline_ms, NO_NEWS)


class Fleet:
    """The fleet's flow control as this worker knows it."""

    version = 3

    def __init__(self) -> None:
        self.news: list[FleetNews] = []

    def saw(self, fleet: FleetNews) -> None:
        self.news.append(fleet)


@dataclass
class FakeMoves:
    """Redis, as the moves show it. An answer that is an error is raised."""

    lease_ms: int = 30_000
    not_ours: set[str] = field(default_factory=set)
    promoted: Promoted = field(default_factory=lambda: promoted(0))
    recovered: Recovered = field(default_factory=lambda: Recovered(0, NOW_MS, []))
    troubles: list[Exception] = field(default_factory=list)
    renewed: list[list[str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    between_ms: int = 0
    expired: list[Delivery] = field(default_factory=list)
    expire_fails: Exception | None = None

    def __post_init__(self) -> None:
        self.keys = Keys(QUEUE)
        self.broker_options = SimpleNamespace(lease_ms=self.lease_ms)

    async def renew(self, jobs: Sequence[Delivery]) -> list[bool]:
        self.renewed.append([job.ref for job in jobs])
        self._fail()
        return [job.ref not in self.not_ours for job in jobs]

    async def promote(self, *, between_ms: int, version: int) -> Promoted:  # noqa: ARG002 - the moves' signature
        assert version == Fleet.version
        self._fail()
        return self.promoted

    async def expire(self, *, token: str, sent_at: float) -> list[Delivery]:
        assert sent_at <= time.monotonic()
        self.tokens.append(token)
        if self.expire_fails is not None:
            raise self.expire_fails
        return self.expired

    async def recover(self, *, token: str, sent_at: float, between_ms: int) -> Recovered:
        assert sent_at <= time.monotonic()
        self.tokens.append(token)
        self.between_ms = between_ms
        return self.recovered

    def _fail(self) -> None:
        if self.troubles:
            raise self.troubles.pop(0)


class Bench:
    """Upkeep over fake moves, with what it told others."""

    def __init__(self, **answers: Any) -> None:
        self.moves = FakeMoves(**answers)
        self.in_flight = InFlight(1000)
        self.clock = ServerClock()
        self.ready = 0
        self.told: list[Recovered] = []
        self.poisoned: list[Delivery] = []
        self.expired: list[Delivery] = []
        self.not_heard: list[str] = []
        self.fleet = Fleet()
        tokens = (f"token-{number}" for number in itertools.count(1))
        self.maintenance = Maintenance(
            cast("Moves", self.moves), self.in_flight, self.clock,
            next_lease_token=lambda: next(tokens), fleet=self.fleet, on_ready=self._on_ready,
            on_recovered=self.told.append,
            on_poisoned=self.poisoned.append, on_expired=self.expired.extend,
            not_heard=lambda _, token: self.not_heard.append(token),
        )  # fmt: skip

    def _on_ready(self) -> None:
        self.ready += 1


@pytest.fixture(autouse=True)
def own_outages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests told of Redis is no trouble of these."""
    monkeypatch.setattr("worker.runtime.retries.outages", Outages())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between rounds, each over at once; after the eighth the rounds are ended."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)
        if len(made) == 8:
            raise asyncio.CancelledError

    monkeypatch.setattr("worker.runtime.maintenance.asyncio.sleep", sleep)
    return made


async def test_a_renewed_job_is_held_for_a_lease_from_before_the_call() -> None:
    bench = Bench()
    job = delivery("a")
    bench.in_flight.add(job)
    before = time.monotonic()

    await bench.maintenance.renew_once()

    assert before + 30 <= job.lease_until <= time.monotonic() + 30
    assert not job.lease_lost


async def test_a_job_that_is_not_ours_any_more_is_marked_and_its_lease_is_not_prolonged() -> None:
    bench = Bench(not_ours={"b"})
    ours, lost = delivery("a"), delivery("b")
    bench.in_flight.add(ours)
    bench.in_flight.add(lost)

    await bench.maintenance.renew_once()

    assert (ours.lease_lost, lost.lease_lost) == (False, True)
    assert lost.lease_until == 0.0


async def test_the_jobs_of_another_queue_are_left_to_its_own_upkeep() -> None:
    bench = Bench()
    bench.in_flight.add(delivery("a"))
    bench.in_flight.add(delivery("b", queue="another"))

    await bench.maintenance.renew_once()

    assert bench.moves.renewed == [["a"]]


async def test_many_leases_are_renewed_in_bounded_calls() -> None:
    bench = Bench()
    for number in range(501):
        bench.in_flight.add(delivery(str(number)))

    await bench.maintenance.renew_once()

    assert [len(some) for some in bench.moves.renewed] == [500, 1]


async def test_leases_are_renewed_three_times_in_their_length_and_sooner_after_a_failure(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(troubles=[RedisConnectionError("gone"), OSError("reset")])
    bench.in_flight.add(delivery("a"))

    with pytest.raises(asyncio.CancelledError):
        await bench.maintenance.renew_leases()

    assert waits == [0.25, 0.25, *[10.0] * 6]
    assert [record.message for record in caplog.records] == ["redis_unavailable", "redis_available"]
    assert vars(caplog.records[1])["failures"] == {"renew": 2}


@pytest.mark.parametrize(("next_due_ms", "seconds"), [(None, 0.5), (60_000, 0.5), (200, 0.2), (3, 0.02), (0, 0.02)])
async def test_the_next_look_comes_when_the_next_job_is_due_and_soon_in_any_case(
    next_due_ms: int | None, seconds: float
) -> None:
    assert await Bench(promoted=promoted(0, next_due_ms)).maintenance.run_once() == seconds


async def test_with_short_leases_it_is_looked_so_often_that_a_silence_stands_out() -> None:
    bench = Bench(lease_ms=1200)

    assert await bench.maintenance.run_once() == pytest.approx(0.2)
    assert bench.moves.between_ms == 160


async def test_looks_go_on_whatever_redis_answers(waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(troubles=[RedisConnectionError("gone"), OSError("reset")])

    with pytest.raises(asyncio.CancelledError):
        await bench.maintenance.run()

    assert waits == [0.5] * 8
    assert [record.message for record in caplog.records] == ["redis_unavailable", "redis_available"]
    assert vars(caplog.records[1])["failures"] == {"maintenance": 2}
    assert bench.moves.tokens == [f"token-{number}" for number in range(1, 7)], "each round has a token of its own"


@pytest.mark.parametrize(
    ("due", "recovered", "is_told"),
    [(0, 0, False), (None, None, False), (2, 0, True), (2, None, True), (0, 1, True), (None, 1, True)],
)
async def test_who_waits_for_jobs_is_told_when_some_became_ready(
    due: int | None, recovered: int | None, *, is_told: bool
) -> None:
    bench = Bench(promoted=promoted(due), recovered=Recovered(recovered, NOW_MS, []))

    await bench.maintenance.run_once()

    assert bench.ready == is_told


async def test_leases_are_renewed_at_once_when_the_fleet_was_silent_or_the_clock_was_set() -> None:
    bench = Bench(recovered=Recovered(None, NOW_MS, [], is_grace=True))
    job = delivery("held")
    bench.in_flight.add(job)

    await bench.maintenance.run_once()

    assert bench.moves.renewed == [["held"]]


async def test_a_poisoned_job_is_held_and_handed_over_to_be_ended() -> None:
    job = delivery("killer")
    bench = Bench(recovered=Recovered(0, NOW_MS, [job]))

    await bench.maintenance.run_once()

    assert bench.in_flight.deliveries() == [job]
    assert bench.poisoned == [job]


@pytest.mark.parametrize(
    ("count", "poisoned", "is_told"), [(2, 0, True), (0, 1, True), (0, 0, False), (None, 0, False)]
)
async def test_jobs_of_a_lost_worker_are_told_of(count: int | None, poisoned: int, *, is_told: bool) -> None:
    recovered = Recovered(count, NOW_MS, [delivery("killer")] * poisoned, workers={"pod-1": 2})
    bench = Bench(recovered=recovered)

    await bench.maintenance.run_once()

    assert bench.told == ([recovered] if is_told else [])


async def test_jobs_that_are_too_old_are_held_and_handed_over_to_be_ended() -> None:
    job = delivery("old")
    bench = Bench(promoted=promoted(0, next_deadline_ms=0), expired=[job])

    await bench.maintenance.run_once()

    assert bench.in_flight.deliveries() == bench.expired == [job]


async def test_many_jobs_that_are_too_old_are_ended_in_several_calls_and_the_rest_at_the_next_look() -> None:
    bench = Bench(promoted=promoted(0, next_deadline_ms=0), expired=[delivery(f"{n}") for n in range(EXPIRE_JOBS)])

    await bench.maintenance.run_once()

    assert len(bench.expired) == 10 * EXPIRE_JOBS


@pytest.mark.parametrize(
    ("error", "not_heard"),
    [
        (RedisConnectionError("lost"), ["token-2"]),
        (RedisTimeoutError("no answer"), ["token-2"]),
        (NotConnectedError("refused"), []),
        (ResponseError("WRONGTYPE"), []),
    ],
    ids=str,
)
async def test_what_was_taken_to_be_ended_and_never_heard_of_is_told(error: Exception, not_heard: list[str]) -> None:
    bench = Bench(promoted=promoted(0, next_deadline_ms=0), expire_fails=error)

    with pytest.raises(type(error)):
        await bench.maintenance.run_once()

    assert bench.not_heard == not_heard


async def test_what_stands_in_redis_of_the_fleets_flow_control_is_told_at_every_look() -> None:
    bench = Bench()

    await bench.maintenance.run_once()

    assert bench.fleet.news == [NO_NEWS]


async def test_the_clock_is_set_by_the_server() -> None:
    bench = Bench()

    await bench.maintenance.run_once()

    assert abs((bench.clock.now() - datetime.fromtimestamp(NOW_MS / 1000, UTC)).total_seconds()) < 5


class FakeRedis:
    """Answers EXISTS by what stands in it, and counts the writes."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.writes = 0
        self.trouble: Exception | None = None

    async def execute_command(self, _: str, *keys: str) -> int:
        self.writes += 1
        if self.trouble is not None:
            raise self.trouble
        return len(self.keys & set(keys))

    async def send(self, *commands: list[str]) -> Any:
        self.writes += 1
        counts = iter([len(self.keys & set(command[1:])) for command in commands])

        async def following() -> int:
            return next(counts)

        async def close() -> None: ...

        return SimpleNamespace(next=following, close=close)


class Watched:
    """Several queues under one watch, and what it told."""

    def __init__(self, *queues: str) -> None:
        self.redis = FakeRedis()
        self.states = dict.fromkeys(queues, "as ever")
        self.consumed = set(queues)
        self.in_flight = InFlight(10)
        self.ready: list[str] = []
        self.left: list[str] = []

        def maintenance(queue: str) -> Any:
            def turn(state: str) -> Any:
                return lambda: self.states.__setitem__(queue, state)

            return SimpleNamespace(wake=turn("awake"), rest=turn("resting"))

        self.watch = QueueWatch(
            cast("Any", self.redis), {queue: maintenance(queue) for queue in queues}, self.in_flight,
            look_seconds=0.5, is_consumed=self.consumed.__contains__, on_ready=self.ready.append,
            on_left=self.left.append,
        )  # fmt: skip


async def test_the_upkeep_of_idle_queues_rests_but_that_of_the_first_one() -> None:
    scene = Watched("a", "b", "c")

    await scene.watch.run_once()

    assert scene.states == {"a": "awake", "b": "resting", "c": "resting"}
    assert (scene.redis.writes, scene.ready, scene.left) == (1, [], [])


async def test_a_single_queue_is_left_to_its_own_upkeep() -> None:
    scene = Watched("a")

    await scene.watch.run_once()

    assert (scene.redis.writes, scene.states) == (0, {"a": "awake"})


@pytest.mark.parametrize("key", Keys("b").under_way)
async def test_the_upkeep_of_a_queue_with_jobs_under_way_is_woken(key: str) -> None:
    scene = Watched("a", "b", "c")
    scene.redis.keys = {key}

    await scene.watch.run_once()

    assert scene.states == {"a": "awake", "b": "awake", "c": "resting"}
    assert scene.ready == []


@pytest.mark.parametrize("key", Keys("b").ready)
async def test_who_takes_is_told_of_a_queue_with_jobs_that_are_ready(key: str) -> None:
    scene = Watched("a", "b", "c")
    scene.redis.keys = {key}

    await scene.watch.run_once()

    assert scene.ready == ["b"]


async def test_a_queue_that_is_not_consumed_is_left_once_no_job_of_it_is_under_way_or_in_hand() -> None:
    scene = Watched("a", "b")
    scene.consumed.remove("b")
    scene.redis.keys = {Keys("b").delayed, "b"}
    job = delivery("x", queue="b")
    scene.in_flight.add(job)

    await scene.watch.run_once()
    scene.redis.keys = {"b"}
    await scene.watch.run_once()
    assert scene.left == []

    scene.in_flight.remove(job)
    await scene.watch.run_once()
    assert (scene.left, scene.ready) == (["b"], [])


async def test_where_redis_refuses_the_look_at_all_queues_each_is_looked_at_and_that_is_told_once(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    scene = Watched("a", "b")
    scene.redis.trouble = ResponseError("CROSSSLOT")

    with pytest.raises(asyncio.CancelledError):
        await scene.watch.run()

    assert waits == [0.5] * 8
    assert scene.states == {"a": "awake", "b": "awake"}
    assert {*scene.ready} == {"a", "b"}
    assert [record.message for record in caplog.records] == ["maintenance_failed"]


async def test_an_idle_queue_that_rests_is_looked_at_as_soon_as_it_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.runtime.maintenance._LOOK_SECONDS", 0.001)
    bench = Bench()
    looks: asyncio.Queue[None] = asyncio.Queue()
    monkeypatch.setattr(bench.maintenance, "_on_ready", lambda: looks.put_nowait(None))
    bench.moves.promoted = promoted(1)
    bench.maintenance.rest()
    looking = asyncio.create_task(bench.maintenance.run())
    await looks.get()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(looks.get(), 0.1)

    bench.maintenance.wake()

    await asyncio.wait_for(looks.get(), 5)
    looking.cancel()
