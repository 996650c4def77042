"""How the tests of this folder call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import pytest

from tasks.managem.client import CallFailedError

if TYPE_CHECKING:
    from tasks.managem.client import ManagemApi, Response
    from tasks.managem.transport import Request, ResponseStream

TOKEN = "secret-token"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class MakeApi(Protocol):
    """How a test gets a client, which is closed behind it."""

    def __call__(self, base_url: str, *, timeout_seconds: float = 5.0, concurrency: int = 10) -> ManagemApi:
        """Make a client of the host at ``base_url``."""


async def lock(api: ManagemApi, conversation_id: str = "c-1") -> Response:
    """Lock a conversation, with a key and a trace that do not matter."""
    return await api.lock(conversation_id, idempotency_key="key-1", traceparent=TRACEPARENT)


async def fail_to_lock(api: ManagemApi) -> CallFailedError:
    """Try to lock a conversation, and return how that failed."""
    with pytest.raises(CallFailedError) as caught:
        await lock(api)
    return caught.value


def watch_heads(api: ManagemApi) -> asyncio.Event:
    """Return an event that is set once the client has taken the head of an answer."""
    taken = asyncio.Event()
    send = api._transport.send

    async def send_and_tell(request: Request) -> ResponseStream:
        reply = await send(request)
        taken.set()
        return reply

    api._transport.send = send_and_tell  # type: ignore[method-assign]
    return taken
