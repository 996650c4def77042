"""Each invariant sees what it is there for: a history that is right is doctored in one way, and that is found."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos import invariants
from tests.chaos.doctored import (
    BEGAN,
    KILL,
    STALL,
    call,
    called,
    counts,
    dead,
    doctored,
    doubled,
    ends,
    event,
    failed_over,
    loses,
    lost,
    message,
    perhaps_sent,
    too_fast,
    uncalled,
    undead,
    worker_ends,
)
from tests.chaos.history import DeadLetter, Span
from tests.chaos.invariants import INVARIANTS, violations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.doctored import Change

#: What is wrong, what finds it, and what else it breaks by the way; with the changes that bring it about.
DOCTORED: dict[str, tuple[set[str], Sequence[Change]]] = {
    "a lost job": ({"no_job_is_lost", "counters_add_up"}, [lost]),
    "a doubled event": ({"no_job_is_doubled", "counters_add_up"}, [doubled]),
    "a doubled event of a job that was perhaps sent": (
        {"no_job_is_doubled", "counters_add_up"},
        [doubled, perhaps_sent],
    ),
    "an event of nobody's": (
        {"no_event_without_a_job", "counters_add_up"},
        [lambda history: history.events.append(event("good-99"))],
    ),
    "a job left in flight": ({"nothing_is_left"}, [lambda history: history.left.update(leases=1)]),
    "a record left": ({"nothing_is_left"}, [lambda history: history.left.update(records=1)]),
    "a key without an end": ({"nothing_is_left"}, [lambda history: history.strays.append("lw:1:stray")]),
    "a call too many": ({"no_call_too_many"}, [called()]),
    "two calls too many for one kill": ({"no_call_too_many"}, [loses(KILL), called(), called()]),
    "a call too many after a failed one": (
        {"no_call_too_many"},
        [called(), called(answer="500"), ends("good-1", event("good-1", attempts=2))],
    ),
    "a dry run that is called": ({"no_call_where_none_is_due"}, [called("dry-1")]),
    "an invalid job that is called": ({"no_call_where_none_is_due"}, [called("invalid-1")]),
    "a call after the end": ({"no_call_after_the_end"}, [called(at=BEGAN + 1.3, answer="drop:request")]),
    "two calls after the end for one stall": (
        {"no_call_after_the_end"},
        [loses(STALL), called(at=BEGAN + 1.3, answer="500"), called(at=BEGAN + 1.4, answer="500")],
    ),
    "a call after the end by a worker that was killed": (
        {"no_call_after_the_end"},
        [loses(KILL), called(at=BEGAN + 1.3)],
    ),
    "a call too many after a failover": ({"no_call_too_many"}, [failed_over(2.5), called()]),
    "a call too many in a move of the slot": ({"no_call_too_many"}, [failed_over(is_lossless=True), called()]),
    "a job that is lost in a failover": ({"no_job_is_lost", "counters_add_up"}, [failed_over(), lost]),
    "a job that is lost, and was sent before there were two primaries": (
        {"no_job_is_lost", "counters_add_up"},
        [failed_over(is_split=True), lost],
    ),
    "a key that changes": ({"one_idempotency_key_per_job"}, [called(key="another", answer="500")]),
    "a call without a key": ({"one_idempotency_key_per_job"}, [called(key=None, answer="500")]),
    "a key of two jobs": ({"one_idempotency_key_per_job"}, [called("expiring-1", key="good-1", answer="500")]),
    "a good job that ends as poisoned": (
        {"outcomes_fit", "counters_add_up", "dead_letters_match"},
        [ends("good-1", event("good-1", "poisoned", "poisoned"))],
    ),
    "a missing conversation that is locked": (
        {"outcomes_fit", "counters_add_up"},
        [undead("missing-1"), ends("missing-1", event("missing-1"))],
    ),
    "two jobs with one id, both locked": (
        {"outcomes_fit", "counters_add_up"},
        [
            undead("conflict-1"),
            ends("conflict-1", event("conflict-1")),
            lambda history: history.events.__setitem__(-1, event("conflict-1", id="own", subject="conflict-1-other")),
        ],
    ),
    "two jobs with one id, whose events have one id": (
        {"no_event_id_is_used_twice"},
        [lambda history: history.events.__setitem__(-1, replace(history.events[-1], id="conflict-1"))],
    ),
    "a job that is counted twice": ({"counters_add_up"}, [counts(taken=12)]),
    "a job that vanished": ({"counters_add_up"}, [counts(vanished=1)]),
    "an event that is not counted": ({"counters_add_up"}, [counts(finished=9, deduplicated=2)]),
    "an outcome that is not counted": ({"counters_add_up"}, [counts(outcome_locked=2)]),
    "a dead letter that is missing": ({"dead_letters_match"}, [undead("invalid-1")]),
    "a dead letter of an event that did not fail": (
        {"dead_letters_match"},
        [lambda history: history.dead_letters.append(dead(event("good-1"), "good-1"))],
    ),
    "a dead letter with another message": (
        {"dead_letters_match"},
        [lambda history: history.dead_letters.__setitem__(0, replace(history.dead_letters[0], message=b"other"))],
    ),
    "a dead letter without an event": (
        {"dead_letters_match"},
        [lambda history: history.dead_letters.append(DeadLetter(b"event", b"message"))],
    ),
    "too many calls in a second": ({"the_rate_is_kept"}, [too_fast]),
    "a worker that ends by itself": ({"workers_end_as_told"}, [worker_ends(1, "")]),
    "a worker that ends badly": ({"workers_end_as_told"}, [worker_ends(-signal.SIGKILL, "SIGTERM")]),
    "a worker that does not end in time": ({"workers_end_as_told"}, [worker_ends(0, "SIGTERM", seconds=60)]),
    "a call before its time": (
        {"no_call_before_its_time"},
        [lambda history: history.calls.__setitem__(1, call("good-2", at=BEGAN + 0.3))],
    ),
    "a call after its expiry": (
        {"no_call_after_its_expiry"},
        [
            ends("expiring-1", event("expiring-1", at=BEGAN + 9)),
            called("expiring-1", at=BEGAN + 4),
            counts(outcome_locked=4, outcome_expired=0),
        ],
    ),
    "a job that stays on hold": ({"nothing_is_left"}, [lambda history: history.left.update(held=1)]),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_a_doctored_history_is_found_out(name: str) -> None:
    found_by, changes = DOCTORED[name]

    assert {each.invariant for each in violations(doctored(changes))} == found_by


def test_each_invariant_is_shown_to_see() -> None:
    shown = set().union(*(found_by for found_by, _ in DOCTORED.values()))
    assert shown >= {each.__name__ for each in INVARIANTS if each.__module__ == invariants.__name__}


ALLOWED: dict[str, Sequence[Change]] = {
    "nothing": [],
    "a job that was perhaps sent, and was not": [
        perhaps_sent,
        lost,
        uncalled,
        counts(taken=10, finished=9, outcome_locked=2),
    ],
    "an extra call for a kill": [loses(KILL), called()],
    "an extra call for a loss that Redis could not be asked about": [loses(replace(KILL, jobs=None)), called()],
    "failed calls that a killed worker had made": [loses(KILL), *[called(answer="500")] * 5],
    "calls that the old primary of a failover took with it": [failed_over(), called(), called(at=BEGAN + 1.3)],
    "a job that was sent while there were two primaries": [
        failed_over(0.15, is_split=True),
        lost,
        uncalled,
        counts(taken=10, finished=9, outcome_locked=2),
    ],
    "a call whose answer was late": [
        called(at=BEGAN + 0.1, ended=BEGAN + 0.9),
        ends("good-1", event("good-1", attempts=2)),
    ],
    "a call whose answer was cut off with the API": [
        lambda history: history.away.append(Span(BEGAN + 1.15, BEGAN + 1.18)),
        called(),
        ends("good-1", event("good-1", attempts=2)),
    ],
    "a call after the end by a worker that was stalled": [loses(STALL), called(at=BEGAN + 1.3)],
    "a call after its expiry by a worker that was stalled": [
        ends("expiring-1", event("expiring-1", at=BEGAN + 9)),
        called("expiring-1", at=BEGAN + 4),
        counts(outcome_locked=4, outcome_expired=0),
        loses(replace(STALL, jobs=("expiring-1",))),
    ],
    "a call by each of two duplicates that were lost together": [
        lambda history: history.messages.append(message("good-1")),
        loses(replace(KILL, jobs=("good-1", "good-1"))),
        *[called()] * 3,
    ],
    "a call by a duplicate": [lambda history: history.messages.append(message("good-1")), called()],
    "many calls in a second in which the API was late": [
        too_fast,
        lambda history: history.late.append(Span(BEGAN + 3.0, BEGAN + 3.3)),
    ],
    "many calls in a second right before which the API was late": [
        too_fast,
        lambda history: history.late.append(Span(BEGAN + 2.6, BEGAN + 2.9)),
    ],
    "a worker that was killed": [worker_ends(-signal.SIGKILL, "SIGKILL")],
    "a worker that was told to end before it could listen": [
        worker_ends(-signal.SIGTERM, "SIGTERM", was_ready=False),
    ],
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_no_fault_of_the_worker_is_no_violation(name: str) -> None:
    assert violations(doctored(ALLOWED[name])) == []
