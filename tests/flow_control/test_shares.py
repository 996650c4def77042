"""Who gets slots and takes: retries beside new jobs, and the two ends of the backlog."""

from __future__ import annotations

from worker.flow_control.queue_ends import QueueEnds
from worker.flow_control.retries import RetryShare


def test_retries_that_fail_get_a_tenth_and_half_while_nothing_else_is_to_do() -> None:
    retries = RetryShare()
    for _ in range(50):
        retries.ended(well=False)

    assert retries.share == 0.1
    assert retries.max_first(20, 0) == 2
    assert retries.max_total(20, 0) == 10
    assert retries.max_total(20, 12) == 0


def test_retries_that_succeed_go_first() -> None:
    retries = RetryShare()
    for _ in range(50):
        retries.ended(well=True)

    assert retries.first(20) >= 19


def test_a_share_of_single_takes_adds_up() -> None:
    retries = RetryShare()
    for _ in range(50):
        retries.ended(well=False)
    taken = 0
    for _ in range(100):
        first = retries.first(1)
        retries.took(1, first)
        taken += first

    assert 8 <= taken <= 12


def test_one_slot_is_always_for_a_retry() -> None:
    assert RetryShare().max_first(1, 0) == 1


def test_both_ends_take_turns_while_nothing_is_known() -> None:
    ends = QueueEnds()

    assert [ends.next_is_newest(0, 0, 20) for _ in range(4)] == [True, False, True, False]


def test_an_end_that_does_well_gets_three_turns_of_four() -> None:
    ends = QueueEnds()
    ends.ended(is_newest=True, well=True)
    ends.ended(is_newest=False, well=False)

    assert [ends.next_is_newest(0, 0, 20) for _ in range(8)] == [True, True, True, False] * 2


def test_the_other_end_fills_half_of_the_slots_at_most() -> None:
    ends = QueueEnds()
    ends.ended(is_newest=False, well=True)

    assert not any(ends.next_is_newest(10, 0, 20) for _ in range(8))
