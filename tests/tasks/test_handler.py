"""The life of a job, with scripted answers of the API and a clock that only a sleep moves."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import trace
from tasks.attempts import Attempts
from tasks.decision import Decision, Finished, Later
from tasks.event import ResultEvent
from tasks.handler import LockConversation
from tasks.job import Job
from tasks.lock_call import LockCall
from tasks.managem.client import CallFailedError, Kind, Response
from tasks.message import Accepted, Rejection
from tasks.outcome import Problem, ProblemType
from tasks.progress import Progress, from_bytes
from tasks.reporter import Reporter
from tasks.retry import IN_PLACE_SECONDS, RETRY_REASONS, RetryDetails, RetryPolicy
from tasks.run import Run
from tasks.verdict import Blame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.managem.client import ManagemApi
    from tasks.managem.conversation import ConversationView

ID = "c-1"
RECEIVED = datetime(2026, 11, 22, 15, 4, 0, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
MAX_ATTEMPTS = 4
TRACE = "0af7651916cd43dd8448eb211c80319c"

Said: TypeAlias = Response | CallFailedError | Exception

CONFIRMED = {"id": ID, "locked": True}
LOCKED = {**CONFIRMED, "lastMessage": {"body": "hello"}, "createdAt": None}


def locked(**fields: Any) -> Response:
    return Response(200, json.dumps({**LOCKED, **fields}).encode(), None)


def status(code: int, retry_after: str | None = None) -> Response:
    return Response(code, b"", retry_after)


class LostError(Exception):
    """What before_call raises when another worker has the job."""


class Scene:
    """The handler with an API that gives these answers in turn, and the last one again and again."""

    def __init__(self, *said: Said, shown: ConversationView = "full", lost_at: int = 0) -> None:
        self._said = list(said or [locked()])
        self._lost_at = lost_at
        self.now = NOW
        self.slept: list[float] = []
        self.calls: list[tuple[str, str, str]] = []
        self.states: list[str | None] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.looks = 0
        self.answers = 0
        self.blamed: list[Blame] = []
        self.refusals: list[tuple[int, float | None]] = []
        self.waiting = 0
        self.is_held_back = self.closes_meanwhile = False
        self.has_slots = True
        self.outage = self.doubts_token = self.needs_permits = self.is_token_new = False
        self.chance = 0.0
        self.retries: list[RetryDetails] = []
        self.lock_call = LockCall(api=cast("ManagemApi", self), flow=self, shown=shown)
        self.handler = LockConversation(
            call=self.lock_call,
            flow=self,
            policy=RetryPolicy(
                max_attempts=MAX_ATTEMPTS, base_seconds=0.01, max_delay_seconds=60, rng=lambda: self.chance
            ),
            on_retry=self.retries.append,
            reporter=Reporter(),
            sleep=self._sleep,
        )

    async def __call__(self, job: Accepted | None = None, *, attempts: int = 0, **facts: Any) -> Decision:
        self.run = self.new_run(attempts, **facts)
        return await self.handler(job or accepted(), self.run)

    async def finished(self, job: Accepted | None = None, *, attempts: int = 0, **facts: Any) -> dict[str, Any]:
        """Run a job that must come to its end, and give its event."""
        return event_of(await self(job, attempts=attempts, **facts))

    def new_run(self, attempts: int = 0, **facts: Any) -> Run:
        usual: dict[str, Any] = {"ends_at": None, "is_retry": attempts > 0, **facts}
        return Run(
            job="job-1", key=("q", "r"), counter=Attempts(attempts), received_at=RECEIVED, clock=lambda: self.now,
            before_call=self._before_call, **usual,
        )  # fmt: skip

    async def lock(
        self, conversation_id: str, *, idempotency_key: str, traceparent: str, tracestate: str | None = None
    ) -> Response:
        """As the API's client."""
        self.calls.append((conversation_id, idempotency_key, traceparent))
        self.states.append(tracestate)
        said = self._said.pop(0) if len(self._said) > 1 else self._said[0]
        if isinstance(said, Exception):
            raise said
        return said

    def token_is_new(self) -> bool:
        """As the API's client."""
        return self.is_token_new

    # As the flow control

    def begins(self, run: Run) -> None:
        assert run.job == "job-1"

    def answered(self, run: Run) -> None:
        assert not run.is_calling
        self.answers += 1

    def refused(self, run: Run, status: int, retry_after: float | None) -> float:
        assert not run.is_calling
        self.refusals.append((status, retry_after))
        return max(2.0, retry_after or 0)

    def failed(self, run: Run, blame: Blame, problem: Problem) -> int:
        """In an outage, and with a token that is refused, no failure is the job's."""
        assert run.progress.problem == problem
        self.blamed.append(blame)
        return int(blame is not Blame.TOKEN and not self.outage)

    def holds_back(self) -> bool:
        return self.is_held_back

    def may_wait_in_slot(self) -> bool:
        return self.has_slots and not self.is_held_back

    def waits_in_slot(self, change: int) -> None:
        self.waiting += change

    def reason(self) -> Problem:
        return Problem(ProblemType.RATE_LIMITED, "The fleet is paused.")

    async def _before_call(self) -> None:
        self.looks += 1
        if self.looks == self._lost_at:
            raise LostError

    async def _sleep(self, seconds: float) -> None:
        assert self.waiting == 1
        self.on_sleep()
        self.slept.append(seconds)
        self.is_held_back = self.is_held_back or self.closes_meanwhile
        self.now += timedelta(seconds=seconds)


def accepted(conversation_id: str = ID, *, dry_run: bool = False, **changes: Any) -> Accepted:
    fields: Mapping[str, Any] = {"conversation_id": conversation_id, "rule_id": "r-1"}
    usual: dict[str, Any] = {
        "id": "job-1", "fingerprint": conversation_id, "job": Job(**fields, dry_run=dry_run), "received_fields": fields,
        "not_before": None, "expires_at": None, "traceparent": None, "replay_of": None, "ignored": (),
    }  # fmt: skip
    return Accepted(**{**usual, **changes})


def event_of(decision: Decision) -> dict[str, Any]:
    assert isinstance(decision, Finished), decision
    ResultEvent.model_validate_json(decision.event.body)
    event: dict[str, Any] = json.loads(decision.event.body)
    assert decision.event.failed is (event["type"] == "conversation.lock_failed")
    return event


# History


def told(event: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (entry["what"], entry["status"], entry["error"], entry["wait_seconds"]) for entry in event["data"]["history"]
    ]


async def test_the_event_tells_each_call_and_the_wait_after_it() -> None:
    scene = Scene(status(503), CallFailedError("timeout", "too late", was_sent=True), locked())
    scene.chance = 1.0

    event = await scene.finished()

    assert told(event) == [
        ("call", 503, "server_error", 0.01),
        ("call", None, "timeout", 0.02),
        ("call", 200, None, None),
    ]
    assert [entry["time"][:19] for entry in event["data"]["history"]] == ["2026-11-22T15:04:05"] * 3


async def test_a_final_refusal_is_told_too() -> None:
    assert told(await Scene(status(404)).finished()) == [("call", 404, "not_found", None)]


async def test_one_call_that_locks_is_all_there_is_to_tell() -> None:
    scene = Scene()

    assert "history" not in (await scene.finished())["data"]
    assert scene.run.progress.to_bytes() == b""


async def test_a_dry_run_has_no_history() -> None:
    assert "history" not in (await Scene().finished(accepted(dry_run=True)))["data"]


async def test_calls_of_an_earlier_delivery_are_told() -> None:
    scene = Scene(status(429, "5"), locked())

    later = await scene()
    event = await scene.finished(progress=from_bytes(scene.run.progress.to_bytes()))

    assert isinstance(later, Later)
    assert told(event) == [("call", 429, "rate_limited", 5.0), ("call", 200, None, None)]


async def test_the_last_ten_of_many_calls_are_told() -> None:
    scene = Scene(*[status(429, "5")] * 12, locked())
    progress = Progress()
    for _ in range(12):
        await scene(progress=progress)

    event = await scene.finished(progress=progress)

    assert told(event) == [("call", 429, "rate_limited", 5.0)] * 9 + [("call", 200, None, None)]


async def test_an_error_of_the_workers_own_is_told_as_a_call() -> None:
    scene = Scene(RuntimeError("a bug"), locked())
    with pytest.raises(RuntimeError):
        await scene()
    later = scene.handler.failed(accepted(), scene.run, RuntimeError("a bug"))

    event = await scene.finished(progress=scene.run.progress)

    assert isinstance(later, Later)
    assert told(event) == [("call", None, "internal", pytest.approx(later.delay, abs=0.001)), ("call", 200, None, None)]


async def test_the_history_holds_no_text_of_the_api() -> None:
    secret = Response(404, b'{"error": "a text of the API"}', None)

    event = await Scene(secret).finished()

    assert "a text of the API" not in json.dumps(event)


# Admitting


async def test_a_good_job_is_called_once_and_its_event_has_every_field() -> None:
    scene = Scene()

    event = await scene.finished()

    assert event == {
        "specversion": "1.0", "id": "job-1", "source": "/lock-worker", "type": "conversation.locked", "subject": ID,
        "time": "2026-11-22T15:04:05.000000Z", "datacontenttype": "application/json",
        "traceparent": trace.of_job(None, None, ("q", "r")).traceparent,
        "data": {
            "job_id": "job-1", "outcome": "locked", "attempts": 1, "job": {"conversation_id": ID, "rule_id": "r-1"},
            "received_at": "2026-11-22T15:04:00.000000Z", "finished_at": "2026-11-22T15:04:05.000000Z",
            "conversation": LOCKED, "error": None,
        },
    }  # fmt: skip
    assert [call[0] for call in scene.calls] == [ID]
    assert scene.slept == []


async def test_a_dry_run_does_everything_but_the_call() -> None:
    scene = Scene()
    event = await scene.finished(accepted(dry_run=True))
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_skipped", "would_lock")
    assert (event["data"]["attempts"], event["data"]["error"], event["data"]["conversation"]) == (0, None, None)
    assert (scene.calls, scene.looks) == ([], 0)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("late_by", [timedelta(0), timedelta(milliseconds=1), timedelta(days=400)])
async def test_an_expired_job_is_not_called(late_by: timedelta, dry_run: bool) -> None:  # noqa: FBT001 - a parameter
    scene = Scene()
    event = await scene.finished(accepted(expires_at=NOW - late_by, dry_run=dry_run))
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_skipped", "expired")
    assert (event["data"]["attempts"], event["data"]["error"]["type"]) == (0, "expired")
    assert event["data"]["error"]["detail"].endswith(", before it could be called.")
    assert scene.calls == []


async def test_a_job_that_expires_in_a_moment_is_called() -> None:
    event = await Scene().finished(accepted(expires_at=NOW + timedelta(milliseconds=1)))
    assert event["data"]["outcome"] == "locked"


async def test_a_job_that_expires_between_two_calls_in_place_is_not_called_again() -> None:
    scene = Scene(status(500), status(500, "1"), locked())
    event = await scene.finished(accepted(expires_at=NOW + timedelta(seconds=0.5)))
    assert event["data"]["outcome"] == "expired"
    assert event["data"]["attempts"] == len(scene.calls) == 2
    detail = event["data"]["error"]["detail"]
    assert "before it could be called" not in detail
    assert detail.endswith("by then, and none confirmed the lock: the conversation may be locked.")


async def test_a_job_that_expired_while_it_was_delayed_keeps_its_attempts() -> None:
    event = await Scene().finished(accepted(expires_at=NOW), attempts=2)
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("expired", 2)


# Calling


async def test_a_job_that_another_worker_holds_is_not_called_and_the_run_ends() -> None:
    scene = Scene(lost_at=1)
    with pytest.raises(LostError):
        await scene()
    assert scene.calls == []
    assert scene.run.attempts == 0


async def test_each_call_first_checks_that_this_worker_still_holds_the_job() -> None:
    scene = Scene(status(500), lost_at=3)
    with pytest.raises(LostError):
        await scene()
    assert len(scene.calls) == scene.run.attempts == 2


async def test_every_call_of_a_job_has_the_same_idempotency_key_and_trace_and_a_span_of_its_own() -> None:
    scene = Scene(status(500), status(503), locked())
    await scene(accepted(traceparent=f"00-{TRACE}-b7ad6b7169203331-00"))
    assert [key for _, key, _ in scene.calls] == ["job-1"] * 3
    spans = []
    for _, _, traceparent in scene.calls:
        version, trace, span, flags = traceparent.split("-")
        assert (version, trace, flags) == ("00", TRACE, "00")
        spans.append(span)
    assert len({"b7ad6b7169203331", *spans}) == 4
    assert all(len(span) == 16 and int(span, 16) for span in spans)


async def test_a_job_without_a_trace_gets_one_unsampled_trace_for_all_its_calls_and_deliveries() -> None:
    first, second = Scene(status(500), status(500), status(500, "30")), Scene(locked())
    await first()
    event = await second.finished(attempts=3)
    contexts = [traceparent.split("-") for _, _, traceparent in (*first.calls, *second.calls)]
    assert len(contexts) == 4
    assert {(version, len(trace), len(span), flags) for version, trace, span, flags in contexts} == {
        ("00", 32, 16, "00")
    }
    assert {trace for _, trace, _, _ in contexts} == {event["traceparent"].split("-")[1]}
    assert len({span for _, _, span, _ in contexts}) == 4


async def test_the_producers_tracestate_goes_along_with_every_call_and_with_the_event() -> None:
    scene = Scene(status(500), locked())
    event = await scene.finished(accepted(traceparent=f"00-{TRACE}-b7ad6b7169203331-01", tracestate="rojo=1,congo=2"))
    assert scene.states == ["rojo=1,congo=2"] * 2
    assert event["tracestate"] == "rojo=1,congo=2"
    assert event["traceparent"].startswith(f"00-{TRACE}-")
    assert event["traceparent"].endswith("-01")


async def test_a_job_whose_id_no_header_can_carry_is_called_under_a_uuid_derived_from_it() -> None:
    first, again, other = Scene(), Scene(), Scene()
    await first(accepted(id="任务-1"))
    await again(accepted(id="任务-1"))
    await other(accepted(id="任务-2"))
    keys = [scene.calls[0][1] for scene in (first, again, other)]
    assert keys[0] == keys[1] != keys[2]
    assert uuid.UUID(keys[0]).version == 5


# Trying again


async def test_a_short_wait_is_slept_in_place_and_calls_are_counted() -> None:
    scene = Scene(status(500), CallFailedError("timeout", "Too late."), locked())
    event = await scene.finished()
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 3)
    assert len(scene.slept) == 2
    assert all(0 <= wait <= 0.02 for wait in scene.slept)


async def test_a_retry_after_of_a_second_is_slept_in_place_and_a_longer_one_is_not() -> None:
    in_place = Scene(status(500, "1"), locked())
    assert (await in_place.finished())["data"]["attempts"] == 2
    assert in_place.slept == [IN_PLACE_SECONDS]

    put_aside = Scene(status(500, "2"), locked())
    assert await put_aside() == Later(2.0, "server_error", is_retry=True)
    assert put_aside.run.attempts == len(put_aside.calls) == 1
    assert put_aside.slept == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (status(408, "30"), "timeout"),
        (status(502, "30"), "server_error"),
        (Response(200, b"{}", "30"), "unconfirmed"),
        (status(500, "Sun, 22 Nov 2026 15:04:35 GMT"), "server_error"),
    ],
)
async def test_a_job_that_has_to_wait_names_its_reason(said: Response, reason: str) -> None:
    assert await Scene(said)() == Later(30.0, reason, is_retry=True)


async def test_a_retry_after_of_a_year_is_cut_to_the_longest_wait() -> None:
    assert await Scene(status(500, "31536000"))() == Later(60.0, "server_error", is_retry=True)
    assert await Scene(status(429, "31536000"))() == Later(60.0, "rate_limited", is_retry=True)


async def test_calls_of_earlier_deliveries_count() -> None:
    scene = Scene(status(500))
    event = await scene.finished(attempts=2)
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("exhausted", MAX_ATTEMPTS)
    assert len(scene.calls) == 2


async def test_a_job_that_had_more_calls_than_are_allowed_now_is_called_once_more_and_ends() -> None:
    event = await Scene(status(500)).finished(attempts=MAX_ATTEMPTS + 3)
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("exhausted", MAX_ATTEMPTS + 4)


async def test_an_exhausted_job_names_the_last_problem() -> None:
    scene = Scene(status(500), status(500), CallFailedError("unreachable", "No connection."), status(408))
    event = await scene.finished()
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "exhausted")
    assert (event["data"]["error"]["type"], event["data"]["error"]["status"]) == ("timeout", 408)
    assert event["data"]["attempts"] == len(scene.calls) == MAX_ATTEMPTS
    assert len(scene.slept) == MAX_ATTEMPTS - 1


async def test_a_final_refusal_ends_the_job_at_once() -> None:
    scene = Scene(status(404, "5"))
    event = await scene.finished()
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("refused", "not_found")
    assert (event["data"]["attempts"], len(scene.calls), scene.slept) == (1, 1, [])


async def test_an_error_of_the_clients_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await Scene(ZeroDivisionError())()


def test_an_error_of_the_workers_own_is_retried_like_a_failure_of_the_api() -> None:
    scene = Scene()
    later = scene.handler.failed(accepted(), scene.new_run(attempts=1), ZeroDivisionError("secret"))
    assert isinstance(later, Later)
    assert later.reason == "internal"

    event = event_of(
        scene.handler.failed(accepted(), scene.new_run(attempts=MAX_ATTEMPTS), ZeroDivisionError("secret"))
    )
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("exhausted", "internal")
    assert "ZeroDivisionError" in event["data"]["error"]["detail"]
    assert "secret" not in event["data"]["error"]["detail"]


async def test_each_retry_is_reported_once_before_its_wait_with_its_call_reason_status_wait_and_place() -> None:
    scene = Scene(status(500, "1"), CallFailedError("timeout", "Too late."), status(502, "30"))
    told_by_then: list[int] = []
    scene.on_sleep = lambda: told_by_then.append(len(scene.retries))

    await scene()

    assert scene.retries == [
        RetryDetails("job-1", 1, "server_error", 500, 1.0, "slot", "c-1"),
        RetryDetails("job-1", 2, "timeout", None, 0.0, "slot", "c-1"),
        RetryDetails("job-1", 3, "server_error", 502, 30.0, "redis", "c-1"),
    ]
    assert told_by_then == [1, 2]


async def test_a_retry_goes_on_counting_from_earlier_deliveries_and_calls_that_do_not_count_keep_the_number() -> None:
    scene = Scene(status(429, "7"))
    await scene(attempts=2)
    assert scene.retries == [RetryDetails("job-1", 3, "rate_limited", 429, 7.0, "redis", "c-1")]

    outage = Scene(status(503))
    outage.outage = True
    await outage(attempts=1)
    assert outage.retries == [RetryDetails("job-1", 2, "server_error", 503, 5.0, "redis", "c-1")]

    refused = Scene(status(401))
    refused.has_slots = False
    await refused()
    (retry,) = refused.retries
    assert (retry.attempt, retry.reason, retry.status) == (1, "token_refused", 401)


@pytest.mark.parametrize(
    "said", [locked(), status(404), status(403), status(301)], ids=["locked", "not found", "forbidden", "redirect"]
)
async def test_a_job_that_ends_with_its_first_call_has_no_retry(said: Response) -> None:
    scene = Scene(said)
    await scene.finished()
    assert scene.retries == []


async def test_the_last_call_of_a_job_that_is_exhausted_is_no_retry() -> None:
    scene = Scene(status(500))
    await scene.finished()
    assert [retry.attempt for retry in scene.retries] == [*range(1, MAX_ATTEMPTS)]


async def test_a_job_that_gives_back_its_slot_after_the_wait_still_reports_one_retry() -> None:
    scene = Scene(status(500))
    scene.closes_meanwhile = True

    assert await scene() == Later(0, "server_error", is_retry=True)

    assert [(retry.attempt, retry.where) for retry in scene.retries] == [(1, "slot")]


async def test_the_reasons_of_retries_are_those_that_are_known_and_each_of_them_occurs() -> None:
    all_said: list[Said] = [status(code, retry_after) for code in range(99, 601) for retry_after in (None, "30")]
    all_said += [CallFailedError(kind, "It failed.") for kind in get_args(Kind)]
    reasons = set()
    for said in all_said:
        scene = Scene(said)
        scene.has_slots = False
        await scene()
        reasons |= {retry.reason for retry in scene.retries}

    assert reasons == set(RETRY_REASONS)


def test_a_retry_after_an_error_of_the_workers_own_waits_in_redis() -> None:
    scene = Scene()
    scene.handler.failed(accepted(), scene.new_run(attempts=1), ZeroDivisionError("secret"))
    assert [(retry.attempt, retry.reason, retry.status, retry.where) for retry in scene.retries] == [
        (2, "internal", None, "redis")
    ]

    scene.handler.failed(accepted(), scene.new_run(attempts=MAX_ATTEMPTS), ZeroDivisionError("secret"))
    assert len(scene.retries) == 1, "it has ended"


# Reporting


@pytest.mark.parametrize(
    ("shown", "fields"),
    [
        ("full", {"id", "locked", "lastMessage", "createdAt", "labels"}),
        ("without_last_message", {"id", "locked", "createdAt", "labels"}),
        ("state", {"id", "locked", "createdAt"}),
    ],
)
async def test_an_event_shows_as_much_of_the_conversation_as_the_setting_says(
    shown: ConversationView, fields: set[str]
) -> None:
    event = await Scene(locked(labels=["spam"]), shown=shown).finished()
    assert event["data"]["conversation"].keys() == fields


async def test_a_deviation_from_the_documented_shape_is_logged_without_its_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = await Scene(locked(source={"type": "SECRET"}, userA=None, userB={"rating": "SECRET"})).finished()

    assert event["data"]["outcome"] == "locked"
    assert event["data"]["conversation"]["source"] == {"type": "SECRET"}
    assert {(record.levelname, record.message) for record in caplog.records} == {("WARNING", "answer_drift")}
    lines = [vars(record) for record in caplog.records]
    assert [(line["job"], line["field"]) for line in lines] == [
        ("job-1", "source.type"), ("job-1", "userA"), ("job-1", "userB.rating"),
    ]  # fmt: skip
    assert "SECRET" not in repr(lines)


@pytest.mark.parametrize("shown", ["full", "without_last_message", "state"])
async def test_an_answer_that_had_to_be_changed_is_published_and_the_change_is_logged(
    shown: ConversationView, caplog: pytest.LogCaptureFixture
) -> None:
    said = Response(
        200,
        b'{"id":"c-1","locked":true,"source":{"type":"ORDER","id":"\\ud83d","n":1e-400},"userA":{},"userB":{}}',
        None,
    )
    scene = Scene(said, shown=shown)
    decision = await scene()

    assert isinstance(decision, Finished)
    assert b'"n":1e-400' in decision.event.body
    assert event_of(decision)["data"]["conversation"]["source"]["id"] == "\ufffd"
    (record,) = caplog.records
    assert record.message == "answer_drift"
    told = [record.__dict__[name] for name in ("field", "path", "problem")]
    assert told == ["source.id", "source.id", "held half a character, told as U+FFFD"]


async def test_a_large_answer_is_judged_off_the_loop_with_the_same_result() -> None:
    large = locked(policies=["x"] * 40_000)
    looked: list[str] = []
    scene = Scene(large)
    judged = scene.lock_call._judged

    def judge(*arguments: Any) -> Any:
        looked.append(threading.current_thread().name)
        return judged(*arguments)

    scene.lock_call._judged = judge  # type: ignore[assignment, method-assign]
    event = await scene.finished()

    assert event["data"]["outcome"] == "locked"
    assert len(event["data"]["conversation"]["policies"]) == 40_000
    assert looked != [threading.main_thread().name]


async def test_the_documented_answer_is_no_deviation(caplog: pytest.LogCaptureFixture) -> None:
    await Scene(locked(source={}, userA={}, userB={}, lastMessage={})).finished()
    assert caplog.records == []


async def test_a_replay_names_the_job_it_repeats() -> None:
    event = await Scene().finished(accepted(replay_of="job-0"))
    assert event["data"]["replay_of"] == "job-0"


def test_a_message_that_is_no_job_is_rejected_with_what_was_understood() -> None:
    scene = Scene()
    rejection = Rejection("job-1", None, None, Problem(ProblemType.UNDECODABLE, "The message is empty."), None, None)
    event = event_of(scene.handler.reporter.rejected(rejection, scene.new_run()))
    assert "subject" not in event
    assert (event["data"]["outcome"], event["data"]["job"], event["data"]["attempts"]) == ("rejected", None, 0)
    assert event["data"]["error"] == {
        "type": "undecodable", "title": "The message cannot be read", "status": None, "detail": "The message is empty.",
    }  # fmt: skip


def test_an_id_that_stands_for_another_conversation_is_rejected() -> None:
    scene = Scene()
    event = event_of(scene.handler.reporter.conflicting(accepted(), scene.new_run()))
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("rejected", "invalid_job")
    assert event["subject"] == ID


def test_a_revoked_job_was_skipped() -> None:
    scene = Scene()
    event = event_of(scene.handler.reporter.revoked(accepted(), scene.new_run()))
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_skipped", "revoked")
    assert event["data"]["error"]["type"] == "revoked"


@pytest.mark.parametrize(
    "known",
    [
        {"attempts": 1},
        {"progress": Progress(may_be_at_work=True)},
        {"progress": Progress(problem=Problem(ProblemType.RATE_LIMITED, "The API answered 429.", 429))},
    ],
    ids=["a call that counted", "a worker that died on it", "a call that did not count"],
)
def test_a_job_revoked_after_a_call_has_failed_and_its_conversation_may_be_locked(known: dict[str, Any]) -> None:
    scene = Scene()
    event = event_of(scene.handler.reporter.revoked(accepted(), scene.new_run(**known)))
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "revoked")
    assert event["data"]["attempts"] == known.get("attempts", 0)
    assert "the conversation may be locked" in event["data"]["error"]["detail"]


def test_a_poisoned_job_names_the_number_of_dead_workers_and_warns_of_a_replay() -> None:
    scene = Scene()
    event = event_of(scene.handler.reporter.poisoned(accepted(), scene.new_run(attempts=2), crashes=5))
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("poisoned", "poisoned")
    assert event["data"]["attempts"] == 2
    assert event["data"]["error"]["detail"].startswith("5 workers")
    assert "a replay is a new job, without this history" in event["data"]["error"]["detail"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**400)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
DOCUMENTED = st.sampled_from(["source", "userA", "userB", "createdAt", "updatedAt", "lastMessage"])


@settings(deadline=None)
@given(st.dictionaries(DOCUMENTED | TEXT, ANY_JSON, max_size=6))
async def test_a_confirmed_lock_is_published_with_the_whole_answer_whatever_it_holds(extra: dict[str, Any]) -> None:
    event = await Scene(locked(**{**extra, **CONFIRMED})).finished()

    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 1)
    assert event["data"]["conversation"] == {**LOCKED, **extra, **CONFIRMED}


@pytest.mark.parametrize("value", ["1e999", "-1e999", r'"\ud800"', r'{"\udfff": 1}', "[" * 500 + "]" * 500])
async def test_a_confirmed_lock_is_published_even_if_the_answer_holds_what_few_writers_can_write(value: str) -> None:
    decision = await Scene(Response(200, f'{{"id": "c-1", "locked": true, "source": {value}}}'.encode(), None))()
    assert isinstance(decision, Finished)
    assert decision.event.outcome == "locked"
    assert json.loads(decision.event.body)["data"]["conversation"]["locked"] is True


@pytest.mark.parametrize("levels", [900, 1_000, 5_000, 100_000])
async def test_an_answer_that_is_nested_however_deep_ends_in_an_event(levels: int) -> None:
    deep = b'{"id": "c-1", "locked": true, "more": ' + b"[" * levels + b"]" * levels + b"}"
    decision = await Scene(Response(200, deep, None))()
    assert isinstance(decision, Finished)
    problem = json.loads(decision.event.body)["data"]["error"]
    assert decision.event.outcome == "locked" or problem["type"] == "unconfirmed"


# Holding back


@pytest.mark.parametrize("said", [locked(), status(404), status(400)])
async def test_an_answer_that_ends_a_job_counts_as_answered_whatever_it_says(said: Response) -> None:
    scene = Scene(said)
    await scene()
    assert (scene.answers, scene.blamed) == (1, [])


async def test_a_job_that_is_not_called_reports_nothing_about_the_api() -> None:
    dry, late = Scene(), Scene()
    await dry(accepted(dry_run=True))
    await late(accepted(expires_at=NOW))
    assert [(scene.answers, scene.blamed) for scene in (dry, late)] == [(0, [])] * 2


@pytest.mark.parametrize(
    ("said", "blame"),
    [
        (status(500), Blame.API),
        (status(408), Blame.API),
        (CallFailedError("timeout", "Too late."), Blame.API),
        (CallFailedError("unreachable", "Cut off."), Blame.API),
        (CallFailedError("unreachable", "No connection.", was_sent=False), Blame.NETWORK),
        (Response(200, b"{}", None), Blame.API),
        (status(409, "1"), Blame.JOB),
        (status(401), Blame.TOKEN),
    ],
)
async def test_a_failure_is_reported_with_whose_fault_it_is(said: Said, blame: Blame) -> None:
    scene = Scene(said)
    scene.is_held_back = True

    await scene()

    assert (scene.answers, scene.blamed) == (0, [blame])


@pytest.mark.parametrize("attempts", [0, 1, MAX_ATTEMPTS - 1, MAX_ATTEMPTS])
async def test_a_failure_in_an_outage_costs_the_job_no_attempt_and_delays_it(attempts: int) -> None:
    scene = Scene(status(503))
    scene.outage = True

    decision = await scene(attempts=attempts)

    assert decision == Later(5.0, "server_error", is_retry=True)
    assert scene.run.attempts == attempts
    assert scene.slept == []


@pytest.mark.parametrize(
    ("retry_after", "chance", "wait"),
    [(None, 1.0, 10.0), ("3", 0.0, 5.0), ("30", 0.0, 30.0), ("31536000", 0.0, 60.0), ("-30", 0.0, 5.0)],
)
async def test_a_job_delayed_in_an_outage_waits_at_least_as_long_as_its_answer_asked_for(
    retry_after: str | None, chance: float, wait: float
) -> None:
    scene = Scene(status(500, retry_after))
    scene.outage, scene.chance = True, chance
    assert await scene() == Later(wait, "server_error", is_retry=True)


async def test_a_refused_token_is_tried_once_more_and_then_costs_the_job_nothing() -> None:
    scene = Scene(status(401))
    scene.closes_meanwhile = True

    decision = await scene()

    assert isinstance(decision, Later)
    assert decision.reason == "token_refused"
    assert len(scene.calls) == scene.looks == 2
    assert scene.run.attempts == 0
    assert scene.blamed == [Blame.TOKEN]


@pytest.mark.parametrize("doubt", ["doubts_token", "needs_permits", "is_retry", "is_probe"])
async def test_a_refused_token_is_not_tried_again_where_that_is_useless_or_not_allowed(doubt: str) -> None:
    scene = Scene(status(401))
    scene.has_slots = False
    facts: dict[str, Any] = {}
    if doubt.startswith("is_"):
        facts[doubt] = True
    else:
        setattr(scene, doubt, True)

    await scene(**facts)

    assert len(scene.calls) == 1


async def test_a_new_token_is_tried_at_once_whatever_is_in_doubt() -> None:
    scene = Scene(status(401), locked())
    scene.doubts_token = scene.is_token_new = True

    event = await scene.finished()

    assert (event["data"]["outcome"], event["data"]["attempts"], len(scene.calls)) == ("locked", 1, 2)


async def test_a_conversation_that_is_refused_with_a_token_that_serves_others_ends_as_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(status(401))
    monkeypatch.setattr(scene, "failed", lambda *_: 1)  # others succeed with it

    event = await scene.finished(attempts=1)

    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("refused", "forbidden")
    assert "check its rights where it serves other conversations" in event["data"]["error"]["detail"]
    assert event["data"]["attempts"] == MAX_ATTEMPTS


async def test_a_token_that_was_renewed_meanwhile_is_accepted_at_the_second_try_and_that_is_one_attempt() -> None:
    scene = Scene(status(401), locked())

    event = await scene.finished()

    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 1)
    assert (scene.slept, scene.blamed) == ([], [])


async def test_a_call_that_fails_after_a_refused_token_is_one_attempt() -> None:
    scene = Scene(status(401), status(500), locked())

    event = await scene.finished()

    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 2)
    assert scene.blamed == [Blame.API]


@pytest.mark.parametrize(
    ("said", "reason", "asked"),
    [
        (status(429, "30"), "rate_limited", 30.0),
        (status(429), "rate_limited", None),
        (status(429, "soon"), "rate_limited", None),
        (status(429, "0"), "rate_limited", 0.0),
        (status(429, "86400"), "rate_limited", 60.0),
        (status(503, "30"), "server_error", 30.0),
    ],
)
async def test_an_overloaded_api_costs_the_job_no_attempt_and_flow_control_hears_its_retry_after(
    said: Response, reason: str, asked: float | None
) -> None:
    scene = Scene(said)

    decision = await scene(attempts=MAX_ATTEMPTS - 1)

    assert decision == Later(max(2.0, asked or 0), reason, is_retry=True)
    assert scene.refusals == [(said.status, asked)]
    assert (scene.run.attempts, scene.blamed, scene.slept) == (MAX_ATTEMPTS - 1, [], [])
    assert scene.run.progress.problem is not None


@pytest.mark.parametrize("code", [401, 404, 408, 425, 500, 502, 504])
async def test_a_retry_after_on_any_other_answer_is_the_jobs_own(code: int) -> None:
    scene = Scene(status(code, "30"))

    await scene()

    assert scene.refusals == []


@pytest.mark.parametrize(
    "late", [CallFailedError("timeout", "Too late."), CallFailedError("unreachable", "Cut off."), status(504)]
)
async def test_a_409_after_a_call_whose_answer_was_lost_or_late_is_tried_again(late: Said) -> None:
    scene = Scene(late, status(409), locked())
    event = await scene.finished()
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 3)


@pytest.mark.parametrize("before", [status(500), CallFailedError("unreachable", "No connection.", was_sent=False)])
async def test_a_409_after_calls_that_left_nothing_at_work_is_final(before: Said) -> None:
    scene = Scene(before, status(409))
    event = await scene.finished()
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("refused", "refused")


# Growing too old


async def test_a_job_that_is_too_old_is_not_called_and_ends_with_its_last_problem() -> None:
    known = Progress(problem=Problem(ProblemType.UNREACHABLE, "No connection."))
    scene = Scene()

    event = await scene.finished(attempts=3, ends_at=NOW, progress=known)

    assert (event["data"]["outcome"], event["data"]["attempts"], scene.calls) == ("exhausted", 3, [])
    assert event["data"]["error"]["type"] == "unreachable"
    assert "No connection." in event["data"]["error"]["detail"]
    assert "JOB_MAX_AGE_SECONDS" in event["data"]["error"]["detail"]


async def test_a_job_that_was_never_called_names_what_held_it_back() -> None:
    event = await Scene().finished(ends_at=NOW)
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("exhausted", "rate_limited")


async def test_a_job_that_grows_too_old_between_two_calls_is_not_called_again() -> None:
    scene = Scene(status(500, "0.9"))
    event = await scene.finished(ends_at=NOW + timedelta(seconds=0.5))
    assert (event["data"]["outcome"], event["data"]["error"]["type"], len(scene.calls)) == (
        "exhausted",
        "server_error",
        1,
    )


async def test_where_too_many_wait_in_their_slots_already_a_job_waits_in_redis() -> None:
    scene = Scene(status(500), locked())
    scene.has_slots = False

    assert isinstance(await scene(), Later)

    assert scene.slept == []


async def test_while_calls_are_held_back_no_job_waits_in_its_slot() -> None:
    scene = Scene(status(500), locked())
    scene.is_held_back = True

    decision = await scene()

    assert isinstance(decision, Later)
    assert decision.delay <= 0.02
    assert (scene.slept, scene.run.attempts) == ([], 1)


async def test_a_job_whose_wait_in_its_slot_ends_during_a_pause_goes_back_to_redis_without_a_call() -> None:
    scene = Scene(status(500), locked())
    scene.closes_meanwhile = True

    assert await scene() == Later(0, "server_error", is_retry=True)

    assert (len(scene.slept), len(scene.calls), scene.run.attempts) == (1, 1, 1)


async def test_an_error_of_the_workers_own_blames_the_worker_and_not_the_api() -> None:
    scene = Scene()

    scene.handler.failed(accepted(), scene.new_run(attempts=1), RuntimeError())

    assert scene.blamed == [Blame.WORKER]


async def test_a_job_that_is_interrupted_while_a_large_answer_is_judged_was_called() -> None:
    """Else its next delivery would say of a revoked job that it was never called, and the conversation is locked."""
    is_judged, may_go_on = threading.Event(), threading.Event()

    def on_drift(*_: object) -> None:
        is_judged.set()
        may_go_on.wait(10)

    scene = Scene(locked(padding="x" * 100_000))
    call = LockCall(api=cast("ManagemApi", scene), flow=scene, shown="full", on_drift=on_drift)
    run = scene.new_run()
    task = asyncio.create_task(call.make(accepted(), run))
    await asyncio.to_thread(is_judged.wait, 10)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()

    assert run.is_calling
