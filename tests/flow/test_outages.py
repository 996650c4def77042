"""Hours of trouble in a small model: what an outage costs, who ends as exhausted, and how all is well again."""

from __future__ import annotations

import pytest

from tasks.verdict import Blame
from tests.flow.small_world import SmallWorld

HOUR = 3600.0
MAX_ATTEMPTS = 4
SEEDS = range(5)


def is_bad(job: str) -> bool:
    return job.startswith("bad")


@pytest.mark.parametrize("seed", SEEDS)
def test_an_outage_of_an_hour_costs_ten_thousand_jobs_nothing_and_the_api_a_call_now_and_then(seed: int) -> None:
    world = SmallWorld(lambda now, _: Blame.API if now < HOUR else None, max_attempts=MAX_ATTEMPTS, seed=seed)
    for number in range(10_000):
        world.send(f"good-{number}")

    world.run(HOUR + 300)

    assert world.outcomes() == {"locked": 10_000}
    assert max(job.attempts for job in world.jobs) <= MAX_ATTEMPTS
    during = [time for time in world.call_times if time < HOUR]
    assert len(during) < 50 + HOUR / 25
    assert world.most_calls_in_a_second(2, HOUR) == 1
    assert world.openings == 1
    assert world.flow.api.is_closed


@pytest.mark.parametrize("seed", SEEDS)
def test_a_token_that_is_refused_for_an_hour_costs_nothing_either(seed: int) -> None:
    world = SmallWorld(lambda now, _: Blame.TOKEN if now < HOUR else None, max_attempts=1, seed=seed)
    for number in range(1_000):
        world.send(f"good-{number}")

    world.run(HOUR + 120)

    assert world.outcomes() == {"locked": 1_000}
    assert {job.attempts for job in world.jobs} == {1}
    assert world.most_calls_in_a_second(1, HOUR) == 1
    assert all(gate.is_closed for gate in world.flow.gates)


@pytest.mark.parametrize("seed", SEEDS)
def test_probes_go_out_with_another_job_each_while_there_are_new_ones(seed: int) -> None:
    world = SmallWorld(lambda _now, _job: Blame.API, seed=seed)
    for number in range(200):
        world.send(f"good-{number}")

    world.run(HOUR)

    probed = [job.calls for job in world.jobs[30:] if job.calls]
    assert len(probed) > 50
    assert set(probed) == {1}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_few_jobs_that_always_fail_among_good_ones_end_as_exhausted_and_open_nothing(seed: int) -> None:
    world = SmallWorld(lambda _, job: Blame.API if is_bad(job) else None, max_attempts=MAX_ATTEMPTS, seed=seed)
    for number in range(3_000):
        world.send_at(number / 50, f"bad-{number}" if number % 100 == 0 else f"good-{number}")

    world.run(300)

    assert world.outcomes("bad") == {"exhausted": 30}
    assert world.outcomes("good") == {"locked": 2_970}
    assert {job.attempts for job in world.jobs if is_bad(job.name)} == {MAX_ATTEMPTS}
    assert world.openings == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_after_an_outage_jobs_that_always_fail_do_not_keep_the_breaker_open(seed: int) -> None:
    """Bad jobs cost no attempt while they probe; once good ones come through, they do and end."""
    world = SmallWorld(
        lambda now, job: Blame.API if now < 600 or is_bad(job) else None, max_attempts=MAX_ATTEMPTS, seed=seed
    )
    for number in range(500):
        world.send(f"bad-{number}" if number % 50 == 0 else f"good-{number}")
    for second in range(1800):
        world.send_at(second, f"good-{1000 + second}")

    world.run(3 * HOUR)

    assert world.outcomes("bad") == {"exhausted": 10}
    assert world.outcomes("good") == {"locked": 490 + 1800}
    assert max(job.attempts for job in world.jobs) <= MAX_ATTEMPTS
    assert world.flow.api.is_closed


@pytest.mark.parametrize("seed", SEEDS)
def test_bad_jobs_alone_are_an_outage_to_it_until_a_good_one_comes(seed: int) -> None:
    """Nobody can tell the two apart, so they wait and lose no attempt; every good job lets some of them end."""
    world = SmallWorld(lambda _, job: Blame.API if is_bad(job) else None, max_attempts=8, seed=seed)
    for number in range(5):
        world.send(f"bad-{number}")

    world.run(HOUR)
    assert world.outcomes() == {"": 5}
    assert world.flow.api.is_open

    for number in range(30):
        world.send_at(HOUR + 60 * number, f"good-{number}")
    world.run(3 * HOUR)

    assert world.outcomes("good") == {"locked": 30}
    assert world.outcomes("bad") == {"exhausted": 5}


@pytest.mark.parametrize("seed", SEEDS)
def test_an_api_that_comes_and_goes_works_everything_off(seed: int) -> None:
    world = SmallWorld(lambda now, _: Blame.API if now % 60 < 30 else None, max_attempts=MAX_ATTEMPTS, seed=seed)
    for number in range(2_000):
        world.send_at(number / 10, f"good-{number}")

    world.run(HOUR)

    assert world.outcomes() == {"locked": 2_000}
    assert world.flow.api.is_closed
