"""The cancel that is in force while ``lock-worker cancel`` looks through the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from settings import Settings
from tests.cli.steered import actions
from worker.cli.cancel import barrier as module
from worker.cli.cancel.barrier import Barrier
from worker.cli.controls.steering import Steering
from worker.message.controls import Control, Note
from worker.message.selector import Selector

if TYPE_CHECKING:
    import redis

SELECTOR = Selector(rule="r-7")


@pytest.fixture
def fleet(redis_client: redis.Redis, redis_url: str) -> Steering:
    return Steering(redis_client, Settings(REDIS_URL=SecretStr(redis_url), API_TOKEN=SecretStr("x")))


def in_force(fleet: Steering) -> Note | None:
    found = fleet.read().find(Control("cancel", SELECTOR, Note("", "")))
    return None if found is None else found.note


def barrier(fleet: Steering, seconds: int | None = None, reason: str = "mine") -> Barrier:
    made = Barrier(fleet, SELECTOR, fleet.note(reason, seconds), seconds)
    made.raise_(fleet.event("cancelled", fleet.note(reason), selector=SELECTOR.fields))
    return made


def test_it_ends_by_itself_within_a_minute_unless_it_is_renewed(
    fleet: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = barrier(fleet)
    first = in_force(fleet)
    assert first is not None
    assert 0 < first.until_ms - fleet.now_ms() <= 60_000

    raised.keep()
    assert in_force(fleet) == first  # it is not time for that

    monkeypatch.setattr(module, "_RENEW_SECONDS", 0)
    raised.keep()
    renewed = in_force(fleet)
    assert renewed is not None
    assert renewed.until_ms > first.until_ms
    raised.lower()
    assert in_force(fleet) is None
    assert actions(fleet.client) == ["cancelled"]


def test_one_with_a_time_stays(fleet: Steering) -> None:
    raised = barrier(fleet, 3600)
    raised.lower()
    assert in_force(fleet) is not None


def test_it_does_not_end_what_another_operator_has_set_meanwhile(fleet: Steering) -> None:
    raised = barrier(fleet)
    barrier(fleet, 3600, "theirs")

    raised.lower()

    left = in_force(fleet)
    assert left is not None
    assert left.reason == "theirs"


def test_of_two_commands_at_once_the_first_to_end_leaves_the_other_its_own(fleet: Steering) -> None:
    first, second = barrier(fleet, reason="first"), barrier(fleet, reason="second")

    first.lower()

    left = in_force(fleet)
    assert left is not None
    assert left.reason == "second"
    second.lower()
    assert in_force(fleet) is None
    assert actions(fleet.client) == ["cancelled", "cancelled"]


def test_one_of_another_operator_that_lasts_is_left_alone(fleet: Steering) -> None:
    barrier(fleet, 3600, "theirs")
    theirs = in_force(fleet)

    mine = barrier(fleet)
    mine.keep()
    mine.lower()

    assert in_force(fleet) == theirs
    assert actions(fleet.client) == ["cancelled", "cancelled"]
