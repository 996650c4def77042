"""The conversation as the API documents it, and the parts of it that an event shows.

Only ``id`` and ``locked`` confirm a lock (``tasks.verdict``). The rest of the documented shape is checked for *drift*:
a deviation is logged and changes nothing, because the conversation is locked. The API's page marks the required fields
of a conversation but not those of the objects in it, so a missing field there is no drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Required, TypeAlias, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict, is_typeddict

from tasks import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ConversationView: TypeAlias = Literal["full", "without_last_message", "state"]
"""How much of a conversation an event contains."""

_STATE_FIELDS = ("id", "source", "locked", "createdAt", "updatedAt")
_CHECKED_MEMBERS = 100
"""The most members of a list that are checked: drift is only information, and an answer may hold 100,000."""


def _first_members(value: Any) -> Any:
    return value[:_CHECKED_MEMBERS] if isinstance(value, list) else value


Time = Annotated[str, Field(pattern=rfc3339.PATTERN, json_schema_extra={"format": "date-time"})]
"""The shape of an RFC 3339 time; the days of each month are not checked in an answer."""


# Objects of the API as dictionaries: an answer is only checked here, and not converted. Other fields are ignored.
_AS_DOCUMENTED = with_config(ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True))


@_AS_DOCUMENTED
class Source(TypedDict, total=False):
    """What the conversation is about."""

    type: Literal["ORDER"]
    id: str


@_AS_DOCUMENTED
class User(TypedDict, total=False):
    """A participant."""

    id: str
    username: str
    reviews: float
    rating: float
    score: float
    sales: float
    purchases: float
    joined: Time
    avatar: str
    cover: str
    profile: str


@_AS_DOCUMENTED
class Attachment(TypedDict, total=False):
    """A picture in a message."""

    id: str
    imageId: str
    url: str


@_AS_DOCUMENTED
class Message(TypedDict, total=False):
    """The latest message of a conversation."""

    id: str
    conversationId: str
    sender: User
    body: str
    createdAt: str
    viewedAt: str
    attachments: Annotated[list[Attachment], FailFast(), BeforeValidator(_first_members)]


@_AS_DOCUMENTED
class Conversation(TypedDict, total=False):
    """The documented answer to a lock."""

    id: Required[str]
    source: Required[Source]
    userA: Required[User]
    userB: Required[User]
    locked: Required[bool]
    createdAt: str | None
    updatedAt: str | None
    lastMessage: Message


_documented = TypeAdapter(Conversation).validator.validate_python
_NAMES: frozenset[str] = frozenset().union(
    *(kind.__annotations__ for kind in (Conversation, Source, User, Message, Attachment))
)


def _fields(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        where, member = f"{prefix}{name}", hint
        yield where
        if get_origin(hint) is list:
            where, member = f"{where}[]", get_args(hint)[0]
            yield where
        if is_typeddict(member):
            yield from _fields(member, f"{where}.")


DOCUMENTED_FIELDS: frozenset[str] = frozenset(_fields(Conversation))
"""The paths of all documented fields, as :func:`path` writes them."""


class LockedConversation(BaseModel):
    """A conversation in an event: locked, with all else as the API returned it, documented or not."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str = Field(description="The conversation id.")
    locked: Literal[True]


def drift(body: Mapping[str, Any]) -> list[str]:
    """Return where an answer deviates from the documented shape: ``field.path: what it should be``, without values.

    There is one entry per documented field at most: of a list, only the first member that deviates is reported.
    """
    try:
        _documented(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        return list(dict.fromkeys(f"{path(problem['loc'])}: {problem['msg']}" for problem in problems))
    return []


def view(conversation: Mapping[str, Any], how_much: ConversationView) -> Mapping[str, Any]:
    """Return the part of a conversation that an event contains."""
    match how_much:
        case "full":
            return conversation
        case "without_last_message":
            return {name: value for name, value in conversation.items() if name != "lastMessage"}
        case "state":
            return {name: conversation[name] for name in _STATE_FIELDS if name in conversation}


def path(location: Sequence[int | str]) -> str:
    """Return a path such as ``lastMessage.attachments[].url``: one path for all members of a list.

    An undocumented name is shown as ``*``, because it may be anything, even a person's name.
    """
    parts = ["[]" if isinstance(part, int) else f".{part if part in _NAMES else '*'}" for part in location]
    return "".join(parts).removeprefix(".") or "conversation"
