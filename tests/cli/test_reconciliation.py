"""The demo's bookkeeping sees everything that does not add up."""

from __future__ import annotations

import time
from typing import Literal

from sandbox.call_log import Call
from worker.broker.state import State
from worker.cli.demo.kinds import DROPPED, Sent, make_messages
from worker.cli.demo.reconciliation import Reconciliation
from worker.cli.result import Result


def result(sent: Sent, outcome: str | None = None, attempts: int = 1) -> Result:
    return Result(
        job_id=sent.job_id or "anonymous-1",
        outcome=outcome or sent.kind.end,
        conversation_id=sent.conversation_id if sent.job_id else "",
        attempts=attempts if sent.job_id else 0,
        finished_at="",
        error_type="",
        problem="",
        text="",
    )


def call(conversation_id: str, authorization: Literal["right", "wrong"] = "right") -> Call:
    return Call(
        number=1, at_monotonic=time.monotonic(), at_wall=time.time(), method="POST", target=b"",
        conversation_id=conversation_id, attempt=1, authorization=authorization, idempotency_key=None, traceparent=None,
        accept=None, user_agent=None, cookie=None, body_size=0,
    )  # fmt: skip


def stats(dropped: int, in_flight: int = 0) -> State:
    return State(in_flight=in_flight, totals={"deduplicated": dropped})


SENT = make_messages(40)
JOBS = [sent for sent in SENT if sent.kind.end != DROPPED]
DUPLICATES = len(SENT) - len(JOBS)
VALID = next(sent for sent in JOBS if sent.kind.name == "a valid job")
CALLS = [call(sent.conversation_id) for sent in JOBS if sent.job_id]


def problems(
    *replaced: Result,
    missing: Sent | None = None,
    dropped: int = DUPLICATES,
    calls: list[Call] | None = None,
    in_flight: int = 0,
) -> list[str]:
    """What is said of a run in which all went well, but for this."""
    account = Reconciliation(SENT)
    gone = {each.job_id for each in replaced} | ({missing.job_id} if missing else set())
    for each in [*(result(sent) for sent in JOBS if sent.job_id not in gone), *replaced]:
        account.add(each)
    return list(account.problems(stats(dropped, in_flight), CALLS if calls is None else calls))


def test_there_is_nothing_to_say_when_all_is_well() -> None:
    assert problems() == []


def test_the_parcel_has_as_many_messages_as_asked_for_and_some_of_each_kind() -> None:
    for count in (40, 300, 5000):
        sent = make_messages(count)
        assert len(sent) == count
        assert len({each.kind.name for each in sent}) == 17


def test_a_job_without_an_event_is_named() -> None:
    said = problems(missing=VALID)
    assert any(line.startswith("no event for 1 of ") and f"{VALID.job_id} (a valid job)" in line for line in said)


def test_a_job_with_two_events_is_named() -> None:
    said = problems(result(VALID), result(VALID))
    assert any(line.startswith("more than one event for 1 of ") and str(VALID.job_id) in line for line in said)


def test_a_wrong_outcome_is_reported() -> None:
    (said,) = problems(result(VALID, "refused"))
    assert said.startswith("a valid job: ")
    assert "1 refused" in said


def test_an_event_that_belongs_to_no_job_is_reported() -> None:
    stranger = Sent(VALID.kind, VALID.message, "stranger", "c-1")
    assert any("bytes that are no message: 1 sent" in line for line in problems(result(stranger, "rejected", 0)))


def test_a_duplicate_that_was_not_dropped_is_reported() -> None:
    (said,) = problems(dropped=DUPLICATES - 1)
    assert "the same job, sent again" in said


def test_a_call_that_no_event_tells_of_is_reported() -> None:
    (said,) = problems(calls=[*CALLS, call("missing-0000")])
    assert "missing-0000 (1 counted, 2 seen)" in said


def test_a_call_that_the_api_never_saw_is_reported() -> None:
    (said,) = problems(calls=CALLS[1:])
    assert "(1 counted, 0 seen)" in said


def test_duplicates_may_call_more_often_but_not_less() -> None:
    copied = next(sent.conversation_id for sent in SENT if sent.kind.end == DROPPED)
    assert problems(calls=[*CALLS, call(copied)]) == []
    assert problems(calls=[each for each in CALLS if each.conversation_id != copied]) != []


def test_a_call_without_the_right_token_is_reported() -> None:
    (said,) = problems(calls=[call(CALLS[0].conversation_id or "", "wrong"), *CALLS[1:]])
    assert said.startswith("1 of ")
    assert said.endswith("without the right token")


def test_jobs_left_in_the_queue_are_reported() -> None:
    assert problems(in_flight=2) == ["left in the queue: 2"]
