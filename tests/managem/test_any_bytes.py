"""Whatever bytes a host sends, and however it ends: an answer or a failed call, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.managem.client import CallFailedError, ManagemApi, Response
from tests.managem.client import lock
from tests.managem.raw_host import RawHost, Visit

TIMEOUT_SECONDS = 10

PIECES = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 404 Not Found\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/2 ",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: deflate\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b"Retry-After: \xff\xfe\r\n",
    b"Set-Cookie: a=b\r\n",
    b" folded\r\n",
    b"nonsense\r\n",
    b"Content-Length: 5, 5\r\n",
    b"http/2 200\n",
    b"X: a\rb\n",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    gzip.compress(b"hello", mtime=0),
]
BYTES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=30), max_size=12)


@settings(max_examples=250, deadline=None)
@given(parts=BYTES, reset=st.booleans())
def test_any_bytes_are_an_answer_or_a_failed_call(parts: list[bytes], *, reset: bool) -> None:
    uvloop.run(_try(parts, reset=reset))


async def _try(parts: list[bytes], *, reset: bool) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def talk(visit: Visit) -> None:
        await visit.request()
        for part in parts:
            await visit.send(part)
            await asyncio.sleep(0)
        if reset:
            visit.reset()

    async with RawHost(talk) as host:
        api = ManagemApi(
            base_url=host.url,
            token=lambda: "t",
            timeout_seconds=TIMEOUT_SECONDS,
            concurrency=1,
            user_agent="lock-worker/0",
        )
        try:
            for _ in range(2):
                (got,) = await asyncio.gather(lock(api), return_exceptions=True)
                if isinstance(got, CallFailedError):
                    assert got.kind in {"unreachable", "unusable"}
                else:
                    assert isinstance(got, Response)
                    assert 200 <= got.status < 600
        finally:
            await api.aclose()
    assert complaints == []
