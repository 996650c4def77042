"""What the product promises of flow control, lived through by fleets of real flow control in simulated time.

Each test is a situation and what must come of it; a failure names its seed. The numbers are the targets that
``docs/flow-control.md`` tells, with a margin where chance has a say.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.flow_control import apis
from tests.flow_control.apis import Quota, Reply
from tests.flow_control.fleet import Settings, World

GOOD = 400
FLEETS = (1, 4, 20)
FAST_FAILURES = (apis.ERROR, apis.AT_ONCE, apis.SLOWLY)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def latencies(world: World, since: float = 0.0) -> list[float]:
    """Of the good jobs that came since then, in order; each must have been locked."""
    stories = world.stories("good")
    assert {story.outcome for story in stories} == {"locked"}, f"seed {world.seed}: {world.outcomes('good')}"
    return sorted(story.ended_at - story.arrived_at for story in stories if story.arrived_at >= since)


def share(sorted_numbers: list[float], part: float) -> float:
    return sorted_numbers[int(len(sorted_numbers) * part)]


# Bad jobs


@pytest.mark.parametrize(("bad", "pods"), [(8, 1), (10, 1), (25, 1), (60, 1), (300, 1), (60, 4), (300, 4), (300, 20)])
@pytest.mark.parametrize("failing", FAST_FAILURES)
def test_good_jobs_go_on_after_a_few_seconds_whatever_lies_in_front_of_them(
    pods: int, bad: int, failing: Reply
) -> None:
    world = World(apis.bad_jobs(failing), pods=pods, seed=bad + pods)
    world.send(*names("bad", bad))
    world.stream(names("good", GOOD), every=0.25)

    world.run(1000)

    assert latencies(world)[-1] < 10
    assert share(latencies(world, since=20), 0.9) < 1
    assert world.finished("good", until=100) >= 0.9 * GOOD
    assert world.outcomes("bad") == {"exhausted": bad}
    assert {story.attempts for story in world.stories("bad")} == {8}
    assert max(story.calls for story in world.stories("bad")) <= 11


@pytest.mark.parametrize("bad_share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("failing", FAST_FAILURES)
def test_good_jobs_among_bad_ones_are_as_quick_as_without(bad_share: float, failing: Reply) -> None:
    world = World(apis.bad_jobs(failing), pods=1, seed=5)
    bad = round(GOOD * bad_share / (1 - bad_share))
    chance = Random(3)
    world.stream(names("good", GOOD), every=0.25)
    for name in names("bad", bad):
        world.send(name, at=chance.random() * 100)

    world.run(1000)

    assert share(latencies(world), 0.9) < 0.5
    assert world.outcomes("bad") == {"exhausted": bad}
    assert {story.attempts for story in world.stories("bad")} == {8}


@pytest.mark.parametrize("bad_share", [0.1, 0.5])
def test_a_backlog_goes_at_the_speed_that_the_first_calls_of_bad_jobs_leave(bad_share: float) -> None:
    good = 1000
    bad = round(good * bad_share / (1 - bad_share))
    backlog = names("good", good) + names("bad", bad)
    Random(3).shuffle(backlog)
    alone, world = World(apis.well, seed=5), World(apis.bad_jobs(), seed=5)
    alone.send(*names("good", good))
    world.send(*backlog)

    alone.run(1000)
    world.run(1000)

    # Nobody knows a bad job before its first call; after it, a tenth of the slots is for it.
    ideal = alone.last_end() * (good + bad) / good
    assert world.last_end("good") < ideal / 0.7
    assert world.outcomes("bad") == {"exhausted": bad}


@pytest.mark.parametrize("failing", FAST_FAILURES)
def test_a_few_bad_jobs_beside_one_good_job_each_twelve_seconds_end_and_hold_none_up(failing: Reply) -> None:
    world = World(apis.bad_jobs(failing), seed=3)
    world.send(*names("bad", 4))
    world.stream(names("good", 25), every=12, since=3)

    world.run(400)

    assert latencies(world)[-1] < 2
    assert world.outcomes("bad") == {"exhausted": 4}
    assert world.last_end("bad") < 150


@pytest.mark.parametrize("kind", ["junk", "dry"])
def test_messages_that_need_no_call_use_up_no_permit(kind: str) -> None:
    world = World(apis.well, settings=Settings(rate_limit=5))
    world.send(*names(kind, 100))
    world.send("good-1")

    world.run(60)

    assert latencies(world)[0] < 1


# The API is down


@pytest.mark.parametrize(
    ("pods", "how"),
    [
        (1, apis.ERROR),
        (4, apis.ERROR),
        (1, apis.HANGS),
        (20, apis.HANGS),
        (1, apis.NO_CONNECTION),
        (4, apis.NO_CONNECTION),
    ],
)
def test_an_outage_costs_no_attempt_and_few_calls_and_is_over_soon(pods: int, how: Reply) -> None:
    begins, ends = 3.0, 43.0
    world = World(apis.down(begins, ends, how), pods=pods, seed=pods)
    jobs = 22_000 if pods == FLEETS[-1] else 2500 * pods
    world.send(*names("good", jobs))

    world.run(ends + 60)

    assert world.outcomes() == {"locked": jobs}
    assert world.attempts_lost() <= (2 * pods if how is apis.HANGS else 0)
    out_of_flight = begins + apis.TIMEOUT_SECONDS + 5
    assert world.most_calls_in_a_second(out_of_flight, ends) <= 6
    answered = [call.at - ends for call in world.calls if call.at >= ends]
    assert answered[0] < 13
    # By degrees: the first second after the first answer is far from full speed.
    first = ends + answered[0]
    assert len(world.calls_in(first, first + 1)) < 0.8 * len(world.calls_in(first + 2, first + 3)) + 20 * pods


@pytest.mark.parametrize("pods", [1, 4])
def test_an_outage_in_low_traffic_costs_no_job_its_end(pods: int) -> None:
    world = World(apis.down(20, 200), pods=pods, seed=pods)
    world.stream(names("good", 880), every=0.25)

    world.run(400)

    assert world.outcomes() == {"locked": 880}
    assert world.attempts_lost() <= 2 * pods, "a pod has to see ten new jobs fail before it knows"
    assert world.most_calls_in_a_second(40, 200) <= 6
    assert world.last_end() < 230


def test_a_fleet_that_starts_in_an_outage_makes_few_calls() -> None:
    world = World(apis.down(0, 30), pods=20, seed=1)
    world.send(*names("good", 3000))

    world.run(90)

    assert len(world.calls_in(0, 2)) <= 20 * 12, "each pod sees ten fail, and then probes"
    assert world.most_calls_in_a_second(2, 30) <= 6
    assert world.outcomes() == {"locked": 3000}
    assert world.attempts_lost() <= 3


def test_an_api_that_comes_and_goes_works_everything_off() -> None:
    world = World(apis.flapping(30, 30), pods=4, seed=1)
    world.stream(names("good", 2000), every=0.1)

    world.run(600)

    assert world.outcomes() == {"locked": 2000}
    assert world.last_end() < 260


def test_in_a_brown_out_jobs_go_on_and_hardly_one_is_given_up() -> None:
    world = World(apis.brown_out(10, 110), pods=4, seed=1)
    world.stream(names("good", 600), every=0.25)

    world.run(400)

    assert world.finished("good") >= 597
    assert not any(pod.gates.api.is_open for pod in world.pods)


# The API asks for less


def test_twenty_calls_a_second_are_found_within_seconds_and_kept_to() -> None:
    world = World(Quota(20, retry_after=apis.always("1")), settings=Settings(concurrency=100), seed=3)
    world.send(*names("good", 600))

    world.run(100)

    assert world.outcomes() == {"locked": 600}
    assert len(world.calls) <= 630
    assert world.last_end() < 37


@pytest.mark.parametrize("pods", [1, 4])
@pytest.mark.parametrize("kind", ["fixed", "sliding", "bucket"])
@pytest.mark.parametrize("text", [None, "1"])
def test_a_fleet_settles_below_a_quota_with_hardly_a_call_refused(pods: int, kind: str, text: str | None) -> None:
    quota = Quota(20, kind=kind, retry_after=None if text is None else apis.always(text))
    world = World(quota, pods=pods, settings=Settings(concurrency=100), seed=3)
    world.send(*names("good", 2500))

    world.run(400)

    assert world.outcomes() == {"locked": 2500}
    assert world.refused_share() < 0.02
    assert world.attempts_lost() == 0
    done = world.finished("good", since=60, until=world.now)
    assert done / (world.now - 60) > 0.92 * 20
    by_pod = [sum(call.pod == pod for call in world.calls) for pod in range(pods)]
    assert min(by_pod) > 0.8 * max(by_pod)


@pytest.mark.parametrize(("calls", "pods"), [(5, 20), (20, 20), (1000, 4)])
def test_a_quota_is_found_whatever_it_is_and_however_many_pods_there_are(calls: int, pods: int) -> None:
    world = World(Quota(calls), pods=pods, settings=Settings(concurrency=100), seed=3)
    jobs = min(10_000, calls * 90)
    world.send(*names("good", jobs))

    world.run(400)

    assert world.outcomes() == {"locked": jobs}
    assert world.refused_share() < 0.05
    assert world.last_end() < 1.5 * jobs / calls + 5


@pytest.mark.parametrize("header", [None, apis.whole_seconds])
@pytest.mark.parametrize("kind", ["fixed", "sliding", "bucket"])
def test_a_quota_by_the_minute_is_found_too(kind: str, header: None) -> None:
    world = World(Quota(60, 60, kind=kind, retry_after=header), seed=3)
    world.send(*names("good", 600))

    world.run(1200)

    assert world.outcomes() == {"locked": 600}
    assert world.refused_share() < 0.12
    assert world.last_end() < 700


def test_a_quota_used_up_for_an_hour_costs_a_probe_now_and_then_and_no_job() -> None:
    world = World(Quota(100, 3600, retry_after=apis.whole_seconds), pods=4, seed=3)
    world.send(*names("good", 150))

    world.run(4500)

    assert world.outcomes() == {"locked": 150}
    assert world.attempts_lost() == 0
    assert len(world.calls_in(60, 3600)) <= 20
    assert world.last_end() < 3600 + 360


@pytest.mark.parametrize("header", [None, "0", "1"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_minute_of_refusals_costs_few_calls_and_no_attempt(header: str | None, status: int) -> None:
    if status == 503 and header is None:
        pytest.skip("503 without the header is an outage")
    world = World(apis.down(0, 60, Reply(0.005, status, header)), pods=4, seed=3)
    world.send(*names("good", 300))

    world.run(200)

    assert world.outcomes() == {"locked": 300}
    assert len(world.calls) < 340
    assert world.attempts_lost() == 0
    assert world.last_end() < 100


def test_a_job_that_is_refused_for_load_for_ever_slows_the_others_for_a_moment_only() -> None:
    world = World(apis.limited_job("bad-1"), pods=4, seed=1)
    world.send("bad-1", at=5)
    world.stream(names("good", 1000), every=0.1)

    world.run(150)

    assert share(latencies(world), 0.9) < 2
    assert share(latencies(world, since=30), 0.9) < 0.5


def test_the_same_job_of_an_old_day_ends_by_its_age() -> None:
    world = World(apis.limited_job("bad-1"), settings=Settings(max_age_seconds=120))
    world.send("bad-1")

    world.run(200)

    assert world.outcomes() == {"exhausted": 1}
    assert world.last_end() <= 121


# The token


def test_a_worker_that_starts_with_a_refused_token_makes_a_call_or_two() -> None:
    world = World(apis.revoked(0, 30), seed=1)
    world.send(*names("good", 100))

    world.run(60)

    assert len(world.calls_in(0, 4)) <= 2
    assert len(world.calls_in(0, 30)) <= 10
    assert world.outcomes() == {"locked": 100}
    assert world.attempts_lost() == 0


@pytest.mark.parametrize("pods", [1, 4])
def test_a_token_revoked_under_load_costs_those_in_flight_and_a_probe_now_and_then(pods: int) -> None:
    world = World(apis.revoked(2, 32), pods=pods, seed=1)
    jobs = min(2000 * pods, 16_000)
    world.send(*names("good", jobs))

    world.run(100)

    assert len(world.calls_in(2, 3)) <= 20 * pods * 2.5
    assert world.most_calls_in_a_second(3.5, 32) <= 6
    assert world.outcomes() == {"locked": jobs}
    assert world.attempts_lost() == 0


def test_a_renewed_token_is_tried_at_once() -> None:
    world = World(apis.only_token("new"), seed=1)
    world.send(*names("good", 100))

    world.run(20)
    world.token = "new"
    world.run(60)

    assert world.outcomes() == {"locked": 100}
    assert world.last_end() < 32  # those that were refused wait for up to ten seconds


@pytest.mark.parametrize("pods", [1, 4])
def test_a_conversation_that_is_forbidden_by_401_ends_while_the_others_go_on(pods: int) -> None:
    world = World(apis.forbidden_path("bad"), pods=pods, seed=1)
    world.send("bad-1", at=5)
    world.stream(names("good", 1500), every=0.1)

    world.run(300)

    assert world.outcomes("bad") == {"refused": 1}
    assert latencies(world)[-1] < 1
    assert world.jobs["bad-1"].calls <= 10


# Together


@pytest.mark.parametrize("pods", [4, 20])
def test_no_pod_starves(pods: int) -> None:
    world = World(apis.well, pods=pods, seed=1)
    world.send(*names("good", 1000 * pods))

    world.run(100)

    by_pod = [sum(call.pod == pod for call in world.calls) for pod in range(pods)]
    assert min(by_pod) > 0.7 * max(by_pod)
