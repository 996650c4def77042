"""What each answer of the API leads to, seen from outside: real worker, real sockets, scripted faults.

One worker with a single slot serves all tests, each with a conversation of its own.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.api import SandboxApi, run_in_thread
from sandbox.conversation import conversation as documented
from sandbox.faults import (
    AnyAnswer,
    AnyDelay,
    Delay,
    Drip,
    Drop,
    GarbageStatusLine,
    GzipBomb,
    HugeHeaders,
    Oversized,
    Respond,
    WrongBody,
)
from sandbox.script import Rule, Script
from tests.system.stage import RESULTS, TASK, TOKEN, Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.call_log import Call
    from sandbox.redis_server import RedisServer

MAX_ATTEMPTS = 3
LONGEST_WAIT_SECONDS = 60
CLOCK_STEP_SECONDS = 0.01
"""How far the clocks of two processes may disagree about one moment."""

MIB = 1 << 20

RETRIED: dict[str, tuple[AnyAnswer, str, int | None]] = {
    "408": (Respond(status=408), "timeout", 408),
    "425": (Respond(status=425), "server_error", 425),
    "500": (Respond(status=500), "server_error", 500),
    "502": (Respond(status=502), "server_error", 502),
    "503": (Respond(status=503), "server_error", 503),
    "504": (Respond(status=504), "server_error", 504),
    "another conversation": (WrongBody(what="other_id"), "unconfirmed", 200),
    "no id": (WrongBody(what="id_missing"), "unconfirmed", 200),
    "not locked": (WrongBody(what="locked_false"), "unconfirmed", 200),
    "nothing of locked": (WrongBody(what="locked_missing"), "unconfirmed", 200),
    "no JSON": (WrongBody(what="not_json"), "unconfirmed", 200),
    "no UTF-8": (WrongBody(what="not_utf8"), "unconfirmed", 200),
    "no body": (WrongBody(what="empty"), "unconfirmed", 200),
    "an array": (WrongBody(what="array"), "unconfirmed", 200),
    "204": (Respond(status=204), "unconfirmed", 204),
    "two megabytes": (Oversized(size=2 * MIB), "unconfirmed", 200),
    "two megabytes in chunks": (Oversized(size=2 * MIB, chunked=True), "unconfirmed", 200),
    "two megabytes once inflated": (GzipBomb(size=2 * MIB), "unconfirmed", 200),
    "no HTTP": (GarbageStatusLine(), "unconfirmed", None),
    "a header of a megabyte": (HugeHeaders(size=MIB), "unconfirmed", None),
    "half a body": (Drop(at="body"), "unreachable", 200),
    "half a head": (Drop(at="headers"), "unreachable", None),
    "a closed connection": (Drop(at="request"), "unreachable", None),
    "a reset connection": (Drop(at="request", reset=True), "unreachable", None),
}

REFUSED = {
    301: "refused",
    302: "refused",
    307: "refused",
    308: "refused",
    400: "refused",
    403: "forbidden",
    404: "not_found",
    405: "refused",
    409: "refused",
    410: "not_found",
    422: "refused",
}


@pytest.fixture(scope="module")
def stage(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One system for all answers."""
    with Stage(redis_server.url, tmp_path_factory.mktemp("stage")) as found:
        found.redis.flushall()
        yield found


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "token"
    path.write_text(TOKEN)
    return path


@pytest.fixture(scope="module", autouse=True)
def worker(stage: Stage, token_file: Path) -> WorkerProcess:
    return stage.worker(
        CONCURRENCY=1,
        MAX_ATTEMPTS=MAX_ATTEMPTS,
        ATTEMPT_TIMEOUT_SECONDS=1,
        RETRY_MAX_DELAY_SECONDS=LONGEST_WAIT_SECONDS,
        BREAKER_FAILURES=0,  # the failures of one test are no outage for the next
        API_TOKEN="",
        API_TOKEN_FILE=token_file,
    )


@pytest.fixture
def conversation(stage: Stage) -> Iterator[str]:
    """A conversation that no other test has called. Afterwards the API is well again, and no job is left."""
    yield f"c-{uuid.uuid4()}"
    stage.api.script = Script()
    stage.wait_idle()


def answer_in_turn(stage: Stage, conversation: str, *faults: AnyAnswer | AnyDelay) -> None:
    """The first calls for a conversation meet these faults, one each; all further ones are answered right."""
    rules = [Rule(id=conversation, nth_call=number, then=fault) for number, fault in enumerate(faults, 1)]
    stage.api.script = Script(rules=tuple(rules))


def answer_always(stage: Stage, conversation: str, fault: AnyAnswer | AnyDelay) -> None:
    stage.api.script = Script(rules=(Rule(id=conversation, then=fault),))


def calls_for(stage: Stage, conversation: str) -> list[Call]:
    return [call for call in stage.api.calls() if call.conversation_id == conversation]


def end_of(event: dict[str, Any]) -> tuple[str, int, str | None, int | None]:
    """An event in short: outcome, attempts, and the error's type and status."""
    data, error = event["data"], event["data"]["error"] or {}
    return data["outcome"], data["attempts"], error.get("type"), error.get("status")


def wait_parked(stage: Stage) -> float:
    """Wait until one job is put aside for long, and held by nobody; give the moment it is due, as a Unix time."""

    def parked() -> Any:
        soon = (time.time() + 10) * 1000
        return stage.redis.zrange(stage.keys.delayed, soon, "+inf", byscore=True, withscores=True)

    ((_, due_ms),) = eventually(parked, "a parked job")
    assert stage.redis.zcard(stage.keys.leases) == 0
    return float(due_ms) / 1000


def make_due(stage: Stage) -> None:
    """The moment that delayed jobs wait for has come."""
    for ref in stage.redis.zrange(stage.keys.delayed, 0, -1):
        stage.redis.zadd(stage.keys.delayed, {ref: 0})


# Good answers


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_good_answer_is_locked_with_the_conversation_as_it_came(
    status: int, stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    answer_always(stage, conversation, Respond(status=status))
    job = stage.send(conversation)

    event = stage.event_of(job)
    assert end_of(event) == ("locked", 1, None, None)
    assert event["data"]["conversation"] == documented(conversation)
    assert [line for line in worker.lines("answer_drift") if line["job"] == job] == []


def test_fields_that_nobody_documented_are_kept_and_no_drift(
    stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    answer_always(stage, conversation, WrongBody(what="extra_fields"))
    job = stage.send(conversation)

    assert stage.event_of(job)["data"]["conversation"]["labels"] == ["spam"]
    assert [line for line in worker.lines("answer_drift") if line["job"] == job] == []


@pytest.mark.parametrize(
    ("body", "strays"),
    [
        (WrongBody(what="unknown_enum"), {"source.type"}),
        (WrongBody(what="nulls"), {"source", "userA", "lastMessage"}),
    ],
)
def test_an_answer_that_strays_from_its_shape_is_locked_and_said_in_one_line_without_its_values(
    body: WrongBody, strays: set[str], stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    answer_always(stage, conversation, body)
    job = stage.send(conversation)

    assert end_of(stage.event_of(job)) == ("locked", 1, None, None)
    (line,) = [line for line in worker.lines("answer_drift") if line["job"] == job]
    assert {field.partition(":")[0] for field in line["fields"]} == strays
    assert "AUCTION" not in worker.log


HTTP_AS_IT_IS_SPOKEN: dict[str, dict[str, str]] = {
    "a header of 9 kB": {"X-Padding": "a" * 9_000},
    "150 fields": {f"X-{number}": "a" for number in range(150)},
    "an empty encoding": {"Content-Encoding": ""},
    "an encoding that is a charset": {"Content-Encoding": "utf-8"},
    "an encoding that is none": {"Content-Encoding": "none"},
}


@pytest.mark.parametrize("what", HTTP_AS_IT_IS_SPOKEN)
def test_headers_that_browsers_take_are_no_reason_to_call_again(what: str, stage: Stage, conversation: str) -> None:
    answer_always(stage, conversation, Respond(status=200, headers=HTTP_AS_IT_IS_SPOKEN[what]))
    assert end_of(stage.event_of(stage.send(conversation))) == ("locked", 1, None, None)


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_with_a_large_head_is_one(status: int, stage: Stage, conversation: str) -> None:
    answer_always(stage, conversation, Respond(status=status, headers={"X-Padding": "a" * 9_000}))
    assert end_of(stage.event_of(stage.send(conversation)))[:2] == ("refused", 1)


def test_an_answer_is_told_to_the_last_digit_and_but_for_half_an_emoji(
    stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    members = f'"id":"{conversation}","locked":true,"n":19.990000000000000001,"userA":{{"username":"Jo \\ud83d!"}}'
    answer_always(stage, conversation, Respond(status=200, body=f"{{{members}}}"))
    job = stage.send(conversation)

    assert stage.event_of(job)["data"]["conversation"]["userA"] == {"username": "Jo \ufffd!"}
    (event,) = [
        fields[b"event"] for _, fields in stage.redis.xrange(RESULTS) if conversation.encode() in fields[b"event"]
    ]
    assert b'"n":19.990000000000000001,' in event
    (line,) = [line for line in worker.lines("answer_drift") if line["job"] == job]
    assert "userA.username: held half a character, told as U+FFFD" in line["fields"]
    assert "Jo" not in str(line)


@pytest.mark.parametrize("number", ["19.990000000000000001", "1e-400", "123456789012345678.12", "0.10000000000000001"])
def test_a_number_in_the_metadata_comes_back_to_the_last_digit(number: str, stage: Stage, conversation: str) -> None:
    job = str(uuid.uuid4())
    body = f'[[], {{"conversation_id": "{conversation}", "metadata": {{"price": [{number}]}}}}, {{}}]'
    headers = {"task": TASK, "id": job}
    stage.push(json.dumps({"headers": headers, "content-type": "application/json", "body": body, "properties": {}}))

    assert end_of(stage.event_of(job)) == ("locked", 1, None, None)
    (event,) = [
        fields[b"event"] for _, fields in stage.redis.xrange(RESULTS) if conversation.encode() in fields[b"event"]
    ]
    assert b'"metadata":{"price":[%b]}' % number.encode() in event


def test_an_answer_of_hundreds_of_thousands_of_values_is_locked(stage: Stage, conversation: str) -> None:
    strange = [0] * 300_000
    members = f'"id":"{conversation}","locked":true,"policies":{strange},"lastMessage":{{"attachments":{[0] * 10_000}}}'
    answer_always(stage, conversation, Respond(status=200, body=f"{{{members}}}"))
    assert end_of(stage.event_of(stage.send(conversation))) == ("locked", 1, None, None)


# Answers that are worth another try


@pytest.mark.parametrize(("fault", "problem", "status"), RETRIED.values(), ids=RETRIED.keys())
def test_a_passing_failure_is_tried_again_and_a_lasting_one_ends_as_exhausted(
    fault: AnyAnswer, problem: str, status: int | None, stage: Stage, conversation: str
) -> None:
    answer_in_turn(stage, conversation, *[fault] * (MAX_ATTEMPTS - 1))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", MAX_ATTEMPTS, None, None)
    assert len(calls_for(stage, conversation)) == MAX_ATTEMPTS

    lasting = f"{conversation}-lasting"
    answer_always(stage, lasting, fault)
    event = stage.event_of(stage.send(lasting))
    assert end_of(event) == ("exhausted", MAX_ATTEMPTS, problem, status)
    assert event["type"] == "conversation.lock_failed"
    assert len(calls_for(stage, lasting)) == MAX_ATTEMPTS
    assert event in [dead for dead, _ in stage.dead_letters()]


@pytest.mark.parametrize(
    "fault",
    [Drip(every_ms=50), Drip(every_ms=50, part="head"), Delay(ms=60_000)],
    ids=["a dripping body", "a dripping head", "silence"],
)
def test_an_answer_that_takes_too_long_as_a_whole_is_given_up_and_tried_again(
    fault: AnyAnswer | AnyDelay, stage: Stage, conversation: str
) -> None:
    answer_in_turn(stage, conversation, fault)
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)


def test_an_api_that_never_answers_in_time_ends_as_a_timeout(stage: Stage, conversation: str) -> None:
    answer_always(stage, conversation, Drip(every_ms=50))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("exhausted", MAX_ATTEMPTS, "timeout", 200)


def test_a_refused_port_is_tried_again_and_ends_as_unreachable(stage: Stage, conversation: str) -> None:
    with stage.api_away():
        job = stage.send(conversation)
        assert end_of(stage.event_of(job)) == ("exhausted", MAX_ATTEMPTS, "unreachable", None)
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 1, None, None)


# Answers that are final


@pytest.mark.parametrize(("status", "problem"), REFUSED.items())
def test_a_final_no_is_called_once_and_nothing_is_sent_elsewhere(
    status: int, problem: str, stage: Stage, conversation: str
) -> None:
    with run_in_thread(SandboxApi()) as elsewhere:
        location = f"{elsewhere.url}/conversations/{conversation}/lock"
        answer_always(stage, conversation, Respond(status=status, headers={"Location": location}))
        job = stage.send(conversation)

        event = stage.event_of(job)
        assert end_of(event) == ("refused", 1, problem, status)
        assert len(calls_for(stage, conversation)) == 1
        assert elsewhere.calls() == []
    assert [raw for dead, raw in stage.dead_letters() if dead == event and job.encode() in raw]


# Counting, and what stays the same over a job's calls


def test_calls_in_place_and_after_a_wait_in_redis_are_counted_together(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500), Respond(status=502, headers={"Retry-After": "30"}))
    job = stage.send(conversation)
    wait_parked(stage)
    assert len(calls_for(stage, conversation)) == 2

    make_due(stage)

    assert end_of(stage.event_of(job)) == ("locked", 3, None, None)


def test_a_job_ends_when_its_calls_are_used_up_and_tells_the_last_problem(stage: Stage, conversation: str) -> None:
    parked = Respond(status=500, headers={"Retry-After": "30"})
    answer_in_turn(stage, conversation, parked, Drop(at="request"), Respond(status=408))
    job = stage.send(conversation)
    wait_parked(stage)

    make_due(stage)

    assert end_of(stage.event_of(job)) == ("exhausted", MAX_ATTEMPTS, "timeout", 408)
    assert len(calls_for(stage, conversation)) == MAX_ATTEMPTS


def test_every_call_of_a_job_has_its_idempotency_key_and_continues_the_producers_trace(
    stage: Stage, conversation: str
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    parked = Respond(status=500, headers={"Retry-After": "30"})
    answer_in_turn(stage, conversation, Respond(status=503), parked)
    job = stage.send(conversation, headers={"traceparent": f"00-{trace}-{parent}-01"})
    wait_parked(stage)
    make_due(stage)
    stage.event_of(job)

    calls = calls_for(stage, conversation)
    assert [call.idempotency_key for call in calls] == [job] * 3
    assert {call.authorization for call in calls} == {"right"}
    contexts = [(call.traceparent or "").split("-") for call in calls]
    assert {(version, trace_id, flags) for version, trace_id, _, flags in contexts} == {("00", trace, "01")}
    assert len({parent} | {span for _, _, span, _ in contexts}) == 4
    assert stage.event_of(job)["traceparent"].split("-")[1] == trace


def test_a_job_without_a_trace_has_one_over_all_its_deliveries_that_nobody_samples(
    stage: Stage, conversation: str
) -> None:
    parked = Respond(status=500, headers={"Retry-After": "30"})
    answer_in_turn(stage, conversation, Respond(status=503), parked)
    job = stage.send(conversation)
    wait_parked(stage)
    make_due(stage)
    event = stage.event_of(job)

    contexts = [(call.traceparent or "").split("-") for call in calls_for(stage, conversation)]
    assert len(contexts) == 3
    (trace,) = {trace for _, trace, _, _ in contexts}
    assert {flags for *_, flags in contexts} == {"00"}
    assert event["traceparent"].split("-")[1] == trace
    other = stage.event_of(stage.send(f"{conversation}-2"))
    assert other["traceparent"].split("-")[1] != trace


# A call that may still be at work


def test_a_409_to_the_call_after_one_that_took_too_long_is_tried_again(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Delay(ms=60_000), Respond(status=409))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 3, None, None)


def test_a_409_is_tried_again_though_the_call_before_it_was_made_by_another_delivery(
    stage: Stage, conversation: str
) -> None:
    answer_in_turn(stage, conversation, Respond(status=504, headers={"Retry-After": "30"}), Respond(status=409))
    job = stage.send(conversation)
    wait_parked(stage)
    make_due(stage)
    assert end_of(stage.event_of(job)) == ("locked", 3, None, None)


def test_a_409_that_asks_to_be_tried_again_is(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=409, headers={"Retry-After": "0"}))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)


# Retry-After


def test_a_retry_after_in_seconds_is_waited_out(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": "1"}))
    job = stage.send(conversation)

    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)
    first, second = calls_for(stage, conversation)
    assert first.ended_monotonic is not None
    assert second.at_monotonic - first.ended_monotonic >= 1 - CLOCK_STEP_SECONDS


def test_a_retry_after_as_a_date_is_waited_out(stage: Stage, conversation: str) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    date = format_datetime(moment, usegmt=True)
    answer_in_turn(stage, conversation, Respond(status=502, headers={"Retry-After": date}))
    job = stage.send(conversation)

    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)
    _, second = calls_for(stage, conversation)
    assert second.at_wall >= moment.timestamp() - CLOCK_STEP_SECONDS


@pytest.mark.parametrize("header", ["-30", "soon", "1e9", "30.5.1", "Sun, 99 Nov 2099 08:49:37 GMT"])
def test_a_retry_after_without_sense_is_as_good_as_none(header: str, stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": header}))
    job = stage.send(conversation)

    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)
    first, second = calls_for(stage, conversation)
    assert first.ended_monotonic is not None
    assert second.at_monotonic - first.ended_monotonic < 1


@pytest.mark.parametrize("header", ["31536000", "9" * 400, "Fri, 22 Nov 2999 08:49:37 GMT"])
def test_a_retry_after_of_a_year_is_cut_to_the_longest_wait(header: str, stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": header}))
    sent_at = time.time()
    job = stage.send(conversation)

    due_at = wait_parked(stage)
    assert due_at - sent_at > LONGEST_WAIT_SECONDS - CLOCK_STEP_SECONDS
    assert due_at - time.time() < LONGEST_WAIT_SECONDS + CLOCK_STEP_SECONDS
    make_due(stage)
    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)


def test_a_job_that_waits_leaves_the_only_slot_to_another_job(
    stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": "30"}))
    waiting = stage.send(conversation)
    wait_parked(stage)

    other = stage.send(f"{conversation}-other")

    assert stage.event_of(other)["data"]["outcome"] == "locked"
    assert stage.redis.zcard(stage.keys.delayed) == 1
    assert len(calls_for(stage, conversation)) == 1
    (line,) = [line for line in worker.lines("job_retry") if line["job"] == waiting]
    assert (line["level"], line["attempt"], line["reason"], line["status"], line["where"]) == (
        "info", 1, "server_error", 500, "redis",
    )  # fmt: skip
    assert 30 <= line["wait"] <= 31
    assert worker.lines("job_delayed") == []
    make_due(stage)
    assert end_of(stage.event_of(waiting)) == ("locked", 2, None, None)


# Settings


@pytest.fixture(scope="module")
def tight_lipped(stage: Stage) -> dict[str, str]:
    """For two ways to show a conversation, a queue whose worker does so."""
    queues = {how: f"moderation.lock.{how}" for how in ("without_last_message", "state")}
    started = [stage.start(LOCK_QUEUE=queue, RESULT_CONVERSATION=how) for how, queue in queues.items()]
    for each in started:
        each.wait_ready()
    return queues


@pytest.mark.parametrize(
    ("how", "hidden"),
    [("without_last_message", {"lastMessage"}), ("state", {"lastMessage", "userA", "userB"})],
)
def test_an_event_shows_no_more_of_the_conversation_than_it_is_set_to(
    how: str, hidden: set[str], stage: Stage, conversation: str, tight_lipped: dict[str, str]
) -> None:
    event = stage.event_of(stage.send(conversation, queue=tight_lipped[how]))
    shown = documented(conversation)
    assert hidden < shown.keys()
    assert event["data"]["conversation"] == {name: shown[name] for name in shown.keys() - hidden}


def test_a_token_file_that_is_written_anew_is_used_from_the_next_call_on(
    stage: Stage, conversation: str, token_file: Path
) -> None:
    stage.event_of(stage.send(conversation))

    stage.api.token = "the-next-token"
    token_file.write_text("the-next-token\n")

    stage.event_of(stage.send(f"{conversation}-next"))
    assert [call.authorization for call in calls_for(stage, conversation)] == ["right"]
    assert [call.authorization for call in calls_for(stage, f"{conversation}-next")] == ["right"]
    stage.api.token = TOKEN
    token_file.write_text(TOKEN)


def test_no_token_is_in_any_log(stage: Stage) -> None:
    assert not [worker for worker in stage.workers if TOKEN in worker.log or "the-next-token" in worker.log]
