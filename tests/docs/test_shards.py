"""The producer's recipe in docs/scaling.md, on a real cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sandbox.redis_cluster import RedisCluster

PAGE = (Path(__file__).parent.parent.parent / "docs" / "scaling.md").read_text("utf-8")


def recipe(url: str) -> dict[str, Any]:
    """What the page's code defines, with the cluster at this address."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code.replace("redis://redis-cluster:6379", url), found)  # noqa: S102 - our own page
    return found


def test_all_jobs_of_a_conversation_go_to_one_shard_and_each_shard_has_a_node_of_its_own() -> None:
    with RedisCluster(replicas=0) as cluster:
        page = recipe(cluster.servers[0].url)
        client = page["cluster"]

        for number in range(60):
            for copy in ("first", "again"):
                page["send"](f"conversation-{number % 30}", f"{number % 30} {copy}")

        queues = [f"{{{shard}}}.lock" for shard in page["SHARDS"]]
        found: list[list[Any]] = [client.lrange(queue, 0, -1) for queue in queues]
        assert sum(map(len, found)) == 120
        assert all(found)
        conversations = [{message.split()[0] for message in messages} for messages in found]
        assert sum(map(len, conversations)) == 30
        assert len({cluster.owner(queue).port for queue in queues}) == len(queues)
        client.close()
