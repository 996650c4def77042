"""The model of Redis that the worlds live on does what the real scripts do: permits, probes, the limit and the pause.

The server's clock is what it is, so each step is played on the server first, and its moment, as the server told it, is
the model's. Within a millisecond or two the two may differ where a moment is told in whole milliseconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.broker.workbench import RULES
from tests.flow_control.redis_model import FleetModel, Held
from worker.broker import scripts
from worker.broker.keys import Keys
from worker.broker.records import Change, TakeRequest
from worker.broker.script_calls import command
from worker.broker.take import read_take, take_command

if TYPE_CHECKING:
    from collections.abc import Iterator

QUEUE = Keys("moderation.lock")
CLOCK_MS = 3
#: Beyond this the machine stood still between the looks at the clock, and the rest of the example says nothing.
MAX_SLACK_MS = 9

WISHES = st.builds(
    TakeRequest,
    wanted=st.integers(1, 40), held=st.just(1), is_probe=st.booleans(), which_new=st.sampled_from(["oldest", "newest"]),
    answered=st.integers(0, 5), failed=st.integers(0, 5), unused=st.integers(0, 3), version=st.integers(-1, 3),
)  # fmt: skip
#: As they are sent: to six places.
RATES = st.floats(0, 500).map(lambda rate: round(rate, 6))
CHANGES = st.builds(
    Change,
    version=st.integers(0, 3), epoch=st.integers(0, 5), rate=RATES, state=st.sampled_from(["", "{}"]),
    pause_seconds=st.sampled_from([0.0, 0.0, 0.0, 0.005]), why=st.just("a test"),
)  # fmt: skip
STEPS = st.lists(st.one_of(WISHES, WISHES, CHANGES), min_size=1, max_size=25)


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with Redis.from_url(redis_url, protocol=2) as client:
        yield client


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, rate=st.sampled_from([None, 5.0, 100.0]))
def test_the_model_gives_the_permits_that_the_scripts_give(client: Any, steps: list[Any], rate: float | None) -> None:
    client.flushall()
    client.lpush(QUEUE.queue, *range(2000))
    broker_options = replace(RULES, rate=rate)
    now_us = [0]
    slack_ms = float(CLOCK_MS)
    model = FleetModel(lambda: now_us[0], interval_us=broker_options.interval_us)
    for number, drawn in enumerate(steps):
        before = _server_us(client)
        # Versions go by the server's clock: half of the steps know the newest one.
        step = replace(drawn, version=model.version if drawn.version % 2 else drawn.version)
        if isinstance(step, Change):
            text: list[str | int | bytes] = [
                step.version,
                step.epoch,
                f"{step.rate:.6f}",
                step.state,
                round(step.pause_seconds * 1000),
                step.why,
            ]
            done, found = client.execute_command(
                *command(
                    scripts.THROTTLE, [QUEUE.limit, QUEUE.pause, QUEUE.controls, QUEUE.absent], text, whole_text=True
                )
            )
            after = _server_us(client)
            now_us[0] = (before + after) // 2
            slack_ms += (after - before) / 1000  # when within it the script ran is not known
            if slack_ms > MAX_SLACK_MS:
                return
            changed, news = model.throttle(step)
            assert (done == 1) == changed
            assert [float(part) for part in found[1:5]] == pytest.approx(
                [news.epoch, news.rate, news.answered, news.failed]
            )
            assert float(found[0]) == pytest.approx(news.version, abs=1000)
            model.version = int(found[0])
            continue
        call = take_command(QUEUE, broker_options, token=f"t{number}", worker="w", request=step, whole_text=True)
        taken = read_take(
            client.execute_command(*call), QUEUE, broker_options, token=f"t{number}", sent_at=0.0, wanted=step.wanted
        )
        after = _server_us(client)
        now_us[0] = (before + after) // 2
        slack_ms += (after - before) / 1000  # when within it the script ran is not known, nor of the steps before
        if slack_ms > MAX_SLACK_MS:
            return
        paused_before = model.paused_until_ms - model.now_ms
        allowed = model.admit(step)
        news = model.news(step.version)
        assert taken.fleet.version == news.version
        assert (taken.fleet.answered, taken.fleet.failed) == (news.answered, news.failed)
        assert taken.fleet.paused_ms == pytest.approx(news.paused_ms, abs=slack_ms)
        if isinstance(allowed, Held) and taken.jobs:
            assert paused_before <= slack_ms or allowed.wait_ms <= slack_ms  # it was over just then
            return
        if isinstance(allowed, Held):
            if taken.state is not allowed.state:
                assert abs(paused_before) <= slack_ms  # one of the two saw the end of a pause, and the other did not
                return
            assert taken.wait_ms == pytest.approx(allowed.wait_ms, abs=slack_ms)
            continue
        if not taken.jobs:
            assert taken.wait_ms <= slack_ms
            return
        interval_ms = model._interval_us / 1000
        # The server tells its time in whole milliseconds, so one more is not known.
        assert abs(len(taken.jobs) - allowed) <= ((slack_ms + 1) / interval_ms + 1 if interval_ms else 0)
        model.use(len(taken.jobs), is_probe=step.is_probe)


def _server_us(client: Any) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1_000_000 + int(micros)
