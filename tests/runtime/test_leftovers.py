"""What a worker says, from look to look, of jobs that nobody will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker.keys import Keys
from worker.runtime.leftovers import _report

if TYPE_CHECKING:
    import pytest
    from redis import Redis

OLD = "moderation.old"


def test_jobs_that_are_left_on_a_queue_that_was_brought_in_before_are_reported_too(
    redis_client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.hset(Keys(OLD).maintenance, "recovered_at", 1)
    reported: dict[str, int] = {}

    def jobs_reported(jobs: int) -> list[int]:
        redis_client.delete(OLD)
        for _ in range(jobs):
            redis_client.rpush(OLD, b"a job")
        caplog.clear()
        _report(redis_client, ["moderation.lock"], reported)
        return [vars(record)["jobs"] for record in caplog.records if record.message == "queue_abandoned"]

    assert [jobs_reported(jobs) for jobs in (5, 5, 3, 4, 0, 2)] == [[5], [], [], [4], [], [2]]
