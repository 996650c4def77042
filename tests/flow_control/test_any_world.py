"""Worlds that nobody thought of: whatever the API, the fleet and the jobs, what must always hold does."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.flow_control import apis
from tests.flow_control.apis import Quota, Reply
from tests.flow_control.fleet import Settings, World

MAX_ATTEMPTS = 8
WELL_AGAIN = 60.0
#: A pod whose slots are all busy hears of a pause at its next look at the queue; a job may wait in its slot so long.
HEARD_SECONDS = 0.6

FAILING = st.builds(Reply, seconds=st.sampled_from([0.002, 0.05, 1.0]), status=st.sampled_from([500, 502, 400]))
TROUBLES = st.one_of(
    st.builds(apis.down, since=st.floats(0, 20), until=st.floats(20, WELL_AGAIN), how=st.sampled_from([
        apis.ERROR, apis.AT_ONCE, apis.HANGS, apis.NO_CONNECTION, apis.UNAUTHORIZED,
        Reply(0.005, 429), Reply(0.005, 429, "0"), Reply(0.005, 429, "3"), Reply(0.005, 503, "2"),
    ])),
    st.builds(apis.brown_out, since=st.floats(0, 20), until=st.floats(20, 40), share=st.floats(0.05, 0.5)),
    st.builds(
        Quota, calls=st.integers(5, 200), kind=st.sampled_from(["fixed", "sliding", "bucket"]),
        retry_after=st.sampled_from([None, apis.whole_seconds, apis.always("0"), apis.always("soon")]),
    ),
)  # fmt: skip


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    trouble=TROUBLES,
    failing=FAILING,
    bad=st.integers(0, 60),
    good=st.integers(50, 300),
    pods=st.sampled_from([1, 2, 5]),
    slots=st.sampled_from([1, 4, 20]),
    seed=st.integers(0, 1000),
)
def test_every_job_ends_and_nobody_calls_in_a_pause(
    *, trouble: Any, failing: Reply, bad: int, good: int, pods: int, slots: int, seed: int
) -> None:
    world = World(apis.bad_jobs(failing, trouble), pods=pods, settings=Settings(concurrency=slots), seed=seed)
    chance = Random(seed)
    world.send(*(f"bad-{number}" for number in range(bad // 2)))
    for number in range(bad // 2, bad):
        world.send(f"bad-{number}", at=chance.random() * 60)
    world.stream((f"good-{number}" for number in range(good)), every=0.2)
    # Work goes on: whether a bad job is at fault is only seen beside good ones.
    world.stream((f"good-late-{number}" for number in range(600)), every=1.0, since=60)

    world.run(1500)

    told = f"seed {seed}: {world.outcomes()}"
    assert "" not in world.outcomes("good"), told
    assert "" not in world.outcomes("bad"), told
    assert world.outcomes("bad").keys() <= {"exhausted", "refused"}, told
    assert all(story.attempts <= MAX_ATTEMPTS for story in world.stories()), told
    assert not any(
        began + HEARD_SECONDS < call.at < ended for began, ended in world.pauses for call in world.calls
    )  # fmt: skip
