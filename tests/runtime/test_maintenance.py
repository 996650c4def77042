"""Leases are kept, due and lost jobs are found: what one round does, and that rounds go on whatever Redis answers."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import RedisError

from sandbox.redis_server import RedisServer
from tests.broker.workbench import Workbench, link_to
from worker.broker.keys import Keys
from worker.broker.move_limits import EXPIRE_JOBS
from worker.broker.records import Delivery, FleetNews, Recovered
from worker.observe.outages import Outages
from worker.runtime.clock import ServerClock
from worker.runtime.in_flight import InFlight
from worker.runtime.maintenance import Maintenance, QueueWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from sandbox.server_binaries import ServerBinary
    from worker.broker.client import RedisClient

QUEUE = "moderation.lock"
PATIENCE_SECONDS = 5.0


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition is true, while other tasks go on."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Rounds that go on for ever, until the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done(), "the rounds have ended"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Fleet:
    """The fleet's flow control as this worker knows it: nothing yet."""

    version = 0

    def __init__(self) -> None:
        self.news: list[FleetNews] = []

    def saw(self, fleet: FleetNews) -> None:
        self.news.append(fleet)


class Scene:
    """The maintenance of a queue, with what it reported to others."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.in_flight = InFlight(1000)
        self.clock = ServerClock()
        self.fleet = Fleet()
        self.ready = 0
        self.recovered: list[Recovered] = []
        self.poisoned: list[Delivery] = []
        self.expired: list[Delivery] = []
        self.lost_takes: list[str] = []
        self.maintenance = Maintenance(
            bench.maintenance, self.in_flight, self.clock,
            next_lease_token=bench.new_token, fleet=self.fleet, on_ready=self._on_ready,
            on_recovered=self.recovered.append, on_poisoned=self.poisoned.append, on_expired=self.expired.extend,
            on_lost_take=lambda _, token: self.lost_takes.append(token),
        )  # fmt: skip

    def _on_ready(self) -> None:
        self.ready += 1

    def hold(self, *jobs: Delivery) -> None:
        """These jobs are in flight here."""
        for job in jobs:
            job.lease_until = 0.0
            self.in_flight.add(job)


@pytest.fixture(autouse=True)
def own_outages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests told of Redis is no trouble of these."""
    monkeypatch.setattr("worker.runtime.retries.outages", Outages())


@pytest.fixture
def scene(bench: Workbench) -> Scene:
    """A queue that some worker has looked at all the time."""
    bench.fleet_was_awake()
    return Scene(bench)


# --- leases


async def test_a_renewed_job_is_held_for_a_lease_from_before_the_call(scene: Scene) -> None:
    job = scene.bench.take_one()
    scene.hold(job)
    before = time.monotonic()

    await scene.maintenance.renew_once()

    assert before + 30 <= job.lease_until <= time.monotonic() + 30
    assert not job.lease_lost


async def test_a_job_that_is_not_ours_any_more_is_marked_and_its_lease_is_not_prolonged(scene: Scene) -> None:
    ours, lost = scene.bench.take_one(b"ours"), scene.bench.take_one(b"lost")
    scene.hold(ours, lost)
    await scene.bench.crash(lost)  # so the fleet believes

    await scene.maintenance.renew_once()

    assert (ours.lease_lost, lost.lease_lost) == (False, True)
    assert lost.lease_until == 0.0


async def test_the_jobs_of_another_queue_are_left_to_its_own_maintenance(scene: Scene) -> None:
    job = scene.bench.take_one()
    others = replace(job, queue="another")
    scene.hold(others)

    await scene.maintenance.renew_once()

    assert (others.lease_until, others.lease_lost) == (0.0, False)


async def test_many_leases_are_renewed_in_bounded_calls(scene: Scene) -> None:
    bench = scene.bench
    bench.push(*[b"a job"] * 501)
    jobs = [job for _ in range(3) for job in bench.take(501).jobs]
    assert len(jobs) == 501
    scene.hold(*jobs)

    def calls() -> int:
        found = bench.client.info("commandstats")
        return sum(found.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in ("evalsha", "eval"))

    await scene.maintenance.renew_once()
    before = calls()
    await scene.maintenance.renew_once()

    assert calls() - before == 2
    assert all(job.lease_until for job in jobs)


async def test_a_lease_is_kept_for_as_long_as_its_job_is_in_flight(bench: Workbench) -> None:
    scene, others = (Scene(bench.under(lease_ms=1200)) for _ in range(2))
    bench.fleet_was_awake()
    job = scene.bench.take_one()
    scene.hold(job)
    begun = scene.bench.lease_end(job) or 0.0

    async with running(scene.maintenance.renew_leases()), running(others.maintenance.run()):
        await eventually(lambda: bench.now_ms() > begun + 1200, "a lease that would be over for long")
        assert bench.in_flight() == [job.ref]

    assert (job.lease_lost, others.recovered) == (False, [])


async def test_after_a_failure_leases_are_renewed_long_before_their_turn(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """With a lease of 30 s the turn comes after ten: later than this test waits."""
    job = scene.bench.take_one()
    scene.hold(job)
    scene.bench.run("RENAME", scene.bench.keys.leases, "aside")
    scene.bench.run("SET", scene.bench.keys.leases, "no set")

    async with running(scene.maintenance.renew_leases()):
        await eventually(lambda: caplog.records, "a word of the failure")
        scene.bench.run("RENAME", "aside", scene.bench.keys.leases)
        await eventually(lambda: job.lease_until, "a renewed lease")


async def test_leases_are_renewed_at_once_when_the_fleet_was_silent(bench: Workbench) -> None:
    scene = Scene(bench)
    silent_since = bench.now_ms() - bench.broker_options.silence_ms - 10_000
    bench.run("HSET", bench.keys.maintenance, "recovered_at", silent_since, "awake_since", silent_since)
    job = bench.take_one()
    scene.hold(job)

    await scene.maintenance.run_once()

    assert job.lease_until > time.monotonic()


# --- rounds


@pytest.mark.parametrize(("due_in", "least", "most"), [(None, 0.5, 0.5), (60, 0.5, 0.5), (0.3, 0.02, 0.3)])
async def test_the_next_look_comes_when_the_next_job_is_due_and_soon_in_any_case(
    scene: Scene, due_in: float | None, least: float, most: float
) -> None:
    if due_in is not None:
        await scene.bench.delay(scene.bench.take_one(), seconds=due_in)

    assert least <= await scene.maintenance.run_once() <= most


async def test_with_short_leases_it_is_looked_so_often_that_a_silence_stands_out(bench: Workbench) -> None:
    assert await Scene(bench.under(lease_ms=1200)).maintenance.run_once() == pytest.approx(0.2)


async def test_looks_go_on_whatever_redis_answers(bench: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(bench.under(lease_ms=300))
    job = bench.take_one()
    await bench.delay(job)
    bench.make_due(job)
    bench.run("RENAME", bench.keys.delayed, "aside")
    bench.run("SET", bench.keys.delayed, "no set")

    async with running(scene.maintenance.run()):
        await eventually(lambda: caplog.records, "a word of the failure")
        bench.run("RENAME", "aside", bench.keys.delayed)
        await eventually(lambda: bench.again() == [job.ref], "the job is promoted")


async def test_who_waits_for_jobs_is_notified_when_some_became_ready(scene: Scene) -> None:
    delayed, lost = scene.bench.take_one(b"delayed"), scene.bench.take_one(b"lost")
    await scene.bench.delay(delayed)

    async def notified_by_a_round() -> bool:
        before = scene.ready
        scene.bench.run("HDEL", scene.bench.keys.maintenance, "promoted_at")
        scene.bench.fleet_was_awake()
        scene.bench.run("HSET", scene.bench.keys.maintenance, "recovered_at", scene.bench.now_ms() - 1000)
        await scene.maintenance.run_once()
        return scene.ready > before

    assert not await notified_by_a_round()
    scene.bench.make_due(delayed)
    assert await notified_by_a_round()
    assert not await notified_by_a_round()
    scene.bench.lapse(lost)
    assert await notified_by_a_round()


async def test_jobs_of_a_lost_worker_are_reported(scene: Scene) -> None:
    bench = scene.bench
    await scene.maintenance.run_once()
    assert scene.recovered == []
    bench.lapse(bench.take_one())
    bench.run("HSET", bench.keys.maintenance, "recovered_at", bench.now_ms() - 1000)

    await scene.maintenance.run_once()

    assert [recovered.count for recovered in scene.recovered] == [1]


async def test_a_poisoned_job_is_in_flight_and_passed_on_to_be_ended(bench: Workbench) -> None:
    scene = Scene(bench.under(max_deliveries=2))
    await scene.bench.crash(scene.bench.take_one(b"killer"))
    (job,) = scene.bench.take(1).jobs
    scene.bench.lapse(job)
    scene.bench.fleet_was_awake()
    bench.run("HSET", bench.keys.maintenance, "recovered_at", bench.now_ms() - 1000)

    await scene.maintenance.run_once()

    assert [poisoned.raw for poisoned in scene.poisoned] == [b"killer"]
    assert scene.in_flight.deliveries() == scene.poisoned
    assert len(scene.recovered) == 1


async def test_jobs_that_are_too_old_are_held_and_ended_in_several_calls(scene: Scene) -> None:
    count = 2 * EXPIRE_JOBS + 1
    scene.bench.push(*[b"old"] * count)
    jobs = scene.bench.take(count).jobs
    await scene.bench.moves.release(jobs)
    scene.bench.make_too_old(*jobs)

    await scene.maintenance.run_once()

    assert {job.ref for job in scene.expired} == {job.ref for job in jobs}
    assert scene.in_flight.deliveries() == scene.expired


async def test_a_lost_take_of_jobs_to_be_ended_is_reported(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        client = link_to(server.url, timeout_seconds=0.2)
        with Redis.from_url(server.url, protocol=2) as seen:
            scene = Scene(Workbench(seen, client))
            seen.set(scene.bench.keys.deadlines, "no set")
            with pytest.raises(RedisError):
                await scene.maintenance._expire()
            assert scene.lost_takes == [], "it was refused"

        server.pause()
        with pytest.raises((RedisError, OSError)):
            await scene.maintenance._expire()
        server.resume()
        assert scene.lost_takes == ["take2"], "it may have been run, and the answer was lost"

        server.kill()
        with pytest.raises((RedisError, OSError)):
            await scene.maintenance._expire()
        with pytest.raises((RedisError, OSError)):
            await scene.maintenance._expire()
        assert "take4" not in scene.lost_takes, "there was no connection to send it over"
        await client.disconnect()


async def test_what_stands_in_redis_of_the_fleets_flow_control_is_reported_at_every_look(scene: Scene) -> None:
    await scene.maintenance.run_once()
    await scene.bench.throttle(12.5)

    await scene.maintenance.run_once()

    assert [news.rate for news in scene.fleet.news] == [0.0, 12.5]


async def test_the_clock_is_set_by_the_server(scene: Scene) -> None:
    scene.clock.sync(0)

    await scene.maintenance.run_once()

    assert abs(scene.clock.now_ms() - scene.bench.now_ms()) < 5_000


async def test_a_resting_queue_is_looked_at_as_soon_as_it_is_woken(bench: Workbench) -> None:
    """At rest the next look comes after ten seconds: later than this test waits."""
    scene = Scene(bench.under(lease_ms=300))
    scene.maintenance.rest()

    async with running(scene.maintenance.run()):
        await eventually(lambda: scene.maintenance._work._waiters, "it rests")
        assert len(scene.fleet.news) == 1
        scene.maintenance.wake()
        await eventually(lambda: len(scene.fleet.news) > 1, "another look")


# --- several queues


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    """A way to the server."""
    found = link_to(redis_url, timeout_seconds=5)
    yield found
    await found.disconnect()


class RecordedMaintenance:
    """What a queue's maintenance is asked for."""

    state = "as ever"

    def wake(self) -> None:
        self.state = "awake"

    def rest(self) -> None:
        self.state = "resting"


class Watched:
    """Several queues under one watch, and what it reported."""

    def __init__(self, client: RedisClient, *queues: str) -> None:
        self.queues: dict[str, Any] = {queue: RecordedMaintenance() for queue in queues}
        self.consumed = set(queues)
        self.in_flight = InFlight(10)
        self.ready: list[str] = []
        self.left: list[str] = []
        self.watch = QueueWatch(
            client, self.queues, self.in_flight,
            look_seconds=0.01, is_consumed=self.consumed.__contains__, on_ready=self.ready.append,
            on_left=self.left.append,
        )  # fmt: skip

    def states(self) -> dict[str, str]:
        return {queue: maintenance.state for queue, maintenance in self.queues.items()}


def put_a_job_on(redis_client: Redis, key: str) -> None:
    """Whatever kind of key it is."""
    if key in Keys("b").under_way:
        redis_client.zadd(key, {"x": 1})
    else:
        redis_client.lpush(key, "x")


async def test_idle_queues_rest_but_the_first_one(client: RedisClient) -> None:
    scene = Watched(client, "a", "b", "c")

    await scene.watch.run_once()

    assert scene.states() == {"a": "awake", "b": "resting", "c": "resting"}
    assert (scene.ready, scene.left) == ([], [])


async def test_a_single_queue_never_rests(client: RedisClient) -> None:
    scene = Watched(client, "a")

    await scene.watch.run_once()

    assert scene.states() == {"a": "awake"}


@pytest.mark.parametrize("key", Keys("b").under_way)
async def test_a_queue_with_jobs_under_way_is_woken(client: RedisClient, redis_client: Redis, key: str) -> None:
    scene = Watched(client, "a", "b", "c")
    put_a_job_on(redis_client, key)

    await scene.watch.run_once()

    assert scene.states() == {"a": "awake", "b": "awake", "c": "resting"}
    assert scene.ready == []


@pytest.mark.parametrize("key", Keys("b").ready)
async def test_who_takes_is_notified_of_a_queue_with_jobs_that_are_ready(
    client: RedisClient, redis_client: Redis, key: str
) -> None:
    scene = Watched(client, "a", "b", "c")
    put_a_job_on(redis_client, key)

    await scene.watch.run_once()

    assert scene.ready == ["b"]


async def test_a_queue_that_is_not_consumed_is_left_once_no_job_of_it_is_under_way_or_in_flight(
    client: RedisClient, redis_client: Redis
) -> None:
    scene = Watched(client, "a", "b")
    scene.consumed.remove("b")
    redis_client.lpush("b", "waits for somebody else")
    redis_client.zadd(Keys("b").delayed, {"x": 1})
    job = Delivery(
        ref="x", lease_token="t", raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0.0, queue="b"
    )
    scene.in_flight.add(job)

    await scene.watch.run_once()
    redis_client.delete(Keys("b").delayed)
    await scene.watch.run_once()
    assert scene.left == []

    scene.in_flight.remove(job)
    await scene.watch.run_once()
    assert (scene.left, scene.ready) == (["b"], [])


async def test_where_redis_refuses_the_look_at_all_queues_each_is_looked_at_and_that_is_reported_once(
    redis_url: str, redis_client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.acl_setuser("watcher", enabled=True, passwords="+secret", keys="*", commands=["+@all", "-exists"])
    client = link_to(f"redis://watcher:secret@{urlsplit(redis_url).netloc}/0", timeout_seconds=5)
    try:
        scene = Watched(client, "a", "b")
        async with running(scene.watch.run()):
            await eventually(lambda: len(scene.ready) >= 8, "four looks")
        assert scene.states() == {"a": "awake", "b": "awake"}
        assert {*scene.ready} == {"a", "b"}
        assert [record.message for record in caplog.records] == ["maintenance_failed"]
    finally:
        await client.disconnect()
        redis_client.acl_deluser("watcher")
