"""Whether consumers keep up, and whether Redis has room, is logged in time and once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.workbench import link_to
from worker.broker.stream_bounds import StreamBounds
from worker.observe.fleet_metrics import REGISTRY
from worker.runtime.fleet_state import FleetNames, read_fleet_state
from worker.runtime.stream_monitor import MAX_GROUPS, StreamMonitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis

    from worker.broker.client import RedisClient

RESULTS = "moderation.results"
NAMES = FleetNames("moderation.lock", RESULTS, "moderation.dead")
MAXLEN = 100


class Scene:
    """A results stream on a real server, its consumer groups, and a monitor that looks when it is told to."""

    def __init__(
        self, client: redis.Redis, link: RedisClient, monitor: StreamMonitor, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.client: Any = client
        self._link = link
        self.monitor = monitor
        self.seconds = 0.0
        self._caplog = caplog

    def add(self, count: int) -> None:
        """Events, of which the stream keeps MAXLEN."""
        for _ in range(count):
            self.client.xadd(RESULTS, {"event": "an event"}, maxlen=MAXLEN, approximate=False)

    def group(self, name: str, start: str = "0") -> None:
        self.client.xgroup_create(RESULTS, name, id=start, mkstream=True)

    def read(self, name: str, count: int) -> None:
        self.client.xreadgroup(name, "a consumer", {RESULTS: ">"}, count=count)

    async def look(self) -> list[tuple[str, dict[str, Any]]]:
        """What is told at this look: the line's name, and its fields."""
        self._caplog.clear()
        state = await read_fleet_state(self._link, NAMES)
        self.monitor.look(state.results, state.memory, state.queue.server_ms)
        return [(record.getMessage(), vars(record)) for record in self._caplog.records]

    async def names(self) -> list[str]:
        return [name for name, _ in await self.look()]


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"lock_worker_{name}", labels)


@pytest.fixture
async def scene(redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    link = link_to(redis_url, timeout_seconds=5)
    monitor = StreamMonitor(maxlen=MAXLEN, bounds=StreamBounds(), now=lambda: found.seconds)
    caplog.set_level(logging.INFO)
    found = Scene(redis_client, link, monitor, caplog)
    yield found
    await link.disconnect()


async def test_a_groups_lag_is_what_it_was_not_given_yet(scene: Scene) -> None:
    scene.group("early")
    scene.add(10)
    scene.group("late", "$")
    scene.add(5)
    scene.read("early", 3)
    scene.read("late", 5)
    scene.add(4)

    await scene.look()

    assert (metric("results_group_lag", group="early"), metric("results_group_lag", group="late")) == (16, 4)


async def test_a_group_that_has_read_all_has_no_lag_whatever_it_missed(scene: Scene) -> None:
    """Redis 7.0 counts what was trimmed before it was read as unread for ever."""
    scene.group("g")
    scene.add(10)
    scene.read("g", 3)
    scene.add(MAXLEN)
    scene.read("g", 1_000)

    await scene.look()
    assert metric("results_group_lag", group="g") == 0

    scene.add(4)
    await scene.look()
    assert metric("results_group_lag", group="g") == 4


async def test_a_group_whose_lag_redis_does_not_know_has_an_estimate(scene: Scene) -> None:
    scene.group("g")
    scene.add(20)
    scene.read("g", 5)
    entries = [entry for entry, _ in scene.client.xrange(RESULTS)]
    scene.client.xdel(RESULTS, entries[10])
    assert scene.client.xinfo_groups(RESULTS)[0]["lag"] is None

    await scene.look()

    assert 1 <= (metric("results_group_lag", group="g") or 0) <= 19


async def test_only_the_slowest_groups_have_a_series_and_one_that_is_gone_has_none(scene: Scene) -> None:
    scene.add(1)
    for number in range(MAX_GROUPS + 10):
        scene.group(f"fast-{number}", "$")
    scene.group("slow")
    await scene.look()

    lags = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name.endswith("group_lag")]
    assert len(lags) == MAX_GROUPS
    assert metric("results_group_lag", group="slow") == 1

    scene.client.xgroup_destroy(RESULTS, "slow")
    await scene.look()
    assert metric("results_group_lag", group="slow") is None


@pytest.mark.parametrize("name", [b"\xff\xfe", "g\n\u202e".encode(), b"x" * 5_000])
async def test_any_name_of_a_group_can_be_told(scene: Scene, name: bytes) -> None:
    scene.add(MAXLEN)
    scene.client.xgroup_create(RESULTS, name, id="0")
    await scene.look()

    lags = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name.endswith("group_lag")]
    assert [(sample.value, len(sample.labels["group"]) <= 100) for sample in lags] == [(MAXLEN, True)]


async def test_a_group_that_is_near_to_losing_events_is_told_of_once(scene: Scene) -> None:
    scene.group("g")
    scene.add(MAXLEN // 2)
    assert await scene.look() == []  # there is room

    scene.add(MAXLEN // 2 - 5)
    ((name, fields),) = await scene.look()
    assert (name, fields["group"], fields["unread"]) == ("results_nearly_trimmed_unread", "g", MAXLEN - 5)
    assert await scene.look() == []

    # It keeps up, and falls behind again.
    scene.read("g", 90)
    assert await scene.look() == []
    scene.add(MAXLEN - 10)
    assert await scene.names() == ["results_nearly_trimmed_unread"]


@pytest.mark.parametrize("start", ["0", "$"])
async def test_a_group_that_never_read_and_loses_events_is_told_of_with_their_number(scene: Scene, start: str) -> None:
    scene.add(3)
    scene.group("g", start)
    await scene.look()

    scene.add(MAXLEN + 50)
    ((name, fields),) = await scene.look()

    assert (name, fields["group"], fields["unread"]) == ("results_trimmed_unread", "g", MAXLEN)
    assert fields["events"] == (53 if start == "0" else 50)


async def test_a_group_that_read_some_and_loses_events_is_told_of_with_their_number(scene: Scene) -> None:
    scene.group("g")
    scene.add(50)
    scene.read("g", 20)
    await scene.look()

    scene.add(MAXLEN)
    ((name, fields),) = await scene.look()

    assert (name, fields["events"], fields["unread"]) == ("results_trimmed_unread", 30, MAXLEN)


async def test_a_worker_that_starts_after_the_loss_tells_it_too(scene: Scene) -> None:
    scene.group("g")
    scene.add(50)
    scene.read("g", 20)
    scene.add(MAXLEN)

    assert await scene.names() == ["results_trimmed_unread"]


async def test_a_group_that_goes_on_losing_events_is_told_of_again_after_an_hour_with_all_of_them(
    scene: Scene,
) -> None:
    scene.group("g")
    scene.add(MAXLEN)
    await scene.look()
    scene.add(10)
    assert await scene.names() == ["results_trimmed_unread"]

    for _ in range(5):
        scene.add(10)
        assert await scene.look() == []

    scene.seconds = 3601
    scene.add(1)
    ((_, fields),) = await scene.look()
    assert fields["events"] == 51


async def test_events_that_all_groups_have_read_may_go(scene: Scene) -> None:
    scene.group("g")
    for _ in range(5):
        scene.add(MAXLEN // 2)
        scene.read("g", 1_000)
        assert await scene.look() == []


async def test_a_group_that_reads_on_after_a_loss_is_not_told_of_again(scene: Scene) -> None:
    scene.group("g")
    scene.add(10)
    scene.read("g", 5)
    scene.add(MAXLEN)
    assert await scene.names() == ["results_trimmed_unread"]

    for _ in range(5):
        scene.read("g", 90)
        scene.add(20)
        assert await scene.look() == []


async def test_a_group_that_is_made_late_has_lost_nothing(scene: Scene) -> None:
    scene.add(MAXLEN * 2)
    scene.group("g", "$")
    assert await scene.look() == []
    scene.add(10)
    assert await scene.look() == []


@pytest.fixture
def restore_memory(redis_client: redis.Redis) -> Any:
    yield
    redis_client.config_set("maxmemory", 0)


@pytest.mark.usefixtures("restore_memory")
async def test_a_server_that_is_nearly_full_is_told_of_once_until_it_has_room_again(scene: Scene) -> None:
    used = scene.client.info("memory")["used_memory"]
    limit = used * 12 // 10
    scene.client.config_set("maxmemory", limit)

    names = await scene.names()
    assert names == ["streams_bounded_by_memory", "redis_nearly_full"]
    assert await scene.look() == []

    scene.client.config_set("maxmemory", used * 1_000)
    assert "redis_nearly_full" not in await scene.names()
    scene.client.config_set("maxmemory", used * 12 // 10)
    assert "redis_nearly_full" in await scene.names()


@pytest.mark.usefixtures("restore_memory")
async def test_the_bounds_of_the_streams_follow_the_servers_memory(scene: Scene) -> None:
    bounds = scene.monitor._bounds
    scene.client.config_set("maxmemory", 64 * 1024 * 1024)

    ((name, fields),) = await scene.look()

    assert name == "streams_bounded_by_memory"
    assert (fields["results_max_bytes"], fields["dead_max_bytes"]) == (32 * 1024 * 1024, 16 * 1024 * 1024)
    assert bounds.results_bytes == 32 * 1024 * 1024
    assert await scene.look() == []
    scene.client.config_set("maxmemory", 1024 * 1024 * 1024)
    assert await scene.look() == []
    assert bounds.results_bytes == bounds.results


async def test_a_stream_of_a_wrong_type_is_an_error_of_the_look(scene: Scene) -> None:
    scene.client.rpush(RESULTS, "not ours")

    with pytest.raises(Exception, match="WRONGTYPE"):
        await scene.look()

    scene.client.delete(RESULTS)
    assert await scene.look() == []
