"""Which calls a rule is about, and what chance does with a seed."""

from __future__ import annotations

import re
from statistics import median

import pytest
from pydantic import ValidationError

from sandbox.demo_script import DEMO_SCRIPT
from sandbox.faults import Delay, DelayBetween, DelayLognormal, Drop, Respond
from sandbox.script import Chooser, Rule, Script

BROKEN = Respond(status=500)


def fates(rule: Rule, *calls: tuple[str, int]) -> list[bool]:
    """Tell for each (id, number of the call) whether the rule happened to it."""
    chooser = Chooser(Script(rules=(rule,)))
    return [chooser.answer(conversation_id, call) is not None for conversation_id, call in calls]


def test_a_rule_without_conditions_is_about_every_call() -> None:
    assert fates(Rule(then=BROKEN), ("a", 1), ("b", 7)) == [True, True]


def test_a_rule_may_be_about_one_id_whatever_characters_it_has() -> None:
    assert fates(Rule(id="a[1]*", then=BROKEN), ("a[1]*", 1), ("a1", 1), ("a[1]*x", 1)) == [True, False, False]


def test_a_rule_may_be_about_a_pattern_of_ids() -> None:
    assert fates(Rule(ids="miss*", then=BROKEN), ("missing\n1", 1), ("amiss", 1), ("Miss", 1)) == [True, False, False]


def test_a_rule_may_be_about_the_nth_call_of_each_id() -> None:
    assert fates(Rule(nth_call=2, then=BROKEN), ("a", 1), ("a", 2), ("b", 2), ("a", 3)) == [False, True, True, False]


def test_a_rule_may_be_about_the_first_calls_of_each_id() -> None:
    assert fates(Rule(first_calls=2, then=BROKEN), ("a", 1), ("a", 2), ("a", 3), ("b", 1)) == [True, True, False, True]


def test_a_rule_may_happen_only_so_often() -> None:
    assert fates(Rule(times=2, then=BROKEN), ("a", 1), ("b", 1), ("c", 1), ("a", 2)) == [True, True, False, False]


def test_setting_a_script_again_starts_its_times_over() -> None:
    script = Script(rules=(Rule(times=1, then=BROKEN),))

    assert Chooser(script).answer("a", 1) == Chooser(script).answer("a", 1) == BROKEN


def test_the_first_of_the_matching_rules_is_done() -> None:
    chooser = Chooser(Script(rules=(Rule(id="a", then=Respond(status=404)), Rule(then=BROKEN))))

    assert chooser.answer("a", 1) == Respond(status=404)
    assert chooser.answer("b", 1) == BROKEN


def test_all_matching_delays_add_up_and_leave_the_other_rules_alone() -> None:
    chooser = Chooser(Script(rules=(Rule(then=Delay(ms=20)), Rule(then=BROKEN), Rule(id="a", then=Delay(ms=300)))))

    assert chooser.delay_seconds("a", 1) == pytest.approx(0.32)
    assert chooser.delay_seconds("b", 1) == pytest.approx(0.02)
    assert chooser.answer("a", 1) == BROKEN


def test_chance_hits_about_its_share_of_calls() -> None:
    hit = fates(Rule(probability=0.2, then=BROKEN), *((f"c-{number}", 1) for number in range(2000)))

    assert 0.17 < sum(hit) / len(hit) < 0.23


def test_the_same_seed_means_the_same_fate_whatever_the_order_of_calls() -> None:
    def fates_by_call(seed: int, calls: list[tuple[str, int]]) -> dict[tuple[str, int], tuple[bool, float]]:
        rules = (Rule(probability=0.5, then=BROKEN), Rule(then=DelayBetween(low_ms=0, high_ms=100)))
        chooser = Chooser(Script(rules=rules, seed=seed))
        return {call: (chooser.answer(*call) is not None, chooser.delay_seconds(*call)) for call in calls}

    calls = [(f"c-{number}", attempt) for number in range(50) for attempt in (1, 2)]

    assert fates_by_call(1, calls) == fates_by_call(1, calls[::-1])
    assert fates_by_call(1, calls) != fates_by_call(2, calls)


def test_two_rules_of_the_same_chance_fall_independently() -> None:
    rules = (Rule(probability=0.5, then=BROKEN), Rule(probability=0.5, then=Respond(status=404)))
    chooser = Chooser(Script(rules=rules))

    fates = [chooser.answer(f"c-{number}", 1) for number in range(50)]

    assert all(fate in fates for fate in (BROKEN, Respond(status=404), None))


def test_random_delays_are_distributed_as_they_say() -> None:
    chooser = Chooser(Script(rules=(Rule(then=DelayBetween(low_ms=10, high_ms=30)),)))
    between = [chooser.delay_seconds(f"c-{number}", 1) * 1000 for number in range(500)]
    chooser = Chooser(Script(rules=(Rule(then=DelayLognormal(median_ms=50, sigma=0.5)),)))
    lognormal = [chooser.delay_seconds(f"c-{number}", 1) * 1000 for number in range(2000)]

    assert 10 <= min(between) < 11
    assert 29 < max(between) <= 30
    assert 46 < median(lognormal) < 54
    assert max(lognormal) > 200


def test_a_drop_at_the_accept_is_drawn_for_each_connection() -> None:
    chooser = Chooser(Script(rules=(Rule(probability=0.5, then=Drop(at="accept")),)))

    assert {chooser.accept(number) for number in range(50)} == {None, Drop(at="accept")}
    assert chooser.answer("a", 1) is None


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ('{"then": {"kind": "explode"}}', "does not match any of the expected tags"),
        ('{"then": {"kind": "respond", "status": 99}}', "greater than or equal to 200"),
        ('{"then": {"kind": "delay_between", "low_ms": 2, "high_ms": 1}}', "low_ms must not be above high_ms"),
        ('{"then": {"kind": "delay", "ms": 1}, "id": "a", "ids": "b*"}', "give id or ids, not both"),
        ('{"then": {"kind": "delay", "ms": 1}, "name": "a"}', "Extra inputs are not permitted"),
        ('{"then": {"kind": "drop", "at": "accept"}, "ids": "a*"}', "cannot match ids or calls"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(problem)):
        Script.model_validate_json(f'{{"rules": [{rule}]}}')


def test_a_script_survives_the_way_through_json() -> None:
    assert Script.model_validate_json(DEMO_SCRIPT.model_dump_json()) == DEMO_SCRIPT


def test_the_demo_says_by_an_id_what_will_happen_to_it() -> None:
    chooser = Chooser(DEMO_SCRIPT)

    def fate(conversation_id: str, calls: int) -> list[object]:
        return [chooser.answer(conversation_id, call + 1) for call in range(calls)]

    assert fate("missing-1", 1) == [Respond(status=404)]
    assert fate("forbidden-1", 1) == [Respond(status=403)]
    assert fate("busy-1", 2) == [Respond(status=429, headers={"Retry-After": "1"}), None]
    assert fate("flaky-1", 3) == [Respond(status=503), Drop(at="request", reset=True), None]
    assert fate("conversation-1", 1) == [None]
