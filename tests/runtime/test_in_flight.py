"""What a worker holds, and how much more it may take."""

from __future__ import annotations

from worker.broker.moves import Delivery
from worker.runtime.in_flight import Hands


def delivery(ref: str = "job-1", take: str = "take-1", *, is_alone: bool = False) -> Delivery:
    return Delivery(
        ref=ref, token=take, raw=b"", size=0, first_ms=0, calls=0, crashes=0, held_until=0, queue="", is_alone=is_alone
    )  # fmt: skip


def test_free_slots_are_what_is_wanted() -> None:
    hands = Hands(3)

    hands.add(delivery("a"))
    assert (len(hands), hands.wanted()) == (1, 2)
    hands.add(delivery("b"))
    hands.add(delivery("c"))
    assert (len(hands), hands.wanted()) == (3, 0)
    hands.drop(delivery("b"))
    assert [held.ref for held in hands.held()] == ["a", "c"]
    assert hands.wanted() == 1


def test_a_limit_that_shrinks_below_what_is_held_wants_nothing() -> None:
    hands = Hands(3)
    for ref in "abc":
        hands.add(delivery(ref))

    hands.limit = 1
    assert hands.wanted() == 0
    hands.limit = 5
    assert hands.wanted() == 2


def test_a_job_that_was_lost_and_taken_again_is_two_things() -> None:
    hands = Hands(3)
    hands.add(delivery(take="take-1"))
    hands.add(delivery(take="take-2"))

    hands.drop(delivery(take="take-1"))
    hands.drop(delivery(take="take-1"))

    assert [held.token for held in hands.held()] == ["take-2"]


def test_nothing_is_taken_beside_a_suspect() -> None:
    hands = Hands(3)
    suspect = delivery(is_alone=True)

    hands.add(suspect)
    assert hands.wanted() == 0
    hands.drop(suspect)
    assert hands.wanted() == 3


def test_hands_that_are_emptied_for_a_suspect_take_nothing_until_they_are_empty() -> None:
    hands = Hands(3)
    hands.add(delivery())

    hands.is_draining = True
    assert hands.wanted() == 0
    hands.drop(delivery())
    assert hands.wanted() == 3
    hands.add(delivery())
    assert hands.wanted() == 2, "it has asked once, and is not draining any more"


def test_closed_hands_want_nothing() -> None:
    hands = Hands(3)

    hands.is_closed = True

    assert hands.wanted() == 0
