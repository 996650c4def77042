"""The host answers, but in no HTTP that could be used."""

from __future__ import annotations

import pytest

from tests.managem.client import MakeApi, fail_to_lock, watch_heads
from tests.managem.raw_host import RawHost, Visit, answering

GARBAGE = {
    "no HTTP at all": b"hello\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)),
    "no version": b"HTTP 200 OK\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of zero": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status beyond all": b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length beyond all": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "two lengths in one": b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
    "a length of nothing": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "line breaks alone": b"\r\n" * 100_000,
    "a zero byte in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a huge header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a huge name of a header": b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000 + b": x\r\nContent-Length: 0\r\n\r\n",
    "a huge reason": b"HTTP/1.1 200 " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 20_000 + b"Content-Length: 0\r\n\r\n",
    "a large head in front of nothing": b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000,
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_an_answer_that_is_no_http_within_the_limits(make_api: MakeApi, what: str) -> None:
    async with RawHost(answering(GARBAGE[what])) as host:
        failure = await fail_to_lock(make_api(host.url))
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert (failure.kind, failure.status) == ("unusable", None)


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\n12345678\r\n", b"-1\r\n", b"f" * 20 + b"\r\n"])
async def test_chunks_that_are_none_are_noticed_at_once(make_api: MakeApi, rest: bytes) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
        await head_taken.wait()
        await visit.send(rest)
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        api = make_api(host.url)
        head_taken = watch_heads(api)
        failure = await fail_to_lock(api)
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert (failure.kind, failure.status) == ("unusable", 200)


async def test_a_host_that_speaks_first(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.send(b"220 mail.example ESMTP\r\n")
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        assert (await fail_to_lock(make_api(host.url))).kind == "unusable"


@pytest.mark.parametrize("what", ["a huge header", "too many headers", "headers without end", "a huge reason"])
async def test_a_head_beyond_all_measure_is_reported_as_such(make_api: MakeApi, what: str) -> None:
    async with RawHost(answering(GARBAGE[what])) as host:
        failure = await fail_to_lock(make_api(host.url))
    assert failure.detail == "The head of the host's answer has over 65,536 bytes."
