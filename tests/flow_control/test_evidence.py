"""What failures say of the API, beside bad jobs."""

from __future__ import annotations

import pytest

from worker.flow_control.breaker import Breaker
from worker.flow_control.evidence import Evidence


def failures_needed(evidence: Evidence) -> int:
    for number in range(1000):
        if evidence.is_enough(10):
            return number
        evidence.failed(f"new-{number}", 1e9, is_fresh=True)
    raise AssertionError("never enough")


def after(share: float) -> Evidence:
    """So many of the fresh jobs of late were bad."""
    evidence = Evidence()
    period = round(1 / share) if share else 0
    for number in range(400):
        if period and number % period == 0:
            evidence.failed(f"bad-{number}", number, is_fresh=True)
        else:
            evidence.answered(number)
    evidence.answered(400)
    return evidence


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 10, 10), (0.1, 10, 10), (0.25, 10, 11), (0.5, 18, 22)])
def test_the_more_jobs_are_bad_the_longer_a_run_must_be(share: float, least: int, most: int) -> None:
    assert least <= failures_needed(after(share)) <= most


def test_one_job_that_fails_again_and_again_is_no_evidence() -> None:
    evidence = Evidence()
    for _ in range(100):
        evidence.failed("bad", 0, is_fresh=True)

    assert not evidence.is_enough(10)


def test_an_answer_ends_a_run_and_its_jobs_were_bad() -> None:
    evidence = Evidence()
    for number in range(5):
        evidence.failed(f"job-{number}", 0, is_fresh=True)

    evidence.answered(1)

    assert evidence.failures == 0
    assert evidence.bad_share > 0.3


def test_a_failure_that_comes_after_the_answer_to_a_later_call_is_of_no_run() -> None:
    evidence = Evidence()
    evidence.answered(10)
    for number in range(50):
        evidence.failed(f"slow-{number}", 9, is_fresh=True)

    assert evidence.failures == 0
    assert not evidence.is_enough(3, is_in_doubt=True)


def test_a_run_that_was_an_outage_tells_nothing_of_the_jobs() -> None:
    evidence = Evidence()
    for number in range(50):
        evidence.failed(f"job-{number}", 0, is_fresh=True)
    evidence.forget()
    evidence.answered(1)

    assert evidence.bad_share < 0.02


def test_a_run_of_failures_that_opens_no_breaker_remembers_no_more_jobs_than_are_weighed() -> None:
    """With BREAKER_FAILURES=0 an outage is one run, in which each job of a backlog may fail."""
    breaker = Breaker("api_down", answered_again="", advice="", failures=0, first_wait=1, max_wait=1)
    for number in range(10_000):
        breaker.failed(f"job-{number}", number, is_fresh=True)

    assert breaker.evidence.failures == 10_000
    assert len(breaker.evidence.jobs) <= 200
