"""The conversation as the API documents it, and what of it an event shows.

A lock is confirmed by ``id`` and ``locked`` alone; that is decided elsewhere. The rest of the documented shape is
checked for *drift*: a deviation is worth a log line, and never an obstacle, because the conversation is locked all
the same. The page marks the required fields of a conversation and none of the objects in it, so a field missing there
is no drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Shown: TypeAlias = Literal["full", "without_last_message", "state"]
"""How much of a conversation an event carries."""

_STATE_FIELDS = ("id", "source", "locked", "createdAt", "updatedAt")
_MAX_DEVIATIONS = 20


Moment = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$",
        json_schema_extra={"format": "date-time"},
    ),
]
"""The shape of an RFC 3339 time; that every month has its days is not our concern in an answer."""


class _Documented(BaseModel):
    """An object of the API: unknown fields are kept, and a default stands for a field that need not be there."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)


class Source(_Documented):
    """What the conversation is about."""

    type: Literal["ORDER"] = "ORDER"
    id: str = ""


class User(_Documented):
    """A participant."""

    id: str = ""
    username: str = ""
    reviews: float = 0
    rating: float = 0
    score: float = 0
    sales: float = 0
    purchases: float = 0
    joined: Moment = ""
    avatar: str = ""
    cover: str = ""
    profile: str = ""


class Attachment(_Documented):
    """A picture in a message."""

    id: str = ""
    imageId: str = ""  # noqa: N815 - the API's name
    url: str = ""


class Message(_Documented):
    """The latest message of a conversation."""

    id: str = ""
    conversationId: str = ""  # noqa: N815 - the API's name
    sender: User = User()
    body: str = ""
    createdAt: str = ""  # noqa: N815 - the API's name
    viewedAt: str = ""  # noqa: N815 - the API's name
    attachments: list[Attachment] = []


class Conversation(_Documented):
    """The documented answer to a lock."""

    # The names are the API's.
    id: str = Field(description="Unique identifier for the conversation.")
    source: Source = Field(description="Conversation source.")
    userA: User = Field(description="First participant.")  # noqa: N815 - see above
    userB: User = Field(description="Second participant.")  # noqa: N815 - see above
    locked: bool = Field(description="Whether the conversation is locked.")
    createdAt: str | None = Field(None, description="When the conversation was created.")  # noqa: N815 - see above
    updatedAt: str | None = Field(None, description="When it was last updated.")  # noqa: N815 - see above
    lastMessage: Message = Field(Message(), description="Its latest message.")  # noqa: N815 - see above


class LockedConversation(BaseModel):
    """A conversation in an event: surely locked; all the rest is as the API returned it, documented or not."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str = Field(description="The conversation id.")
    locked: Literal[True]


def drift(body: Mapping[str, Any]) -> list[str]:
    """Where an answer deviates from the documented shape: ``field.path: what it should be``, without any value."""
    try:
        Conversation.model_validate(dict(body))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        return list(dict.fromkeys(f"{_path(problem['loc'])}: {problem['msg']}" for problem in problems))[
            :_MAX_DEVIATIONS
        ]
    return []


def shown(conversation: Mapping[str, Any], how_much: Shown) -> Mapping[str, Any]:
    """The part of a conversation that an event carries."""
    match how_much:
        case "full":
            return conversation
        case "without_last_message":
            return {name: value for name, value in conversation.items() if name != "lastMessage"}
        case "state":
            return {name: conversation[name] for name in _STATE_FIELDS if name in conversation}


def _path(location: tuple[int | str, ...]) -> str:
    """``lastMessage.attachments[].url``: one path for all members of a list, so that a long one is told once."""
    return (
        "".join("[]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".") or "conversation"
    )
