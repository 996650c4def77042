"""While jobs on hold lie at the old end of the queue, the jobs behind them are taken too."""

from __future__ import annotations

from worker.flow_control.held_jobs import HeldJobs


def test_while_most_jobs_of_the_old_end_are_on_hold_every_second_take_is_from_the_new_end() -> None:
    held = HeldJobs()
    ends = []
    for _ in range(4):
        is_newest = held.is_newest_due
        ends.append(is_newest)
        held.took(10, is_newest=is_newest)
        for _ in range(6):
            held.set_aside(is_newest=is_newest)

    assert ends == [False, True, False, True]


def test_a_few_jobs_on_hold_change_nothing() -> None:
    held = HeldJobs()
    held.took(10, is_newest=False)
    for _ in range(5):
        held.set_aside(is_newest=False)

    assert not held.is_newest_due


def test_jobs_on_hold_at_the_new_end_change_nothing() -> None:
    held = HeldJobs()
    held.took(2, is_newest=False)
    held.set_aside(is_newest=True)
    held.set_aside(is_newest=True)

    assert not held.is_newest_due


def test_once_the_old_end_is_free_of_them_jobs_are_taken_in_their_order_again() -> None:
    held = HeldJobs()
    held.took(1, is_newest=False)
    held.set_aside(is_newest=False)
    held.took(1, is_newest=True)
    held.took(1, is_newest=False)

    assert not held.is_newest_due
