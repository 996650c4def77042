"""A client that hides nothing: it sends bytes and returns the bytes that came, and how the connection ended."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sandbox.api import SandboxApi

DEADLINE_SECONDS = 10.0


@dataclass(frozen=True)
class Received:
    """What came until the server ended the connection, and how it did."""

    data: bytes
    end: Literal["fin", "rst"]


@contextlib.asynccontextmanager
async def connected(api: SandboxApi) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(api.host, api.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def send(api: SandboxApi, request: bytes) -> Received:
    """Send the bytes and read until the server ends the connection."""
    async with connected(api) as (reader, writer):
        writer.write(request)
        return await until_end(reader)


async def until_end(reader: asyncio.StreamReader) -> Received:
    data = bytearray()
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            while piece := await reader.read(65_536):
                data += piece
        except ConnectionResetError:
            return Received(bytes(data), "rst")
    return Received(bytes(data), "fin")


def lock(conversation_id: str, **headers: str) -> bytes:
    """Return a request to lock a conversation, after which the server is to close the connection."""
    return request(f"POST /conversations/{conversation_id}/lock", Connection="close", **headers)


def request(method_and_target: str, **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method_and_target} HTTP/1.1\r\nHost: sandbox\r\n{lines}\r\n".encode()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - any condition, of which nobody tells
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"it never came about that {what}") from None
