"""A history that is right, and the ways in which it can be doctored, so that invariants are shown to see."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from tests.chaos.history import Call, DeadLetter, End, Event, Failover, History, Loss, Message
from tests.chaos.messages import nameless_key
from tests.chaos.plan import Act, Job, Kind, Plan, Route, Send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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


def failed_over(at: float = 1.1, *, is_lossless: bool = False, is_split: bool = False) -> Change:
    """Another server became the primary in the middle of the calls of a right round."""
    failover = Failover("a failover", BEGAN + at, BEGAN + at + 5, is_lossless, is_split)
    return lambda history: history.failovers.append(failover)


def doctored(changes: Iterable[Change]) -> History:
    """A history that was right before these changes."""
    history = right()
    for change in changes:
        change(history)
    return history
