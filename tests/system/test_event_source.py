"""Whose event it is: environments that share a server are told apart, and a worker says what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_every_event_names_the_source_that_was_set(stage: Stage) -> None:
    stage.worker(EVENT_SOURCE="/lock-worker/staging")

    for job in (stage.send(), stage.send(""), stage.send(fields={"dry_run": True})):
        assert stage.event_of(job)["source"] == "/lock-worker/staging"


def test_a_worker_of_another_database_says_that_pubsub_knows_none(redis_url: str, tmp_path: Path) -> None:
    with Stage(redis_url.replace("/0", "/1"), tmp_path) as stage:
        stage.redis.flushdb()
        worker = stage.worker()

        (line,) = eventually(lambda: worker.lines("pubsub_knows_no_databases"), "the warning")

        assert (line["level"], line["database"]) == ("warning", 1)
        assert "RESULTS_CHANNEL and an EVENT_SOURCE of its own" in line["advice"]
        assert stage.event_of(stage.send())["source"] == "/lock-worker"
        worker.stop()
        stage.redis.flushdb()


def test_a_worker_of_database_0_says_nothing_of_that(stage: Stage) -> None:
    worker = stage.worker()
    stage.event_of(stage.send())

    assert worker.lines("pubsub_knows_no_databases") == []
