"""The token is sent to the host and shown to nobody else."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING

import pytest

from tasks.managem.client import ManagemApi
from tests.managem.client import TOKEN, TRACEPARENT, MakeApi, fail_to_lock
from tests.managem.raw_host import END_OF_HEAD, RawHost, Visit, answer, answering

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def echoing(before: bytes, after: bytes = b"") -> Callable[[Visit], Awaitable[None]]:
    """Send the request back to where it came from, as a host may that is being debugged."""

    async def talk(visit: Visit) -> None:
        head = await visit.request()
        await visit.send(before + head.replace(END_OF_HEAD, b"\r\n") + after)

    return talk


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"HTTP/1.1 ", END_OF_HEAD),
        (b"HTTP/1.1 200 OK\r\nX", b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 300\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: ", b"Content-Length: 1\r\n\r\na"),
    ],
)
async def test_no_error_and_no_log_line_shows_the_token(
    make_api: MakeApi, caplog: pytest.LogCaptureFixture, before: bytes, after: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    async with RawHost(echoing(before, after)) as host:
        api = make_api(host.url)
        failure = await fail_to_lock(api)
    assert TOKEN.encode() in host.requests[0]
    told = [repr(api), repr(failure), str(failure), failure.detail, caplog.text]
    told += traceback.TracebackException.from_exception(failure, capture_locals=True).format()
    assert TOKEN not in "".join(told)
    assert failure.__cause__ is None
    assert failure.__context__ is None


async def test_no_error_and_no_log_line_shows_the_token_when_nobody_listens(
    make_api: MakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    async with RawHost(answering(answer())) as host:
        pass
    failure = await fail_to_lock(make_api(host.url))
    told = [repr(failure), caplog.text]
    told += traceback.TracebackException.from_exception(failure, capture_locals=True).format()
    assert TOKEN not in "".join(told)


async def test_a_token_that_cannot_be_sent_is_not_shown() -> None:
    api = ManagemApi(
        base_url="http://127.0.0.1:9",
        token=lambda: f"{TOKEN}ü",
        timeout_seconds=1,
        concurrency=1,
        user_agent="lock-worker/0",
    )
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        await api.lock("c-1", idempotency_key="key-1", traceparent=TRACEPARENT)
    assert TOKEN not in repr(caught.value)
    assert caught.value.__context__ is None


async def test_no_error_shows_what_the_host_sent(make_api: MakeApi) -> None:
    for sent in (b"private words\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nprivate words\r\n"):

        async def talk(visit: Visit, sent: bytes = sent) -> None:
            await visit.request()
            await visit.send(sent)

        async with RawHost(talk) as host:
            failure = await fail_to_lock(make_api(host.url))
        shown = "".join(traceback.TracebackException.from_exception(failure, capture_locals=True).format())
        assert "private words" not in failure.detail + shown
