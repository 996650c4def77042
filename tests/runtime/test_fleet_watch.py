"""What the metrics tell of a fleet is what is in Redis."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.workbench import link_to
from worker.broker.keys import Keys, ledger_of
from worker.broker.stream_bounds import StreamBounds
from worker.flow_control.limit import Limit
from worker.observe.fleet_metrics import REGISTRY, STALE_SECONDS, FreshMetrics
from worker.runtime.fleet_state import FleetNames
from worker.runtime.fleet_watch import FleetWatch
from worker.runtime.members import Activity, OpenBreaker
from worker.runtime.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis

    from worker.broker.client import RedisClient

KEYS = Keys("moderation.lock")
NAMES = FleetNames("moderation.lock", "moderation.results", "moderation.dead")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def watch_over(link: RedisClient, shown: FreshMetrics | None = None) -> FleetWatch:
    """A watch that this process's page of metrics does not hear of."""
    shown = shown or FreshMetrics(REGISTRY)
    return FleetWatch(link, NAMES, maxlens=(1000, 500), bounds=StreamBounds(), shown=shown)


class Scene:
    """A fleet in Redis, and a watch that looks when it is told to."""

    def __init__(self, client: redis.Redis, link: RedisClient) -> None:
        self.client: Any = client
        self.clock = Clock()
        self.shown = FreshMetrics(REGISTRY, clock=self.clock)
        self._watch = watch_over(link, self.shown)

    async def look(self) -> None:
        await self._watch.look_once()

    @property
    def now_ms(self) -> int:
        seconds, microseconds = self.client.time()
        return int(seconds * 1000 + microseconds // 1000)

    def register(self, worker: str, activity: Activity, **settings: object) -> None:
        registry = Registry(worker, "1.0", settings, activity=lambda: activity)
        value = f"{self.now_ms} {registry.digest} {registry.entry(['moderation.lock'])}"
        self.client.hset(KEYS.workers, worker, value)


@pytest.fixture
async def scene(redis_url: str, redis_client: redis.Redis) -> AsyncIterator[Scene]:
    link = link_to(redis_url, timeout_seconds=5)
    yield Scene(redis_client, link)
    await link.disconnect()


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"lock_worker_{name}", labels)


def states() -> dict[str, float | None]:
    return {state: metric("queue_jobs", state=state) for state in ("ready", "in_flight", "delayed", "due", "held")}


async def test_an_unused_queue_is_zero_everywhere(scene: Scene) -> None:
    await scene.look()

    assert states() == dict.fromkeys(("ready", "in_flight", "delayed", "due", "held"), 0)
    for name in ("queue_workable", "queue_oldest_ready_seconds", "workers", "dead_letters", "results_stream_events"):
        assert metric(name) == 0
    assert (metric("dead_letters_max"), metric("results_stream_events_max")) == (500, 1000)
    assert metric("results_oldest_seconds") == metric("results_stream_bytes") == 0


async def test_each_state_is_counted(scene: Scene) -> None:
    for count, key in enumerate([*KEYS.priority_lists, KEYS.arrived, KEYS.requeued, KEYS.retries], start=1):
        scene.client.lpush(key, *range(count))
    scene.client.zadd(KEYS.delayed, {"a": scene.now_ms - 5, "b": scene.now_ms + 60_000, "c": scene.now_ms + 60_000})
    scene.client.zadd(KEYS.leases, {"d": 1, "e": 2, "f": 3, "g": 4})

    await scene.look()

    assert states() == {"ready": 28, "in_flight": 4, "delayed": 2, "due": 1, "held": 0}
    assert metric("queue_workable") == 29


async def test_events_bytes_and_the_age_of_the_oldest_are_told(scene: Scene) -> None:
    scene.client.xadd(NAMES.results, {"event": "an event"}, id=f"{scene.now_ms - 60_000}-0")
    for _ in range(4):
        scene.client.xadd(NAMES.results, {"event": "an event"})
    scene.client.set(ledger_of(NAMES.results), "1 10;?3 3000 2 200")
    scene.client.xadd(NAMES.dead, {"event": "an event"})

    await scene.look()

    assert (metric("results_stream_events"), metric("results_stream_bytes"), metric("dead_letters")) == (5, 3210, 1)
    assert 58 < (metric("results_oldest_seconds") or 0) < 90
    assert (metric("redis_memory_used_bytes") or 0) > 10_000
    assert metric("redis_memory_max_bytes") == 0


async def test_more_workers_could_do_nothing_while_the_fleet_pauses(scene: Scene) -> None:
    scene.client.lpush(KEYS.queue, "a", "b")
    scene.client.set(KEYS.pause, "the API answered 429", px=60_000)
    await scene.look()
    assert (metric("queue_workable"), metric("fleet_paused", by="api")) == (0, 1)

    scene.client.delete(KEYS.pause)
    await scene.look()
    assert (metric("queue_workable"), metric("fleet_paused", by="api")) == (2, 0)


async def test_more_workers_could_do_nothing_while_the_breakers_of_all_are_open(scene: Scene) -> None:
    scene.client.lpush(KEYS.queue, "a", "b")
    scene.register("one", Activity(slots=10, breakers=(OpenBreaker("api_down", 1.0),)))
    await scene.look()
    assert (metric("queue_workable"), metric("workers")) == (0, 1)

    scene.register("two", Activity(slots=10))
    await scene.look()
    assert (metric("queue_workable"), metric("workers")) == (2, 2)


@pytest.mark.parametrize(
    ("permits_until_ms", "in_flight", "workable"),
    [
        (+50, 1, 0),  # permits are given for later, and slots are free: a worker more would wait for permits too
        (+50, 10, 2),  # all slots are in use: it is these that are missing
        (-5_000, 1, 2),  # nobody waits for a permit
    ],
)
async def test_more_workers_could_do_nothing_while_the_rate_limit_is_what_jobs_wait_for(
    scene: Scene, permits_until_ms: int, in_flight: int, workable: int
) -> None:
    scene.client.lpush(KEYS.queue, "a", "b")
    scene.register("one", Activity(slots=10))
    scene.client.zadd(KEYS.leases, {str(number): number for number in range(in_flight)})
    scene.client.set(KEYS.rate, (scene.now_ms + permits_until_ms) * 1000 + 900_000)
    if permits_until_ms < 0:
        scene.client.set(KEYS.rate, (scene.now_ms + permits_until_ms) * 1000)
    state = Limit(rate=12.5, by="one", status=429).to_json()
    scene.client.hset(KEYS.limit, mapping={"rate": "12.5", "state": state})

    await scene.look()

    assert metric("queue_workable") == workable
    assert metric("fleet_calls_per_second_limit") == 12.5


async def test_settings_in_which_workers_differ_are_counted(scene: Scene) -> None:
    scene.register("one", Activity(), LEASE_SECONDS=6, MAX_ATTEMPTS=8)
    scene.register("two", Activity(), LEASE_SECONDS=7, MAX_ATTEMPTS=8)

    await scene.look()

    assert metric("settings_differ") == 1


async def test_the_totals_are_sampled_once_in_ten_seconds(scene: Scene) -> None:
    scene.client.hset(KEYS.counters, mapping={"taken": 5, "strange": "a word"})

    await scene.look()
    await scene.look()

    (sample,) = scene.client.lrange(KEYS.samples, 0, -1)
    assert json.loads(sample.partition(b" ")[2]) == {"taken": "5"}


async def test_a_user_that_may_not_keep_samples_knows_the_rest(
    scene: Scene, redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.acl_setuser("looker", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-rpush"])
    try:
        link = link_to(redis_url.replace("//", "//looker:x@"), timeout_seconds=5)
        redis_client.lpush(KEYS.queue, "a")
        await watch_over(link).look_once()
        await link.disconnect()
    finally:
        redis_client.acl_deluser("looker")

    assert states()["ready"] == 1
    assert not scene.client.exists(KEYS.samples)


async def test_a_server_that_is_away_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    link = link_to("redis://127.0.0.1:1", timeout_seconds=0.2)
    watch = watch_over(link)

    for _ in range(3):
        await watch._look()

    assert [record.getMessage() for record in caplog.records] == ["fleet_not_watched"]


def shown(scene: Scene) -> set[str]:
    return {family.name for family in scene.shown.collect()}


async def test_a_pod_that_was_cut_off_shows_no_old_values_until_it_reads_again(scene: Scene) -> None:
    scene.client.lpush(KEYS.queue, "a")
    await scene.look()
    scene.clock.seconds += STALE_SECONDS
    assert {"lock_worker_queue_jobs", "lock_worker_workers"} <= shown(scene)

    scene.clock.seconds += 0.1
    assert shown(scene) == set()

    await scene.look()
    assert {"lock_worker_queue_jobs", "lock_worker_workers"} <= shown(scene)


async def test_all_metrics_are_there_before_the_first_read_however_late_it_is(scene: Scene) -> None:
    scene.clock.seconds += 10 * STALE_SECONDS

    assert shown(scene) == {family.name for family in REGISTRY.collect()}
