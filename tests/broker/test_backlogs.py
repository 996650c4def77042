"""What several queues have, asked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.broker.backlogs import backlogs
from worker.broker.keys import Keys
from worker.broker.records import Backlog

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

NOTHING = Backlog(is_ready=False, is_under_way=False)
QUEUES = [Keys(queue) for queue in ("moderation.lock", "b", "c")]


async def test_idle_queues_are_seen_to_be_so_with_one_command_however_many(bench: Workbench) -> None:
    before = bench.client.info("commandstats").get("cmdstat_exists", {"calls": 0})["calls"]

    assert await backlogs(bench.async_client, QUEUES) == [NOTHING] * 3

    assert bench.client.info("commandstats")["cmdstat_exists"]["calls"] - before == 1


@pytest.mark.parametrize("key", QUEUES[0].ready)
async def test_a_job_on_any_list_is_ready(bench: Workbench, key: str) -> None:
    bench.run("LPUSH", key, "x")

    first, *others = await backlogs(bench.async_client, QUEUES)
    bench.run("DEL", key)

    assert first == Backlog(is_ready=True, is_under_way=False)
    assert others == [NOTHING] * 2


@pytest.mark.parametrize("key", QUEUES[0].under_way)
async def test_a_job_that_was_taken_is_under_way(bench: Workbench, key: str) -> None:
    bench.run("ZADD", key, 1, "x")

    first, *others = await backlogs(bench.async_client, QUEUES)
    bench.run("DEL", key)

    assert first == Backlog(is_ready=False, is_under_way=True)
    assert others == [NOTHING] * 2
