"""A server whose scripts cannot ask for permissions: every move works there, and who looks is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from sandbox.redis_server import RedisServer
from tests.altered_server import ACL_CHECK, without
from tests.broker.every_move import MOVES, set_scene
from tests.broker.workbench import Workbench
from worker.broker.keys import Keys
from worker.broker.permissions import UsedNames, refused_commands
from worker.broker.refusals import meaning
from worker.broker.server_check import Unknown, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary


@pytest.fixture(scope="module")
def redis_server(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("server")
    with RedisServer(without(server_binary, folder, ACL_CHECK), {"appendonly": "yes"}) as server:
        yield server


@pytest.mark.parametrize("name", MOVES)
async def test_every_move_works(bench: Workbench, name: str) -> None:
    scene = await set_scene(bench, name)
    before = bench.snapshot()

    await MOVES[name](bench, scene)

    assert bench.snapshot() != before


def test_the_check_of_the_server_says_so(redis_client: Redis) -> None:
    (finding,) = look(redis_client, Keys("moderation.lock").priority_lists, allow_eviction=False)

    assert isinstance(finding, Unknown)
    assert "redis.acl_check_cmd" in finding.problem


def test_nobody_is_told_that_all_permissions_are_there(redis_client: Redis) -> None:
    names = UsedNames(Keys("moderation.lock"), "moderation.results", "moderation.dead", "moderation.control")

    assert refused_commands(redis_client, names) is None


@pytest.mark.usefixtures("overwritten")
def test_a_move_that_lacks_a_permission_stops_half_way_which_is_why_operators_are_warned(
    bench: Workbench, redis_client: Redis, redis_url: str
) -> None:
    server: Any = redis_client
    server.execute_command("ACL", "SETUSER", "app", "on", ">a-password", "~*", "&*", "+@all", "-zadd")
    bench.push(b"a job")
    with Redis.from_url(redis_url.replace("://", "://app:a-password@"), protocol=2) as client:
        user = Workbench(client, bench.async_client)
        with pytest.raises(ResponseError) as refused:
            user.take()
        found = meaning(refused.value)
        assert found is not None
        assert "access control list" in found.problem

    assert bench.client.llen(bench.keys.queue) == 0
    assert bench.client.zcard(bench.keys.leases) == 0
