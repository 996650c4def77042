"""A call to Redis that is made until it is answered: its waits, what the log tells of it, and how it is cancelled."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from worker.observe.outages import Outages
from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Mapping


class Call:
    """Fails with each error in turn, and is answered then; what it was asked is counted."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "an answer"


@pytest.fixture(autouse=True)
def own_outages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests told of Redis is no trouble of these."""
    monkeypatch.setattr("worker.runtime.retries.outages", Outages())


async def test_a_call_that_is_answered_is_made_once(waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    call = Call()

    assert await retry_forever("double", call) == "an answer"

    assert (call.made, waits, caplog.records) == (1, [], [])


async def test_the_waits_between_calls_grow_to_a_limit_and_all_failures_are_reported_in_two_lines(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    call = Call(*(RedisConnectionError(f"no {number}") for number in range(9)))

    assert await retry_forever("double", call) == "an answer"

    assert call.made == 10
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    begin, end = [vars(record) for record in caplog.records]
    assert (begin["message"], begin["part"], begin["error"]) == ("redis_unavailable", "double", "no 0")
    assert (end["message"], end["failures"]) == ("redis_available", {"double": 9})


async def test_a_wait_of_its_own_stays_as_long_as_it_is(waits: list[float]) -> None:
    await retry_forever("renew", Call(*[OSError("reset")] * 4), wait_seconds=0.25)

    assert waits == [0.25] * 4


async def test_an_outage_begins_with_the_facts_as_they_are_when_the_call_has_failed(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [3, 4]

    def facts() -> Mapping[str, int]:
        return {"jobs": jobs.pop(0)}

    await retry_forever("renew", Call(ResponseError("WRONGTYPE"), OSError("gone")), queue="a queue", facts=facts)

    told = [(record.message, vars(record).get("jobs"), vars(record).get("queue")) for record in caplog.records]
    assert told[:2] == [("redis_refuses", 3, "a queue"), ("redis_unavailable", 4, "a queue")]
    assert waits == [0.05, 0.1]


async def test_an_error_of_our_own_is_reported_with_its_traceback_and_lets_go_of_no_job(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    call = Call(ValueError("a bug"), RedisConnectionError("gone"), ValueError("another bug"))

    assert await retry_forever("double", call) == "an answer"

    first, _, second, _ = caplog.records
    assert (first.levelno, first.message) == (logging.ERROR, "redis_retry")
    assert (vars(first)["move"], vars(first)["wait_seconds"], vars(second)["wait_seconds"]) == ("double", 0.05, 0.2)
    assert "a bug" in caplog.text
    assert "in __call__" in caplog.text, "with its traceback"
    assert waits == [0.05, 0.1, 0.2]


async def test_who_logs_its_own_errors_by_itself_is_given_each(waits: list[float]) -> None:
    told: list[tuple[str, str, float]] = []

    await retry_forever(
        "renew", Call(ValueError("a bug")), log_error=lambda error, *rest: told.append((str(error), *rest))
    )

    assert told == [("a bug", "renew", 0.05)]
    assert waits == [0.05]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()], ids=repr)
@pytest.mark.parametrize("failures", [0, 2])
async def test_what_is_no_failure_of_a_call_is_not_retried(
    error: BaseException, failures: int, waits: list[float]
) -> None:
    call = Call(*[OSError("gone")] * failures, error)

    raised: BaseException | None = None
    try:
        await retry_forever("double", call)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as found:
        raised = found

    assert raised is error
    assert len(waits) == failures


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_cancelling_ends_it_at_once_in_a_call(failures: int, waits: list[float]) -> None:
    errors, hangs = [OSError("gone")] * failures, asyncio.Event()

    async def call() -> None:
        if errors:
            raise errors.pop()
        hangs.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(retry_forever("double", call))
    await hangs.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(waits) == failures


async def test_cancelling_ends_it_at_once_in_a_wait() -> None:
    is_waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        is_waiting.set()
        await asyncio.Event().wait()

    call = Call(*[OSError("gone")] * 3)
    task = asyncio.create_task(retry_forever("double", call, sleep=sleep))
    await is_waiting.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.made == 1


async def test_many_calls_at_once_keep_their_waits_apart(waits: list[float]) -> None:
    answers = await asyncio.gather(*(retry_forever(f"part-{n}", Call(*[OSError("gone")] * n)) for n in range(4)))

    assert answers == ["an answer"] * 4
    assert sorted(waits) == [0.05, 0.05, 0.05, 0.1, 0.1, 0.2]
