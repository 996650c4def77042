"""What each answer of the API leads to, seen from outside: real worker, real sockets, scripted answers."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from sandbox.api import SandboxApi, run_in_thread
from sandbox.conversation import conversation as documented
from sandbox.faults import (
    AnyAnswer,
    Respond,
    WrongBody,
)
from tests.system.answers.scripted import (
    answer_always,
    assert_exhausted,
    assert_locked_at_the_last_attempt,
    calls_for,
    end_of,
)
from tests.system.stage import RESULTS, TASK, TOKEN, Stage, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

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
def test_an_answer_that_strays_from_its_shape_is_locked_and_each_field_is_said_once_without_its_value(
    body: WrongBody, strays: set[str], stage: Stage, conversation: str
) -> None:
    answer_always(stage, conversation, body)
    worker = stage.worker("-Q", conversation)
    first, second = (stage.send(conversation, queue=conversation) for _ in range(2))

    for job in (first, second):
        assert end_of(stage.event_of(job)) == ("locked", 1, None, None)
    assert worker.stop() == 0
    lines = worker.lines("answer_drift")
    assert [line["field"] for line in lines if "count" not in line] == [line["field"] for line in lines[: len(strays)]]
    assert {(line["field"], line.get("count")) for line in lines} == {
        (field, count) for field in strays for count in (None, 1)
    }
    assert "AUCTION" not in worker.log


def test_an_answer_is_reported_to_the_last_digit_and_but_for_half_an_emoji(
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
    lines = [line for line in worker.lines("answer_drift") if line["job"] == job]
    assert ("userA.username", "held half a character, told as U+FFFD") in {
        (line["field"], line["problem"]) for line in lines
    }
    assert "Jo" not in str(lines)


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
def test_a_passing_failure_is_tried_again_and_ends_as_exhausted_if_it_lasts(
    fault: AnyAnswer, problem: str, status: int | None, stage: Stage, conversation: str
) -> None:
    assert_locked_at_the_last_attempt(stage, conversation, fault)
    assert_exhausted(stage, f"{conversation}-lasting", fault, problem, status)


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


# Settings


@pytest.fixture(scope="module")
def reduced_views(stage: Stage) -> dict[str, str]:
    """For two values of RESULT_CONVERSATION, a queue whose worker has it."""
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
    how: str, hidden: set[str], stage: Stage, conversation: str, reduced_views: dict[str, str]
) -> None:
    event = stage.event_of(stage.send(conversation, queue=reduced_views[how]))
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
