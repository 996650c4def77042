"""A plan follows from its seed alone, and holds what a round must do."""

from __future__ import annotations

import pytest

from tests.chaos.plan import LEASE_SECONDS, Act, Fault, Kind, Route, make_plan, on_topology
from tests.chaos.steering import Action

SEEDS = range(20)


@pytest.mark.parametrize("target", ["lock-worker", "stock-celery"])
def test_the_same_seed_gives_the_same_plan(target: str) -> None:
    assert make_plan(7, 30, target) == make_plan(7, 30, target)  # type: ignore[arg-type]
    assert make_plan(7, 30).faults != make_plan(8, 30).faults


@pytest.mark.parametrize("seed", SEEDS)
def test_even_a_short_round_does_every_sort_of_fault(seed: int) -> None:
    faults = make_plan(seed, 20).faults

    assert sum(fault.act is Act.KILL for fault in faults) >= 5
    assert {"worker", "redis", Act.API_AWAY.name} <= {fault.act.on for fault in faults}
    assert sum(fault.act.on == "redis" for fault in faults) >= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_of_one_thing_only_one_fault_is_under_way_at_a_time(seed: int) -> None:
    over: dict[str, float] = {}
    for fault in make_plan(seed, 100).faults:
        if fault.act.on != "worker":
            assert fault.at >= over.get(fault.act.on, 0.0)
            over[fault.act.on] = fault.at + fault.seconds


def test_a_stall_is_clearly_shorter_or_clearly_longer_than_a_lease() -> None:
    faults = make_plan(1, 600).faults

    assert all(fault.seconds < LEASE_SECONDS / 2 for fault in faults if fault.act is Act.BLINK)
    assert all(fault.seconds > LEASE_SECONDS * 1.2 for fault in faults if fault.act is Act.STALL)


def test_a_round_has_jobs_of_all_kinds_with_names_of_their_own() -> None:
    jobs = make_plan(1, 60).jobs

    assert {job.kind for job in jobs} == {*Kind}
    assert len({job.key for job in jobs}) == len({job.conversation for job in jobs}) == len(jobs)
    assert any(len(job.sends) > 1 for job in jobs)
    assert any(job.countdown for job in jobs)
    assert any(job.priority for job in jobs)


def test_against_stock_celery_a_round_only_kills_and_sends_what_it_can_read() -> None:
    plan = make_plan(1, 60, "stock-celery")

    assert {fault.act for fault in plan.faults} == {Act.KILL}
    assert {job.kind for job in plan.jobs} == {Kind.GOOD}
    assert {send.route for job in plan.jobs for send in job.sends} == {Route.CELERY}
    assert plan.steers == ()


@pytest.mark.parametrize("which", ["rate_limit", "quota"])
def test_some_rounds_have_a_limit_of_ours_and_others_a_quota_of_the_apis(which: str) -> None:
    plans = [make_plan(seed, 10) for seed in SEEDS]
    limits = {getattr(plan, which) for plan in plans}

    assert None in limits
    assert len(limits) > 2
    assert not [plan for plan in plans if plan.rate_limit and plan.quota]


def test_a_tenth_of_the_jobs_is_for_conversations_that_the_api_never_locks() -> None:
    jobs = make_plan(1, 600).jobs

    assert 0.08 < sum(job.kind is Kind.HOPELESS for job in jobs) / len(jobs) < 0.12


@pytest.mark.parametrize("seed", SEEDS)
def test_operators_do_each_thing_they_can_do_and_undo_it_before_they_do_it_again(seed: int) -> None:
    plan = make_plan(seed, 30)
    over: dict[str, float] = {}

    assert {steer.action for steer in plan.steers} >= {*Action} - {Action.HOLD_RULE}
    for steer in plan.steers:
        assert steer.at >= over.get(steer.action.on, 0.0)
        over[steer.action.on] = steer.at + steer.seconds
        assert (steer.seconds > 0) == steer.action.is_undone


def test_no_job_is_cancelled_and_revoked_and_some_are_cancelled_before_they_are_sent() -> None:
    plans = [make_plan(seed, 30) for seed in SEEDS]

    for plan in plans:
        ids = [job for steer in plan.steers for job in steer.jobs]
        assert len(ids) == len(set(ids))
    sent = {(plan.seed, job.id): job.sends[0].at for plan in plans for job in plan.jobs}
    asked = [(sent[plan.seed, job], steer.at) for plan in plans for steer in plan.steers for job in steer.jobs]
    assert any(at < steered for at, steered in asked)
    assert any(at > steered for at, steered in asked)


def test_in_some_rounds_a_rule_is_limited_and_operators_leave_rules_alone() -> None:
    plans = [make_plan(seed, 30) for seed in SEEDS]

    assert 0 < sum(plan.rule_limit is not None for plan in plans) < len(plans)
    for plan in plans:
        holds = [steer for steer in plan.steers if steer.action is Action.HOLD_RULE]
        assert (plan.rule_limit is None) == bool(holds)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_round_with_replicas_changes_the_primary_and_keeps_no_count_that_may_be_forgotten(seed: int) -> None:
    plan = on_topology(make_plan(seed, 100), "cluster")

    acts = [fault.act for fault in plan.faults if fault.act.on == "redis"]
    assert {Act.REDIS_KILL, Act.FAILOVER, Act.SLOT_MOVE, Act.REDIS_STALL} <= set(acts)
    assert Act.REDIS_RESTART not in acts
    assert (plan.rate_limit, plan.rule_limit) == (None, None)
    assert sum(fault.act is Act.KILL for fault in plan.faults) >= 5
    assert on_topology(plan, "single") == plan


def test_the_seed_says_what_befalls_sentinels_first_and_five_rounds_of_any_length_begin_with_all_of_it() -> None:
    firsts = [next(fault.act for fault in _of_sentinels(seed) if fault.act.on == "redis") for seed in range(5)]

    assert {*firsts} == {Act.REDIS_KILL, Act.CUT_OFF, Act.FAILOVER, Act.SPLIT, Act.REDIS_STALL}


def _of_sentinels(seed: int) -> tuple[Fault, ...]:
    plan = on_topology(make_plan(seed, 10), "sentinel")
    return tuple(fault for fault in plan.faults if fault.act not in {Act.CUT, Act.FLUSH})
