"""Makes the conversation of the sandbox's answers: the whole documented shape with plausible values, right or wrong.

The values follow from the id alone, so an answer can be checked without keeping it. They mean nothing.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, assert_never

if TYPE_CHECKING:
    from sandbox.faults import Wrongness

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_NAMES = ("ada", "bram", "chidi", "dora", "emre", "freya", "goran", "hana", "ines", "jonas", "kofi", "lena")
_BODIES = (
    "Is this still available?",
    "Could you post it tomorrow?",
    "Text me on another app, it is cheaper there.",
    "Danke schön, es ist angekommen 🎉",
    "I have not heard from you since I paid.",
)


def conversation(conversation_id: str) -> dict[str, Any]:
    """Return the locked conversation of that id."""
    number = zlib.crc32(conversation_id.encode())
    seller = _user(number)
    buyer = _user(number // 7 + 1)
    day = number % 28 + 1
    return {
        "id": conversation_id,
        "source": {"type": "ORDER", "id": f"ord_{number:08x}"},
        "userA": seller,
        "userB": buyer,
        "locked": True,
        "createdAt": f"2026-09-{day:02d}T08:15:00Z",
        "updatedAt": f"2026-10-{day:02d}T17:40:30Z",
        "lastMessage": {
            "id": f"msg_{number:08x}",
            "conversationId": conversation_id,
            "sender": buyer,
            "body": _BODIES[number % len(_BODIES)],
            "createdAt": f"2026-10-{day:02d}T17:40:12Z",
            "viewedAt": f"2026-10-{day:02d}T17:40:30Z",
            "attachments": [
                {
                    "id": f"att_{number:08x}",
                    "imageId": f"img_{number:08x}",
                    "url": f"https://images.example/{number:08x}.jpg",
                }
            ],
        },
    }


def wrong_body(wrongness: Wrongness, conversation_id: str) -> bytes:  # noqa: C901 - one branch for each way to be wrong
    """Return a body that is wrong in that way."""
    body = conversation(conversation_id)
    match wrongness:
        case "empty":
            return b""
        case "not_json":
            return b"<html><body>It works!</body></html>"
        case "not_utf8":
            return b'{"id": "\xff\xfe", "locked": true}'
        case "array":
            return as_json([body])
        case "other_id":
            body["id"] += "-other"
        case "id_missing":
            del body["id"]
        case "locked_false":
            body["locked"] = False
        case "locked_missing":
            del body["locked"]
        case "extra_fields":
            body |= {"lockedBy": {"id": "usr_1"}, "labels": ["spam"]}
        case "unknown_enum":
            body["source"]["type"] = "AUCTION"
        case "nulls":
            body |= {"source": None, "userA": None, "createdAt": None, "lastMessage": None}
        case _:
            assert_never(wrongness)
    return as_json(body)


def as_json(value: Any) -> bytes:
    """Return the value as JSON in UTF-8."""
    return _ENCODER.encode(value).encode()


def _user(number: int) -> dict[str, Any]:
    username = f"{_NAMES[number % len(_NAMES)]}{number % 1000}"
    sales = number % 400
    return {
        "id": f"usr_{number:08x}",
        "username": username,
        "reviews": number % 300,
        "rating": 3.5 + number % 16 / 10,
        "score": number % 101,
        "sales": sales,
        "purchases": number % 60,
        "joined": f"20{number % 7 + 18}-0{number % 9 + 1}-1{number % 10}T09:00:00Z",
        "avatar": f"https://images.example/avatars/{username}.jpg",
        "cover": f"https://images.example/covers/{username}.jpg",
        "profile": f"https://shop.example/@{username}",
    }
