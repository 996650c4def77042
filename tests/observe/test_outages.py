"""What the log tells of trouble with Redis: once, each minute with a count, and once when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import AuthenticationError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.broker.refusals import NotConnectedError
from worker.observe.outages import QUIET_SECONDS, REPEAT_SECONDS, Outages

GONE = RedisConnectionError("gone")
WRONG_TYPE = ResponseError('WRONGTYPE key "a" holds a set')


class Log:
    """Outages on a clock of their own, and the lines that came of them."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.now = 1000.0
        self.outages = Outages(now=lambda: self.now)

    @property
    def events(self) -> list[str]:
        return [record.message for record in self._caplog.records]

    @property
    def last(self) -> dict[str, Any]:
        return vars(self._caplog.records[-1])

    def fail(self, seconds: float, *parts: str, error: Exception = GONE, every: float = 0.5) -> None:
        """All these parts fail for so long, twice a second."""
        until = self.now + seconds
        while self.now < until:
            for part in parts:
                self.outages.failed(part, error)
            self.now += every


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def test_what_works_is_no_news(log: Log) -> None:
    for _ in range(100):
        log.outages.worked("take")

    assert log.events == []


def test_an_outage_is_said_once_whichever_parts_meet_it(log: Log) -> None:
    log.fail(30, "take", "complete", "renew", "celery")

    assert log.events == ["redis_unavailable"]
    assert (log.last["part"], log.last["error"]) == ("take", "gone")


def test_an_outage_that_lasts_is_said_each_minute_with_a_count_of_what_failed(log: Log) -> None:
    log.fail(3 * REPEAT_SECONDS + 1, "take", "complete")

    assert log.events == ["redis_unavailable", *["redis_still_unavailable"] * 3]
    assert log.last["seconds"] == pytest.approx(180)
    assert log.last["failures"]["take"] == pytest.approx(361, abs=1)


def test_it_is_said_once_when_all_that_failed_works_again(log: Log) -> None:
    log.fail(30, "take", "complete")

    log.outages.worked("take")
    assert log.events == ["redis_unavailable"]
    log.outages.worked("complete")
    log.outages.worked("complete")

    assert log.events == ["redis_unavailable", "redis_available"]
    assert (log.last["seconds"], log.last["failures"]) == (30, {"take": 60, "complete": 60})
    assert log.last["levelname"] == "WARNING"


def test_a_part_that_makes_no_call_any_more_does_not_keep_an_outage_open(log: Log) -> None:
    log.fail(30, "take", "claim")

    log.outages.worked("take")
    log.now += QUIET_SECONDS + 1
    log.outages.worked("take")

    assert log.events == ["redis_unavailable", "redis_available"]


def test_a_connection_that_comes_and_goes_is_one_outage(log: Log) -> None:
    for _ in range(100):
        log.outages.failed("take", GONE)
        log.now += 0.5
        log.outages.worked("take")
        log.now += 0.5
    log.now += QUIET_SECONDS + 1
    log.outages.worked("take")

    assert log.events == ["redis_unavailable", "redis_available", "redis_still_unavailable", "redis_available"]


def test_the_next_outage_is_said_again(log: Log) -> None:
    for _ in range(2):
        log.fail(1, "take")
        log.outages.worked("take")
        log.now += QUIET_SECONDS + 1

    assert log.events == ["redis_unavailable", "redis_available"] * 2


def test_a_refusal_that_concerns_one_kind_of_call_is_an_outage_of_its_own(log: Log) -> None:
    log.fail(10, "complete", error=WRONG_TYPE)
    log.outages.worked("take")
    log.outages.failed("take", GONE)
    log.outages.worked("take")
    assert log.events == ["redis_refuses", "redis_unavailable", "redis_available"]

    log.outages.worked("complete")

    assert log.events[-1] == "redis_refuses_no_more"
    assert log.last["failures"] == {"complete": 20}


def test_a_refusal_in_other_words_is_said_at_once(log: Log) -> None:
    for name in "ab":
        log.fail(1, "complete", error=ResponseError(f'WRONGTYPE key "{name}" holds a set'))
        log.outages.worked("complete")

    assert log.events == ["redis_refuses", "redis_refuses_no_more"] * 2


def test_what_works_for_one_queue_does_not_end_the_refusals_for_another(log: Log) -> None:
    for _ in range(40):
        log.outages.failed("take", WRONG_TYPE, queue="a")
        log.outages.worked("take", "b")
        log.now += 0.5
    assert log.events == ["redis_refuses"]
    assert log.last["queue"] == "a"

    log.outages.worked("take", "a")
    assert log.events == ["redis_refuses", "redis_refuses_no_more"]


def test_a_refusal_for_another_queue_is_said_once_where_its_words_are_others(log: Log) -> None:
    for _ in range(10):
        log.outages.failed("take", WRONG_TYPE, queue="a")
        log.outages.failed("take", ResponseError('WRONGTYPE key "b" holds a set'), queue="b")
        log.now += 0.5
    assert log.events == ["redis_refuses", "redis_still_refuses"]
    assert log.last["queue"] == "b"

    log.outages.worked("take", "a")
    log.outages.worked("take", "b")
    assert log.events[2:] == ["redis_refuses_no_more"]


def test_what_a_full_server_refuses_for_all_queues_is_said_once(log: Log) -> None:
    for queue in "abcdef":
        log.outages.failed("wait", ResponseError("OOM command not allowed"), queue=queue)

    assert log.events == ["redis_refuses"]


def test_a_refusal_that_lasts_is_said_each_minute(log: Log) -> None:
    log.fail(2 * REPEAT_SECONDS + 1, "complete", error=WRONG_TYPE)

    assert log.events == ["redis_refuses", "redis_still_refuses", "redis_still_refuses"]


def test_what_to_do_is_said_as_soon_as_it_is_known_and_once(log: Log) -> None:
    log.fail(1, "take")
    log.fail(30, "take", "renew", error=AuthenticationError("WRONGPASS"))

    assert log.events == ["redis_unavailable", "redis_still_unavailable"]
    assert "password" in log.last["advice"]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (AuthenticationError("WRONGPASS"), "user and password"),
        (ReadOnlyError("You can't write against a read only replica."), "primary"),
        (ResponseError("MISCONF Errors writing to the AOF file"), "disk"),
        (RedisConnectionError("max number of clients reached"), "maxclients"),
    ],
    ids=str,
)
def test_it_is_said_what_to_do_where_that_is_known(log: Log, error: Exception, advice: str) -> None:
    told = NotConnectedError(str(error))
    told.__cause__ = error

    log.outages.failed("take", told)

    assert log.events == ["redis_unavailable"]
    assert advice in log.last["advice"]
