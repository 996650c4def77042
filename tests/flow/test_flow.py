"""All gates of a process together: what a take may bring, what a failure costs a job, and what may wait in a slot."""

from __future__ import annotations

import logging

import pytest

from tasks.verdict import Blame
from tests.flow.clock import Clock
from worker.broker.moves import Delivery
from worker.flow.flow import Flow
from worker.gate import Admit, Answer, Wait
from worker.hands import Hands

LIMIT = 8


class Scene:
    """The gates of a process with so many slots."""

    def __init__(self, *, failures: int = 10, is_rate_limited: bool = False) -> None:
        self.clock = Clock()
        self.hands = Hands(LIMIT)
        self.paused: list[float] = []
        self.flow = Flow(
            self.hands,
            failures=failures,
            is_rate_limited=is_rate_limited,
            pause=self.paused.append,
            clock=self.clock,
            chance=lambda: 0.0,
        )

    def hold(self, jobs: int) -> None:
        for ref in range(jobs):
            self.hands.add(Delivery(f"{ref}", "t", b"", 0, 0, 0, 0, 0.0, "q"))

    def break_down(self) -> None:
        """The API fails for all."""
        for number in range(10):
            self.flow.failed(f"job-{number}", Blame.API)
        assert self.flow.api.is_open

    def refuse_the_token(self) -> None:
        self.flow.failed("job-1", Blame.TOKEN)
        assert self.flow.token.is_open

    def ask_for_a_probe(self) -> float:
        """Ask, as often as told, until a probe may pass; how long that was."""
        waited = 0.0
        while isinstance(answer := self.flow.ask(), Wait):
            waited += answer.seconds
            self.clock.wait(answer.seconds)
        assert answer == Admit(1, is_probe=True)
        return waited


# Taking


def test_in_good_times_the_free_slots_decide() -> None:
    scene = Scene()
    assert scene.flow.ask() == Admit(LIMIT)
    scene.hold(5)
    assert scene.flow.ask() == Admit(3)
    scene.hold(LIMIT)
    assert scene.flow.ask() == Admit(0)


def test_a_worker_that_stops_takes_nothing() -> None:
    scene = Scene()
    scene.hands.is_closed = True
    assert scene.flow.ask() == Admit(0)


@pytest.mark.parametrize(
    ("trouble", "answer"),
    [("break_down", Wait(1.0, "api_down")), ("refuse_the_token", Wait(5.0, "token_refused"))],
)
def test_each_gate_that_is_closed_holds_all_takes_back_and_names_its_reason(trouble: str, answer: Answer) -> None:
    scene = Scene()
    getattr(scene, trouble)()
    assert scene.flow.ask() == answer


def test_a_probe_is_one_job_whatever_is_free() -> None:
    scene = Scene()
    scene.break_down()
    scene.hold(2)
    assert scene.ask_for_a_probe() == 1.0
    assert scene.flow.ask() == Wait(1.0, "api_down")


def test_a_probe_is_not_spent_while_no_slot_is_free() -> None:
    scene = Scene()
    scene.break_down()
    scene.clock.wait(1.0)
    scene.hold(LIMIT)
    assert scene.flow.ask() == Admit(0)

    scene.hands.drop(scene.hands.held()[0])

    assert scene.flow.ask() == Admit(1, is_probe=True)


def test_a_probe_of_one_gate_that_another_gate_keeps_back_is_not_lost() -> None:
    # given a token that is refused, and an API that fails since
    scene = Scene()
    scene.refuse_the_token()
    scene.clock.wait(4.5)
    scene.break_down()

    # when the token's probe is due, the API's is not
    scene.clock.wait(0.5)
    assert scene.flow.ask() == Wait(0.5, "api_down")

    # then one probe serves both as soon as the last gate allows it
    scene.clock.wait(0.5)
    assert scene.flow.ask() == Admit(1, is_probe=True)
    assert scene.flow.ask() == Wait(5.0, "token_refused")


def test_a_probe_that_a_recovering_gate_has_no_room_for_is_not_lost() -> None:
    scene = Scene()
    scene.break_down()
    scene.ask_for_a_probe()
    scene.flow.answered()
    scene.refuse_the_token()
    scene.hold(1)
    scene.clock.wait(5.0)
    assert scene.flow.ask() == Admit(0)

    scene.hands.drop(scene.hands.held()[0])

    assert scene.flow.ask() == Admit(1, is_probe=True)


def test_a_take_that_found_nothing_gives_the_probe_back() -> None:
    scene = Scene()
    scene.break_down()
    scene.refuse_the_token()
    scene.ask_for_a_probe()

    scene.flow.unused()

    assert scene.ask_for_a_probe() == 0.0


def test_recovery_counts_what_is_held() -> None:
    scene = Scene()
    scene.break_down()
    scene.ask_for_a_probe()
    scene.flow.answered()
    assert scene.flow.ask() == Admit(1)
    scene.hold(1)
    assert scene.flow.ask() == Admit(0)
    for _ in range(3):
        scene.flow.answered()
    assert scene.flow.ask() == Admit(3)
    while not scene.flow.api.is_closed:
        scene.flow.answered()
    assert scene.flow.ask() == Admit(LIMIT - 1)


# Failures


def test_one_refusal_of_the_token_is_enough_and_none_is_an_attempt() -> None:
    scene = Scene()
    assert [scene.flow.failed("job-1", Blame.TOKEN) for _ in range(3)] == [False] * 3
    assert scene.flow.token.is_open
    assert scene.flow.api.is_closed


def test_a_refused_token_is_probed_every_few_seconds_and_no_more_rarely() -> None:
    scene = Scene()
    scene.refuse_the_token()
    waits = []
    for number in range(5):
        waits.append(scene.ask_for_a_probe())
        scene.flow.failed(f"job-{number}", Blame.TOKEN)
    assert waits == [5.0] * 5


def test_a_token_that_works_again_lets_jobs_in_by_degrees_and_one_refusal_stops_them() -> None:
    scene = Scene()
    scene.refuse_the_token()
    scene.ask_for_a_probe()
    scene.flow.answered()
    assert scene.flow.ask() == Admit(1)
    scene.flow.answered()
    assert scene.flow.ask() == Admit(2)

    scene.flow.failed("job-1", Blame.TOKEN)

    assert scene.flow.ask() == Wait(5.0, "token_refused")


@pytest.mark.parametrize("blame", [Blame.LOAD, Blame.WORKER])
def test_overload_and_errors_of_our_own_are_attempts_and_close_no_gate(blame: Blame) -> None:
    scene = Scene()
    assert [scene.flow.failed(f"job-{number}", blame) for number in range(100)] == [True] * 100
    assert scene.flow.ask() == Admit(LIMIT)


def test_no_breaker_means_that_every_failure_is_an_attempt() -> None:
    scene = Scene(failures=0)
    assert [scene.flow.failed(f"job-{number}", Blame.API) for number in range(100)] == [True] * 100
    assert scene.flow.ask() == Admit(LIMIT)


def test_without_a_breaker_a_refused_token_still_stops_all() -> None:
    scene = Scene(failures=0)
    scene.refuse_the_token()
    assert scene.flow.ask() == Wait(5.0, "token_refused")


@pytest.mark.parametrize("trouble", ["break_down", "refuse_the_token"])
@pytest.mark.parametrize("blame", [Blame.API, Blame.LOAD, Blame.TOKEN])
def test_a_probe_is_no_attempt_however_it_fails(trouble: str, blame: Blame) -> None:
    scene = Scene()
    getattr(scene, trouble)()
    scene.ask_for_a_probe()

    assert scene.flow.failed("job-1", blame) is False


@pytest.mark.parametrize("trouble", ["break_down", "refuse_the_token"])
def test_an_error_of_our_own_is_an_attempt_at_any_time_or_it_could_go_on_for_ever(trouble: str) -> None:
    scene = Scene()
    getattr(scene, trouble)()
    scene.ask_for_a_probe()

    assert scene.flow.failed("job-1", Blame.WORKER) is True


# Waiting in a slot


def test_in_good_times_a_job_may_wait_in_its_slot() -> None:
    assert not Scene().flow.holds_back()


def test_where_every_call_needs_a_permit_none_does() -> None:
    assert Scene(is_rate_limited=True).flow.holds_back()


@pytest.mark.parametrize("trouble", ["break_down", "refuse_the_token"])
def test_none_does_until_the_gate_is_wide_open_again(trouble: str) -> None:
    scene = Scene()
    getattr(scene, trouble)()
    assert scene.flow.holds_back()
    scene.flow.answered()
    assert scene.flow.holds_back()

    while not all(gate.is_closed for gate in scene.flow.gates):
        scene.flow.answered()

    assert not scene.flow.holds_back()


def test_none_does_during_a_pause_that_this_worker_asked_for() -> None:
    scene = Scene()
    scene.flow.pause(10)
    scene.flow.pause(2)
    assert scene.flow.holds_back()
    scene.clock.wait(9.9)
    assert scene.flow.holds_back()
    scene.clock.wait(0.2)
    assert not scene.flow.holds_back()


def test_a_pause_is_the_fleets_and_ends_there() -> None:
    """Whoever deletes the key in Redis ends it for all workers, this one too."""
    scene = Scene()
    scene.flow.pause(10)
    assert scene.paused == [10]
    assert scene.flow.ask() == Admit(LIMIT)


# What it says


def test_a_pause_is_said_once_though_all_calls_under_way_are_answered_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    for _ in range(100):
        scene.flow.pause(2)
        scene.clock.wait(0.001)
    scene.clock.wait(2)
    scene.flow.pause(3)

    assert len(scene.paused) == 101
    lines = [(record.levelno, record.message, record.__dict__["seconds"]) for record in caplog.records]
    assert lines == [(logging.WARNING, "fleet_paused", 2), (logging.WARNING, "fleet_paused", 3)]


def test_a_refused_token_tells_the_person_on_call_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.refuse_the_token()
    scene.ask_for_a_probe()
    scene.flow.failed("job-2", Blame.TOKEN)

    assert [record.message for record in caplog.records] == ["breaker_opened", "breaker_probe_failed"]
    for record in caplog.records:
        assert (record.levelno, record.__dict__["reason"]) == (logging.ERROR, "token_refused")
        for word in ("401", "API_TOKEN_FILE", "API_TOKEN", "restart", "wait in Redis", "lose no attempt"):
            assert word in record.__dict__["advice"]


def test_an_api_that_is_down_tells_the_person_on_call_where_to_look(caplog: pytest.LogCaptureFixture) -> None:
    Scene().break_down()

    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "breaker_opened")
    assert record.__dict__["reason"] == "api_down"
    for word in ("API_URL", "job_delayed", "wait in Redis", "lose no attempt"):
        assert word in record.__dict__["advice"]
