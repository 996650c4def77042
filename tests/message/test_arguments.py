"""A job's fields come as keyword arguments, as one object, or as the conversation id alone."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.outcome import ProblemType
from tests.message.messages import accepted, made, refused

FIELDS = {"conversation_id": "c-1", "reason": None, "dry_run": True}


@pytest.mark.parametrize(
    ("body", "echo"),
    [
        pytest.param([[], FIELDS], FIELDS, id="keywords"),
        pytest.param([[FIELDS], {}], FIELDS, id="one object"),
        pytest.param([["c-1"], {}], {"conversation_id": "c-1"}, id="one string"),
        pytest.param([[7], {}], {"conversation_id": "7"}, id="one integer"),
        pytest.param([[{"conversation_id": 7}], {}], {"conversation_id": "7"}, id="one object with an integer"),
        pytest.param([[], {"conversation_id": -7}], {"conversation_id": "-7"}, id="a negative integer"),
    ],
)
def test_each_way_of_giving_the_fields_is_reported_as_received(body: Any, echo: dict[str, Any]) -> None:
    found = accepted(made(body))
    assert found.received_fields == echo
    assert found.fingerprint == found.subject == echo["conversation_id"]


@pytest.mark.parametrize(
    ("body", "detail", "echo"),
    [
        pytest.param([], "conversation_id: is missing; ", None, id="nothing"),
        pytest.param([[{}], {}], "conversation_id: is missing; ", None, id="an empty object"),
        pytest.param(
            [["c-1"], {"reason": "spam"}],
            "The job has positional and keyword arguments; ",
            {"conversation_id": "c-1", "reason": "spam"},
            id="the id and keywords",
        ),
        pytest.param([["c-1"], FIELDS], "The job has positional and keyword arguments; ", None, id="both ids"),
        pytest.param(
            [[None], FIELDS], "The job has positional and keyword arguments; ", FIELDS, id="null and keywords"
        ),
        pytest.param([["c-1", "spam"], {}], "The job has 2 positional arguments; ", None, id="two arguments"),
        pytest.param([[True], {}], "The positional argument is true; ", None, id="true"),
        pytest.param([[1.0], {}], "The positional argument is a number; ", None, id="a float"),
        pytest.param([[None], {}], "The positional argument is null; ", None, id="null"),
        pytest.param([[["c-1"]], {}], "The positional argument is a list of 1 value; ", None, id="a list"),
        pytest.param([[""], {}], "conversation_id: must be a string of 1 to 256", {"conversation_id": ""}, id="empty"),
        pytest.param(["c-1"], "args: must be a list, and is a string of 3 characters.", None, id="args no list"),
        pytest.param(
            [{"a": 1}, FIELDS], "args: must be a list, and is an object of 1 field.", FIELDS, id="args object"
        ),
        pytest.param([["c-1"], "x"], "kwargs: must be an object, and is ", {"conversation_id": "c-1"}, id="kwargs"),
        pytest.param([[], ["c-1"]], "kwargs: must be an object, and is a list of 1 value.", None, id="kwargs list"),
    ],
)
def test_other_ways_are_refused_with_what_was_understood(body: Any, detail: str, echo: dict[str, Any] | None) -> None:
    found = refused(made(body))
    assert found.problem.type is ProblemType.INVALID_JOB
    assert found.problem.detail.startswith(detail)
    assert found.received_fields == echo
    usable = echo["conversation_id"] or None if echo else None
    assert (found.subject, found.fingerprint) == (usable, usable or "")
