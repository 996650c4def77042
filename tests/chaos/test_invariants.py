"""Each invariant sees what it is there for: a history that is right is doctored in one way, and that is found."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.chaos.history import (
    Call,
    DeadLetter,
    End,
    Event,
    Failover,
    History,
    Loss,
    Message,
    Ran,
    RuleHold,
    Span,
    Steered,
)
from tests.chaos.invariants import INVARIANTS, violations
from tests.chaos.messages import nameless_key
from tests.chaos.plan import Act, Job, Kind, Plan, Route, Send
from tests.chaos.report import report
from tests.chaos.round import Outcome
from tests.chaos.steering import Action, Steer
from worker.cli.exit import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Change: TypeAlias = "Callable[[History], object]"

#: When the round began, on the wall clock.
BEGAN = 1_790_000_000.0
KILL = Loss(BEGAN + 1.05, "pod-0-001", str(Act.KILL), ("good-1",))
STALL = replace(KILL, may_call_late=True)


def job(name: str, **options: object) -> Job:
    kind = Kind(name.partition("-")[0])
    usual = Job(name, kind, name, 0, 0.0, 0.0, 0, (Send(0.0, Route.RAW, is_insistent=False),))
    return replace(usual, **options)  # type: ignore[arg-type]


def message(key: str, **options: object) -> Message:
    usual = Message(key, f"message of {key}".encode(), BEGAN + 0.1, BEGAN + 0.2, is_sure=True)
    return replace(usual, **options)  # type: ignore[arg-type]


def call(conversation: str, **options: object) -> Call:
    usual = Call(conversation, conversation.removesuffix("-other"), BEGAN + 1.0, BEGAN + 1.1, "200")
    return replace(usual, **options)  # type: ignore[arg-type]


def event(name: str, outcome: str = "locked", problem: str | None = None, **options: object) -> Event:
    body = f"event of {name}: {outcome}".encode()
    is_failure = outcome in {"refused", "rejected", "exhausted", "poisoned"}
    usual = Event(name, name, name, BEGAN + 1.2, outcome, 1, problem, is_failure, body)
    return replace(usual, **options)  # type: ignore[arg-type]


def dead(event: Event, key: str) -> DeadLetter:
    return DeadLetter(event.body, message(key).raw)


def right() -> History:
    """A round as it should be, with a job of each kind."""
    nameless = message("nameless-1")
    anonymous = f"{nameless_key(nameless.raw)}-0123456789abcdef"
    pair = job("conflict-1"), job("conflict-1", conversation="conflict-1-other")
    jobs = (
        job("good-1"),
        job("good-2", countdown=0.5),
        job("dry-1"),
        job("missing-1"),
        job("hopeless-1"),
        job("expiring-1", expires=2.0),
        job("invalid-1"),
        job("nameless-1"),
        *pair,
    )
    failed = [
        (event("missing-1", "refused", "not_found"), "missing-1"),
        (event("hopeless-1", "exhausted", "server_error", attempts=30), "hopeless-1"),
        (event("invalid-1", "rejected", "invalid_job", subject=None, attempts=0), "invalid-1"),
        (event(anonymous, "rejected", "undecodable", subject=None, attempts=0), "nameless-1"),
        (event("conflict-1", "rejected", "invalid_job", id="own", subject="conflict-1-other", attempts=0), pair[1].key),
    ]
    return History(
        plan=Plan(1, 10.0, "lock-worker", "redis", 2, 10, 5.0, 100.0, None, 50.0, jobs, ()),
        began=BEGAN,
        attempt_timeout=1.5,
        messages=[message(each.key) for each in jobs],
        events=[
            event("good-1"),
            event("good-2"),
            event("dry-1", "would_lock", attempts=0),
            event("expiring-1", "expired", "expired", attempts=0),
            event("conflict-1"),
            *[each for each, _ in failed],
        ],
        dead_letters=[dead(each, key) for each, key in failed],
        calls=[
            call("good-1"),
            call("good-2"),
            call("missing-1", answer="404"),
            *[call("hopeless-1", answer="500")] * 30,
            call("conflict-1"),
        ],
        ends=[End("pod-0-001", BEGAN + 5, 0, "SIGTERM", was_ready=True, seconds=1.0, log_tail="")],
        left={"moderation.lock": 0},
        counters={
            "taken": 11, "finished": 10, "deduplicated": 1, "outcome:locked": 3, "outcome:would_lock": 1,
            "outcome:expired": 1, "outcome:refused": 1, "outcome:rejected": 3, "outcome:exhausted": 1,
        },
    )  # fmt: skip


# How a history can be changed


def lost(history: History) -> None:
    history.events = [each for each in history.events if each.id != "good-1"]


def doubled(history: History) -> None:
    history.events.append(event("good-1"))


def perhaps_sent(history: History) -> None:
    history.messages[0] = message("good-1", is_sure=False)


def uncalled(history: History) -> None:
    history.calls = [each for each in history.calls if each.conversation != "good-1"]


def ends(name: str, *ends: Event) -> Change:
    def change(history: History) -> None:
        at = next(number for number, each in enumerate(history.events) if each.id == name)
        history.events[at : at + 1] = ends

    return change


def called(conversation: str = "good-1", **options: object) -> Change:
    return lambda history: history.calls.append(call(conversation, **options))


def loses(loss: Loss) -> Change:
    return lambda history: history.losses.append(loss)


def counts(**changed: int) -> Change:
    def change(history: History) -> None:
        assert history.counters is not None
        history.counters |= {name.replace("_", ":"): count for name, count in changed.items()}

    return change


def undead(name: str) -> Change:
    def change(history: History) -> None:
        body = next(each.body for each in history.events if each.job_id == name and each.is_failure)
        history.dead_letters = [each for each in history.dead_letters if each.event != body]

    return change


def worker_ends(status: int, told: str, seconds: float = 0.0, *, was_ready: bool = True) -> Change:
    return lambda history: history.ends.append(End("pod", BEGAN, status, told, was_ready, seconds, "its last lines"))


def too_fast(history: History) -> None:
    history.calls += [call(f"other-{number}", at=BEGAN + 3 + number * 0.007) for number in range(140)]


def steered(action: Action, *jobs: str, noted: bool = True, **options: object) -> Change:
    """Somebody did this half a second after the round began, and all obeyed after the calls of a right round."""

    def change(history: History) -> None:
        steer = Steer(len(history.steered), 0.5, action, 2.0, job("good-1").rule, jobs)
        lifted = BEGAN + 2.5 if action.is_undone else float("inf")
        usual = Steered(steer, BEGAN + 0.5, BEGAN + 0.6, BEGAN + 1.2, lifted)
        history.steered.append(replace(usual, **options))  # type: ignore[arg-type]
        if noted:
            history.trail += [(what, steer.reason) for what in ("paused", "resumed", "held", "released", "cancelled")]

    return change


def cancelled(
    name: str, *, is_failure: bool = False, outcome: str = "cancelled", tells_of_a_call: bool = False
) -> list[Change]:
    """It ended so, instead of as it did."""
    body = event(name, outcome, outcome, attempts=0, is_failure=is_failure, tells_of_a_call=tells_of_a_call)

    def letter(history: History) -> None:
        history.dead_letters += [dead(body, name)] if is_failure else []

    return [ends(name, body), letter, counts(outcome_locked=2, **{f"outcome_{outcome}": 1})]


def failed_over(at: float = 1.1, *, is_lossless: bool = False, is_split: bool = False) -> Change:
    """Another server became the primary in the middle of the calls of a right round."""
    failover = Failover("a failover", BEGAN + at, BEGAN + at + 5, is_lossless, is_split)
    return lambda history: history.failovers.append(failover)


#: Calls of a job that the API hears of while it is stopped: the first one may have been out before.
LATE = [called(at=BEGAN + 1.5, answer="500"), called(at=BEGAN + 1.8, answer="500")]
RUNAWAY = [
    lambda history: setattr(history, "plan", replace(history.plan, rule_limit=1, concurrency=1, pods=1)),
]

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
    "calls in a pause": (
        {"no_call_while_it_is_stopped"},
        [steered(Action.PAUSE), uncalled, *LATE, ends("good-1", event("good-1", at=BEGAN + 3, attempts=3))],
    ),
    "calls of a held job": (
        {"no_call_while_it_is_stopped"},
        [steered(Action.HOLD_RULE), uncalled, *LATE, ends("good-1", event("good-1", at=BEGAN + 3, attempts=3))],
    ),
    "calls of a cancelled job": (
        {"no_call_while_it_is_stopped"},
        [
            steered(Action.CANCEL_IDS, "good-1"),
            uncalled,
            *LATE,
            ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
        ],
    ),
    "a call of a held job that was not out before": (
        {"no_call_while_it_is_stopped"},
        [
            steered(Action.HOLD_RULE, lifted=BEGAN + 9),
            uncalled,
            called(at=BEGAN + 4),
            ends("good-1", event("good-1", at=BEGAN + 5)),
        ],
    ),
    "a job that stays on hold": ({"nothing_is_left"}, [lambda history: history.left.update(held=1)]),
    "a job that is cancelled, and nobody asked for it": (
        {"who_is_cancelled_was_to_be"},
        [uncalled, *cancelled("good-1")],
    ),
    "a job that is cancelled, and only another one was to be": (
        {"who_is_cancelled_was_to_be"},
        [steered(Action.CANCEL_IDS, "good-2", obeyed=None), uncalled, *cancelled("good-1")],
    ),
    "a job that is cancelled, and only revoked it was": (
        {"who_is_cancelled_was_to_be"},
        [steered(Action.REVOKE, "good-1"), uncalled, *cancelled("good-1")],
    ),
    "a job that is cancelled before somebody asked for it": (
        {"who_is_cancelled_was_to_be"},
        [
            steered(Action.CANCEL_IDS, "good-1", began=BEGAN + 2, done=BEGAN + 2, obeyed=None),
            uncalled,
            *cancelled("good-1"),
        ],
    ),
    "a job that is skipped as cancelled after a call": (
        {"a_cancelled_job_tells_whether_it_was_called"},
        [steered(Action.CANCEL_IDS, "good-1", obeyed=None), *cancelled("good-1")],
    ),
    "a job that fails as cancelled without a call": (
        {"a_cancelled_job_tells_whether_it_was_called"},
        [steered(Action.CANCEL_IDS, "good-1"), uncalled, *cancelled("good-1", is_failure=True)],
    ),
    "a job that was cancelled before it was sent, and is locked": (
        {"who_is_cancelled_before_ends_so"},
        [steered(Action.CANCEL_IDS, "good-1", began=BEGAN, done=BEGAN + 0.05, obeyed=None)],
    ),
    "an action that is not noted": (
        {"the_trail_names_each_action"},
        [steered(Action.PAUSE, noted=False, obeyed=None)],
    ),
    "a rule that gets more than its limit": ({"a_rule_gets_its_limit_at_most"}, RUNAWAY),
    "a rule that gets more than its limit before it is held again": (
        {"a_rule_gets_its_limit_at_most"},
        [*RUNAWAY, lambda history: history.held_rules.append(RuleHold(job("good-1").rule, BEGAN + 9))],
    ),
    "a command that ends with a traceback": (
        {"commands_end_as_promised"},
        [lambda history: history.commands.append(Ran(("pause",), 1, was_interrupted=False, output="Traceback ..."))],
    ),
    "a command that is ended by a signal": (
        {"commands_end_as_promised"},
        [lambda history: history.commands.append(Ran(("pause",), -2, was_interrupted=False, output=""))],
    ),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_a_doctored_history_is_found_out(name: str) -> None:
    history = right()
    found_by, changes = DOCTORED[name]
    for change in changes:
        change(history)

    assert {each.invariant for each in violations(history)} == found_by


def test_each_invariant_is_shown_to_see() -> None:
    assert set().union(*(found_by for found_by, _ in DOCTORED.values())) == {each.__name__ for each in INVARIANTS}


ALLOWED: dict[str, Sequence[Change]] = {
    "nothing": [],
    "a job that is cancelled after a call whose connection the API refused": [
        steered(Action.CANCEL_IDS, "good-1", obeyed=None),
        uncalled,
        *cancelled("good-1", is_failure=True, tells_of_a_call=True),
    ],
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
    "a call that was out when all obeyed": [
        steered(Action.HOLD_RULE),
        uncalled,
        LATE[0],
        ends("good-1", event("good-1", at=BEGAN + 3)),
    ],
    "calls in a pause that not all were seen to obey": [
        steered(Action.PAUSE, obeyed=None),
        uncalled,
        *LATE,
        ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
    ],
    "a call of a held job after its release": [
        steered(Action.HOLD_RULE, lifted=BEGAN + 1.4),
        uncalled,
        *LATE,
        ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
    ],
    "a call of a job that another hold is for": [
        steered(Action.HOLD_ACTOR),
        uncalled,
        *LATE,
        ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
    ],
    "a job that is cancelled before any call": [
        steered(Action.CANCEL_IDS, "good-1"),
        uncalled,
        *cancelled("good-1"),
    ],
    "a job that is cancelled by its rule after a call": [
        steered(Action.CANCEL_RULE, obeyed=None),
        *cancelled("good-1", is_failure=True),
    ],
    "a job that fails as cancelled, as a worker died on it": [
        steered(Action.CANCEL_IDS, "good-1"),
        uncalled,
        loses(KILL),
        *cancelled("good-1", is_failure=True),
    ],
    "a job that is revoked": [
        steered(Action.REVOKE, "good-1"),
        uncalled,
        *cancelled("good-1", outcome="revoked"),
    ],
    "a rule that asks for more than its limit and is held": [
        *RUNAWAY,
        lambda history: history.held_rules.extend([RuleHold(job("good-1").rule, BEGAN)] * len(history.jobs)),
    ],
    "a rule whose jobs were on hold": [
        *RUNAWAY,
        lambda history: setattr(history, "events", [replace(each, was_on_hold=True) for each in history.events]),
    ],
    "commands that end as they may": [
        lambda history: history.commands.extend(
            Ran(("pause",), status, was_interrupted=status == INTERRUPTED, output="") for status in (0, 1, INTERRUPTED)
        ),
    ],
    "a worker that was killed": [worker_ends(-signal.SIGKILL, "SIGKILL")],
    "a worker that was told to end before it could listen": [
        worker_ends(-signal.SIGTERM, "SIGTERM", was_ready=False),
    ],
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_no_fault_of_the_worker_is_no_violation(name: str) -> None:
    history = right()
    for change in ALLOWED[name]:
        change(history)

    assert violations(history) == []


def test_a_report_shows_what_happened_to_a_job_and_what_the_workers_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "pod-0-001.log").write_text('{"event": "lease_lost", "job": "good-1"}\n')
    history = right()
    history.losses.append(KILL)
    failed_over()(history)
    doubled(history)

    shown = report(Outcome(history.plan, history, violations(history), 3, 12.5, tmp_path))

    assert "1 doubled" in shown
    assert "! no_job_is_doubled: good-1: 2 events: locked, locked" in shown
    assert "a failover: at most 0.1 s without an event" in shown
    for line in (
        "0.100 s  sent",
        "1.000 s  called, answered 200",
        "1.050 s  pod-0-001: SIGKILL of a worker",
        "lease_lost",
    ):
        assert line in shown


def test_a_report_tells_what_a_primary_that_was_cut_off_took_with_it(tmp_path: Path) -> None:
    history = right()
    history.messages[0] = message("good-1", is_sure=False, is_at_primary=True)
    published = frozenset({b"an event of good-1 at the old primary", event("good-2").body})
    history.failovers.append(Failover("a cut", BEGAN + 0.05, BEGAN + 5, published=published))
    lost(history)

    shown = report(Outcome(history.plan, history, [], 3, 12.5, tmp_path))

    told = "1 jobs that the old primary alone had acknowledged, 1 events that it had published"
    assert f"without an event; forgotten: {told}" in shown
