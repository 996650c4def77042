"""What stands beside the arguments: moments, trace context, the replayed job, and options without effect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.outcome import ProblemType
from tasks.task_name import TASK_NAME
from tests.message.messages import ABSENT, NOW, accepted, made, refused

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T01:02:03+00:00", datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-23T01:02:03Z", datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-23T01:02:03", datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-23T01:02:03.123456789", datetime(2026, 11, 23, 1, 2, 3, 123456, tzinfo=UTC)),
        ("2026-11-23T01:02:03-05:30", datetime(2026, 11, 23, 6, 32, 3, tzinfo=UTC)),
        ("1970-01-01T00:00:00", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-11-23t01:02:03z", datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-23t01:02:03.5-00:00", datetime(2026, 11, 23, 1, 2, 3, 500_000, tzinfo=UTC)),
        ("2026-12-31T23:59:60Z", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T08:59:60.25+09:00", datetime(2027, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-11-23T01:02:03+00:19:32", datetime(2026, 11, 23, 0, 42, 31, tzinfo=UTC)),
        ("2026-11-23T01:02:03+00:19:32.130000", datetime(2026, 11, 23, 0, 42, 30, 870_000, tzinfo=UTC)),
    ],
)
def test_times_are_those_of_rfc_3339_and_of_python_and_utc_where_they_say_nothing(text: str, moment: datetime) -> None:
    found = accepted(made(headers={"eta": text, "expires": text}))
    assert (found.not_before, found.expires_at) == (moment, moment)
    assert all(each is not None and each.tzinfo is UTC for each in (found.not_before, found.expires_at))


@pytest.mark.parametrize("name", ["eta", "expires"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "tomorrow",
        "3026-13-01T00:00:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "12026-01-01T00:00:00",
        "-2026-01-01T00:00:00",
        "\x00" * 60,
        "2" * 5000,
        # Python's parser takes these, and makes the year 1764 of the first one.
        "1764112010500",
        "2027W011",
        "2026-W48-4",
        "2026-W48-4T10:00:00Z",
        "20261122T150405Z",
        "2026-11-22",
        "2026-11-22T15",
        "2026-11-22T15:04Z",
        "2026-11-22 15:04:05Z",
        "2026-11-22_15:04:05Z",
        "2026-11-22T15:04:05,5Z",
        "2026-11-22T15:04:05+0530",
        "2026-11-22T15:04:05+05",
        # It takes these in some versions.
        "2026-11-22T24:00:00Z",
        "2026-11-22T24:00:00",
        # What nobody's clock tells.
        "1764112010",
        "1764112010.5",
        "+1764112010",
        "2026-326",
        "2026-11-22T15:04:61Z",
        "2026-11-22T15:60:05Z",
        "2026-02-30T15:04:05Z",
        "2026-11-22T15:04:05+24:00",
        "2026-11-22T15:04:05+05:60",
        "2026-11-22T15:04:05 Z",
        " 2026-11-22T15:04:05Z",
        "2026-11-22T15:04:05Z\n",
        "2026-11-22T15:04:05.Z",
        "Sun, 22 Nov 2026 15:04:05 GMT",
        "2026-11-22T15:04:05[Europe/London]",
        "٢٠٢٦-11-22T15:04:05Z",
        1795359845,
        10**400,
        1e300,
        True,
        ["2026-11-22"],
        {"__type__": "datetime", "__value__": "2026-11-22T15:04:05Z"},
    ],
    ids=lambda value: f"{value!r:.30}" if not isinstance(value, int) else "number",
)
def test_a_moment_that_cannot_be_read_is_refused_by_name(name: str, value: Any) -> None:
    protocol_1 = {"task": TASK_NAME, "id": "1", "args": ["c-1"], name: value}
    for raw in (made(headers={name: value}), made(headers=[], body=protocol_1)):
        found = refused(raw)
        assert found.problem.type is ProblemType.INVALID_JOB
        assert found.problem.detail.startswith(
            f"{name}: must be an RFC 3339 time such as 2026-11-22T15:04:05Z, and is "
        )
        assert len(found.problem.detail) < 200
        assert found.problem.detail.isprintable()
        assert (found.subject, found.received_fields) == ("c-1", {"conversation_id": "c-1"})


def test_a_time_that_cannot_be_read_is_reported_as_it_was_written() -> None:
    for value in ("1764112010500", "2027W011", "2026-11-22T24:00:00+00:00"):
        assert refused(made(headers={"eta": value})).problem.detail.endswith(f", and is {value!r}.")


@pytest.mark.parametrize(
    ("eta", "expires", "names"),
    [
        ("2026-11-23T01:02:03", None, ("eta",)),
        ("2026-11-23T01:02:03Z", "2026-11-23T01:02:03.000001", ("expires",)),
        ("2026-11-23T01:02:03", "2026-11-23t01:02:03", ("eta", "expires")),
        ("2026-11-23T01:02:03-00:00", "2026-11-23T01:02:03z", ()),
        (None, None, ()),
    ],
)
def test_options_whose_time_names_no_offset_are_listed(
    eta: str | None, expires: str | None, names: tuple[str, ...]
) -> None:
    assert accepted(made(headers={"eta": eta, "expires": expires})).naive_times == names


def test_an_eta_may_be_a_year_away_and_no_more() -> None:
    year = timedelta(days=365)
    assert accepted(made(headers={"eta": (NOW + year).isoformat()})).not_before == NOW + year
    for eta in ((NOW + year + timedelta(seconds=1)).isoformat(), "3026-11-22T15:04:05Z", "9999-12-31T23:59:59Z"):
        found = refused(made(headers={"eta": eta}))
        assert found.problem.type is ProblemType.INVALID_JOB
        assert found.problem.detail.startswith("eta: is more than 365 days away (")


def test_expires_may_be_any_time() -> None:
    for text in ("0001-01-01T00:00:00", "3026-11-22T15:04:05Z", "9999-12-31T23:59:59Z"):
        assert accepted(made(headers={"expires": text})).expires_at == datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "traceparent",
    [
        TRACE.upper(),
        f"{TRACE}-01",
        f"ff{TRACE[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        f"{TRACE}\n",
        TRACE[:-1],
        "",
        7,
        [TRACE],
    ],
    ids=repr,
)
def test_a_traceparent_that_is_not_well_formed_is_left_out(traceparent: Any) -> None:
    assert accepted(made(headers={"traceparent": traceparent})).traceparent is None


def test_a_traceparent_of_a_later_version_and_its_tracestate_are_kept() -> None:
    found = accepted(made(headers={"traceparent": f"01{TRACE[2:]}-more", "tracestate": "rojo=1"}))
    assert (found.traceparent, found.tracestate) == (TRACE, "rojo=1")


def test_what_is_refused_keeps_its_trace_too() -> None:
    headers = {"traceparent": TRACE, "tracestate": "rojo=1"}
    for raw in (made("!", headers=headers), made(headers={**headers, "task": "x"}), made([["."]], headers=headers)):
        found = refused(raw)
        assert (found.traceparent, found.tracestate) == (TRACE, "rojo=1")


def test_a_traceparent_is_found_where_tracing_libraries_put_it() -> None:
    protocol_1 = {"task": TASK_NAME, "id": "1", "args": ["c-1"]}
    for raw in (
        made(headers={"traceparent": TRACE}),
        made(headers={"headers": {"traceparent": TRACE}}),
        made(headers={"task": ABSENT, "traceparent": TRACE}, body=protocol_1),
    ):
        assert accepted(raw).traceparent == TRACE


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("old-1", "old-1"),
        ("锁", "锁"),
        ("i" * 128, "i" * 128),
        ("i" * 129, None),
        ("", None),
        ("a\nb", None),
        (7, None),
    ],
)
def test_replay_of_is_kept_where_it_could_be_a_job_id(value: Any, kept: str | None) -> None:
    assert accepted(made(headers={"replay_of": value})).replay_of == kept
    assert refused(made("!", headers={"replay_of": value})).replay_of == kept


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        pytest.param(made(), (), id="none"),
        pytest.param(made([["c-1"], {}, {"callbacks": [], "errbacks": None, "chord": {}}]), (), id="empty ones"),
        pytest.param(made([["c-1"], {}, {"callbacks": [{}], "errbacks": [{}]}]), ("link", "link_error"), id="links"),
        pytest.param(
            made([["c-1"], {}, {"chain": [{}], "chord": {"task": "x"}}]), ("chain", "chord"), id="chain, chord"
        ),
        pytest.param(made([["c-1"], {}, "x"]), (), id="options that are no object"),
        pytest.param(made(headers={"timelimit": [None, None]}), (), id="timelimit of nulls"),
        pytest.param(made(headers={"timelimit": [None, 10]}), ("timelimit",), id="timelimit"),
        pytest.param(made(headers={"timelimit": 10}), ("timelimit",), id="timelimit as a number"),
        pytest.param(made(headers={"stamps": {}, "stamped_headers": []}), (), id="no stamps"),
        pytest.param(made(headers={"stamps": {"a": 1}}), ("stamps",), id="stamps"),
        pytest.param(made(headers={"stamped_headers": ["a"]}), ("stamps",), id="stamped headers"),
        pytest.param(made(properties={"reply_to": ""}), (), id="empty reply_to"),
        pytest.param(made(properties={"reply_to": "q"}), ("reply_to",), id="reply_to"),
        pytest.param(made(properties={"reply_to": "q"}, headers={"ignore_result": True}), (), id="no result wanted"),
        pytest.param(
            made(
                headers=[],
                body={
                    "task": TASK_NAME,
                    "args": ["c-1"],
                    "callbacks": [{}],
                    "chord": {"task": "x"},
                    "timelimit": [1, 2],
                },
            ),
            ("link", "chord", "timelimit"),
            id="protocol 1",
        ),
    ],
)
def test_options_without_effect_are_listed(raw: bytes, names: tuple[str, ...]) -> None:
    assert accepted(raw).ignored == names


@pytest.mark.parametrize(
    ("task", "told"),
    [
        pytest.param(None, "null", id="null"),
        pytest.param("", "''", id="empty"),
        pytest.param(7, "a number", id="number"),
        pytest.param("celery.ping", "'celery.ping'", id="another"),
        pytest.param("x" * 100, f"'{'x' * 100}'", id="100 characters"),
        pytest.param("x" * 5000, f"'{'x' * 100}'...", id="long"),
        pytest.param("please lock c-1 for Alice Smith", "'please lock c-1 for Alic'...", id="no name"),
    ],
)
def test_an_unknown_task_is_refused_and_its_arguments_kept(task: Any, told: str) -> None:
    found = refused(made(headers={"task": task}))
    assert found.problem.type is ProblemType.UNKNOWN_TASK
    assert found.problem.detail == f"task: must be {TASK_NAME}, and is {told}."
    assert (found.subject, found.received_fields) == ("c-1", {"conversation_id": "c-1"})


@pytest.mark.parametrize(
    "task",
    [
        "moderation.lock_conversatoin",
        "moderation.lock_conversations",
        "moderation.lockConversation",
        "moderation.lock-conversation",
        "app.moderation.lock_conversation",
        "Moderation.Lock_Conversation",
        "tasks.lock_conversation",
        "lock_conversation",
    ],
)
def test_a_misspelt_task_is_reported_whole_beside_the_likely_one(task: str) -> None:
    found = refused(made(headers={"task": task}))
    assert found.problem.type is ProblemType.UNKNOWN_TASK
    assert found.problem.detail == f"task: there is no task {task!r}; did you mean {TASK_NAME}?"
