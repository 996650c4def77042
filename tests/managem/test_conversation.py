"""The documented shape of a conversation is checked and never an obstacle; an event shows as much as it may."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tasks.managem.conversation import drift, path, view

USER: dict[str, Any] = {
    "id": "u-1",
    "username": "mo",
    "reviews": 3,
    "rating": 4.5,
    "score": 123,
    "sales": 0,
    "purchases": 1,
    "joined": "2023-11-07T05:31:56Z",
    "avatar": "https://example.org/a.png",
    "cover": "",
    "profile": "",
}
ANSWER: dict[str, Any] = {
    "id": "c-1",
    "source": {"type": "ORDER", "id": "o-1"},
    "userA": {**USER},
    "userB": {**USER, "id": "u-2"},
    "locked": True,
    "createdAt": "2026-11-20T10:00:00Z",
    "updatedAt": None,
    "lastMessage": {
        "id": "m-1",
        "conversationId": "c-1",
        "sender": {**USER},
        "body": "private words",
        "createdAt": "2026-11-20T10:00:00Z",
        "viewedAt": "2026-11-20T10:00:00Z",
        "attachments": [{"id": "a-1", "imageId": "i-1", "url": "https://example.org/i.png"}],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The answer with another value at a dotted path."""
    answer = copy.deepcopy(ANSWER)
    *parents, last = path.split(".")
    inner = answer
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return answer


def test_the_documented_answer_has_no_drift() -> None:
    assert drift(ANSWER) == []


@pytest.mark.parametrize("name", ["createdAt", "updatedAt", "lastMessage"])
def test_a_field_that_is_not_required_may_be_missing(name: str) -> None:
    assert drift({key: value for key, value in ANSWER.items() if key != name}) == []


def test_unknown_fields_are_no_drift() -> None:
    answer = {**ANSWER, "archived": False, "source": {**ANSWER["source"], "shop": 1}}
    assert drift(answer) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("source.type", "private-enum"),
        ("source", None),
        ("userA.rating", None),
        ("userB.reviews", "private"),
        ("userA.sales", True),
        ("userA.joined", "private, last week"),
        ("createdAt", 1795359845),
        ("lastMessage", None),
        ("lastMessage.body", ["private"]),
        ("lastMessage.viewedAt", None),
        ("lastMessage.sender.username", 10**400),
        ("lastMessage.attachments", "private"),
        ("lastMessage.sender", "\ud800private"),
    ],
)
def test_a_deviation_is_reported_by_its_path_and_never_by_its_value(path: str, value: Any) -> None:
    (deviation,) = drift(changed(path, value))
    assert deviation.startswith(f"{path}: ")
    assert "private" not in deviation


def test_a_missing_required_field_is_drift() -> None:
    assert drift({"id": "c-1", "locked": True}) == [
        "source: Field required",
        "userA: Field required",
        "userB: Field required",
    ]


def test_the_same_deviation_in_a_long_list_is_reported_once() -> None:
    answer = changed("lastMessage.attachments", [{"url": None}] * 1000)
    assert drift(answer) == ["lastMessage.attachments[].url: Input should be a valid string"]


@pytest.mark.parametrize("attachments", [[{"url": None, "id": None, "imageId": None}], [None], [{}, {"url": 1}]])
def test_of_half_a_million_members_the_first_that_deviates_is_reported_and_the_rest_is_not_looked_at(
    attachments: list[Any],
) -> None:
    found = drift(changed("lastMessage.attachments", attachments * 500_000))
    assert 1 <= len(found) <= 3
    assert all(line.startswith("lastMessage.attachments[]") for line in found)
    good = [ANSWER["lastMessage"]["attachments"][0]] * 1_000
    assert drift(changed("lastMessage.attachments", [*good, None])) == []


def test_what_is_not_documented_is_not_looked_at_whatever_it_holds() -> None:
    assert drift({**ANSWER, "\ud800": 1, "policies": [None] * 500_000, **{f"x{n}": n for n in range(90_000)}}) == []


def test_a_path_holds_documented_names_alone() -> None:
    assert path(("lastMessage", "attachments", 3, "url")) == "lastMessage.attachments[].url"
    assert path(("readBy", "Mo Salah", 0, "id")) == "*.*[].id"
    assert path(()) == "conversation"


def test_an_event_shows_as_much_as_it_may() -> None:
    answer = {**ANSWER, "archived": False}
    assert view(answer, "full") is answer
    assert view(answer, "without_last_message") == {k: v for k, v in answer.items() if k != "lastMessage"}
    state = {"id": "c-1", "source": {"type": "ORDER", "id": "o-1"}, "locked": True}
    assert view(answer, "state") == {**state, "createdAt": "2026-11-20T10:00:00Z", "updatedAt": None}
    assert view({"id": "c-1", "locked": True}, "state") == {"id": "c-1", "locked": True}
