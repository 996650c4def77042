"""The flow control of one process: what a take asks for, and what a failure costs a job."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from tasks.attempts import Attempts
from tasks.outcome import Problem, ProblemType
from tasks.run import Run
from tasks.verdict import Blame
from tests.flow_control.clock import Clock
from worker.broker.records import Delivery, FleetNews, Taken, TakeRequest, TakeState
from worker.flow_control.fleet_counts import NO_NEWS
from worker.flow_control.flow_control import FlowControl
from worker.flow_control.gate_answer import Wait
from worker.flow_control.limit import Limit
from worker.runtime.in_flight import InFlight

if TYPE_CHECKING:
    import pytest

SLOTS = 8
PROBLEM = Problem(ProblemType.SERVER_ERROR, "The API answered 500.", 500)
NO_FILES = Problem(ProblemType.INTERNAL, "No file descriptor is free.")


class Scene:
    """The flow control of a process with so many slots."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.in_flight = InFlight(SLOTS)
        self.restored: Counter[tuple[str, str]] = Counter()
        self.changes = 0
        self._numbers = count()
        flow = FlowControl(
            self.in_flight, name="pod", failures=10, is_rate_limited=False, max_pause=300, changes=self._changed,
            restore_attempts=self.restored.update,
            server_ms=lambda: self.clock.now * 1000, clock=self.clock, rng=lambda: 0.0,
        )  # fmt: skip
        self.gates, self.calls = flow.gates, flow.calls

    def _changed(self) -> None:
        self.changes += 1

    def run(self, *, is_retry: bool = False, is_probe: bool = False) -> Run:
        """A job whose call has begun."""
        name = f"job-{next(self._numbers)}"

        async def before_call() -> None: ...

        run = Run(
            name, ("q", name), Attempts(), datetime.now(UTC), None, lambda: datetime.now(UTC), before_call,
            is_retry=is_retry, is_probe=is_probe,
        )  # fmt: skip
        self.calls.begins(run)
        return run

    def answer(self, times: int = 1) -> None:
        for _ in range(times):
            self.calls.answered(self.run())

    def fail(self, run: Run, blame: Blame = Blame.API) -> int:
        counted = self.calls.failed(run, blame, PROBLEM)
        run.attempts += counted
        run.is_over = run.is_retry = True
        return counted

    def others_were_answered(self, answered: int) -> None:
        self.gates.saw(FleetNews(0, 0, 0.0, answered, 0, 0, None))

    def request(self) -> TakeRequest:
        request = self.gates.ask()
        assert isinstance(request, TakeRequest)
        return request

    def probe(self) -> Run:
        """Wait until a probe may go, and begin its call."""
        while isinstance(answer := self.gates.ask(), Wait):
            self.clock.wait(answer.seconds)
        assert answer.is_probe
        return self.run(is_probe=True)


def well() -> Scene:
    scene = Scene()
    scene.answer(SLOTS)
    return scene


def down() -> tuple[Scene, list[Run]]:
    scene = well()
    failed = [scene.run() for _ in range(10)]
    for run in failed:
        scene.fail(run)
    assert scene.gates.api.is_open
    return scene, failed


def test_all_free_slots_are_asked_for_oldest_jobs_first() -> None:
    request = well().request()

    assert (request.wanted, request.which_new, request.is_probe) == (SLOTS, "oldest", False)


def test_counts_go_with_the_next_take_once() -> None:
    scene = well()
    request = scene.request()
    scene.gates.took(request, Taken(TakeState.EMPTY, 0, 0, NO_NEWS, [], emptied_queue=True))

    assert request.answered == SLOTS
    assert scene.request().answered == 0


def test_operators_are_told_the_calls_of_the_last_half_minute_and_how_many_failed() -> None:
    scene = well()
    scene.others_were_answered(1000)  # before this process looked
    scene.answer(3)
    scene.fail(scene.run())
    assert scene.gates.recent_calls == (4, 1)

    for _ in range(7):
        scene.clock.wait(5)
        scene.others_were_answered(1000)
    assert scene.gates.recent_calls == (0, 0)


def test_a_breaker_that_opens_says_why_the_last_call_failed(caplog: pytest.LogCaptureFixture) -> None:
    down()

    (opened,) = (vars(record) for record in caplog.records if record.message == "breaker_opened")
    assert (opened["status"], opened["problem"]) == (500, "The API answered 500.")


def test_a_suspicious_run_lets_takes_draw_from_both_ends() -> None:
    scene = well()
    for _ in range(3):
        scene.fail(scene.run())

    assert {scene.request().which_new for _ in range(2)} == {"newest", "oldest"}


def test_attempts_of_the_run_that_opened_the_breaker_come_back_when_a_fresh_probe_fails_too() -> None:
    scene, failed = down()

    assert scene.fail(scene.probe()) == 0

    assert scene.restored == Counter({run.key: 1 for run in failed})


def test_an_answered_probe_leaves_them_counted() -> None:
    scene, _ = down()
    scene.calls.answered(scene.probe())

    assert not scene.restored


def test_while_the_breaker_is_open_no_failure_costs_an_attempt() -> None:
    scene, _ = down()

    assert scene.fail(scene.run()) == 0


def test_a_job_known_to_be_at_fault_is_counted_even_then() -> None:
    scene, _ = down()
    run = scene.run(is_retry=True)
    run.progress.faults = 2

    assert scene.fail(run) == 1


def test_a_job_is_at_fault_that_fails_again_and_again_while_others_are_answered() -> None:
    scene = well()
    run = scene.run()
    for answered in (100, 200, 300):
        scene.others_were_answered(answered)
        scene.fail(run)

    assert run.progress.faults == 2


def test_a_token_that_never_worked_opens_its_breaker_at_once_and_costs_no_attempt() -> None:
    scene = Scene()

    assert scene.fail(scene.run(), Blame.TOKEN) == 0
    assert isinstance(scene.gates.ask(), Wait)


def test_one_401_of_a_token_that_works_waits_for_the_next_answer_to_be_judged() -> None:
    scene = well()
    run = scene.run()

    assert scene.fail(run, Blame.TOKEN) == 0
    scene.others_were_answered(100)
    assert scene.fail(run, Blame.TOKEN) == 1
    scene.others_were_answered(200)
    assert scene.fail(run, Blame.TOKEN) == 1
    assert not scene.gates.token.is_open


def test_a_401_is_not_counted_for_what_was_answered_before_it() -> None:
    scene = well()
    run = scene.run()
    scene.fail(run)
    scene.others_were_answered(100)

    assert scene.fail(run, Blame.TOKEN) == 0, "the token may have been rotated since"


def test_a_token_is_proven_where_others_succeed() -> None:
    scene = Scene()
    scene.others_were_answered(5)
    scene.others_were_answered(6)
    scene.fail(scene.run(), Blame.TOKEN)

    assert not scene.gates.token.is_open


def test_a_refusal_for_load_asks_for_a_cut_and_a_pause_once() -> None:
    scene = well()
    first, second = scene.run(), scene.run()

    scene.calls.refused(first, 429, 7.0)
    scene.calls.refused(second, 429, 7.0)

    change = scene.gates.change()
    assert change is not None
    assert change.pause_seconds == 7.0
    assert change.epoch == 1
    assert scene.gates.is_paused
    assert scene.changes == 1


def limit_of(scene: Scene) -> bytes:
    """A rate that was cut just now."""
    now_ms = round(scene.clock.now * 1000)
    return Limit(rate=5.0, target=5.0, ceiling=5.0, cut_ms=now_ms, changed_ms=now_ms).to_json().encode()


def test_a_refusal_of_before_the_cut_is_no_news() -> None:
    scene = well()
    run = scene.run()
    scene.gates.saw(FleetNews(1, 1, 5.0, 0, 0, 0, limit_of(scene)))

    scene.calls.refused(run, 429, None)

    assert scene.changes == 0


def test_a_job_refused_again_while_others_are_answered_waits_by_itself() -> None:
    scene = well()
    run = scene.run()
    scene.calls.refused(run, 429, None)
    scene.gates.saw(FleetNews(1, 1, 5.0, 500, 0, 0, limit_of(scene)))
    scene.calls.begins(run)

    waits = scene.calls.refused(run, 429, None)

    assert scene.changes == 1
    assert waits > 0


def test_what_came_to_no_call_is_given_back_with_the_next_take() -> None:
    scene = well()
    delivery = Delivery("r", "t", b"", 0, 0, 0, 0, 0.0, "q", taken_at=scene.clock())

    scene.gates.give_back_permit(delivery)
    assert scene.request().unused == 1

    scene.gates.give_back_permit(delivery)
    scene.clock.wait(1)
    assert scene.request().unused == 0, "the permits of a second ago could let calls of one second start in another"


def test_no_job_waits_in_its_slot_where_failures_are_slow() -> None:
    scene = well()
    assert scene.calls.may_wait_in_slot()
    run = scene.run()
    scene.clock.wait(2)
    scene.fail(run)

    assert not scene.calls.may_wait_in_slot()


def test_a_call_that_was_interrupted_is_not_taken_for_a_stuck_one_for_ever() -> None:
    scene = well()
    for _ in range(5):
        scene.run().is_over = True
    scene.clock.wait(5)

    assert {scene.request().which_new for _ in range(4)} == {"oldest"}


def test_calls_that_are_stuck_let_takes_draw_from_both_ends() -> None:
    scene = well()
    for _ in range(3):
        run = scene.run()
        scene.in_flight.add(Delivery(run.job, "t", b"", 0, 0, 0, 0, 0.0, "q"))
    scene.clock.wait(5)

    assert {scene.request().which_new for _ in range(4)} == {"newest", "oldest"}


def test_a_rate_that_no_state_explains_is_taken_away() -> None:
    scene = well()
    scene.gates.saw(FleetNews(version=7, epoch=1, rate=0.001, answered=0, failed=0, paused_ms=0, state=b"[]"))

    change = scene.gates.change()

    assert change is not None
    assert (change.version, change.rate, change.pause_seconds) == (7, 0.0, 0.0)


def test_a_call_that_was_not_made_for_lack_of_resources_costs_nothing_and_holds_takes_back_for_a_moment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = well()
    for _ in range(50):
        assert scene.fail(scene.run(), Blame.RESOURCES) == 0

    assert scene.gates.ask() == Wait(1.0, "no_resources")
    assert not scene.gates.api.is_open
    scene.clock.wait(1.0)
    assert scene.request().wanted == SLOTS
    assert caplog.messages == ["no_resources"]
    scene.clock.wait(60.0)
    scene.fail(scene.run(), Blame.RESOURCES)
    assert caplog.messages == ["no_resources", "still_no_resources"]
    assert vars(caplog.records[-1])["counts"] == {"calls_not_made": 51}
    scene.clock.wait(2.0)
    scene.answer()
    assert caplog.messages[2:] == ["resources_available"]


def test_a_probe_that_was_not_made_for_lack_of_resources_is_made_again() -> None:
    scene, _ = down()

    assert scene.calls.failed(scene.probe(), Blame.RESOURCES, NO_FILES) == 0
    assert scene.calls.reason() == PROBLEM, "the last word on the API is that of the calls which were made"

    scene.calls.answered(scene.probe())
    assert not scene.gates.api.is_open
