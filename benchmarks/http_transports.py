"""Which way of sending one small POST through httpx costs least, at the worker's concurrency?

    python -m benchmarks.http_transports            # about five minutes; or with fewer --slots, --rounds, --seconds

Every way does the same work: a POST with the worker's headers to a host that answers after 50 ms with the documented
conversation (about 1.2 kB), at most ten seconds for the whole, and the body read. The host is a bare asyncio protocol
in a process of its own. In each round all ways run in turn, so that a busy machine is busy for all of them; the median
of the rounds counts. CPU is user and system time of the client process alone.

Caveats: loopback, no TLS, a host that never fails. Requests per second are capped by slots / 50 ms. The CPU of one
request falls as more of them share a turn of the loop, so compare within one table only.
"""

# ruff: noqa: S101 - what it measures must be what it says

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import httpx
import yarl
from httpx_aiohttp import AiohttpTransport

from tasks.managem.client import ManagemApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

DELAY_SECONDS = 0.05
TIMEOUT_SECONDS = 10
TOKEN = "t" * 40
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PERSON = {
    "id": "user-1", "username": "someone", "reviews": 1, "rating": 5, "score": 1, "sales": 1, "purchases": 1,
    "joined": "2023-11-07T05:31:56Z", "avatar": "https://x/a", "cover": "https://x/c", "profile": "https://x/p",
}  # fmt: skip
CONVERSATION = json.dumps({
    "id": "conversation-1", "source": {"type": "ORDER", "id": "order-1"}, "userA": PERSON, "userB": PERSON,
    "locked": True, "createdAt": "2023-11-07T05:31:56Z", "updatedAt": "2023-11-07T05:31:56Z",
    "lastMessage": {
        "id": "message-1", "conversationId": "conversation-1", "sender": PERSON, "body": "x" * 200,
        "createdAt": "2023-11-07T05:31:56Z", "viewedAt": None, "attachments": [],
    },
}).encode()  # fmt: skip
ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Tue, 07 Nov 2023 05:31:56 GMT\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Server: bare\r\nX-Request-Id: 0af7651916cd43dd\r\nContent-Length: %d\r\n\r\n%b"
    % (len(CONVERSATION), CONVERSATION)
)

Call: TypeAlias = "Callable[[int], Awaitable[tuple[int, bytes]]]"


# --- the host ---------------------------------------------------------------------------------------------------------


class Host(asyncio.Protocol):
    """Answers each request after the delay; requests have no body, so that a blank line ends one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        *requests, self.received = (self.received + data).split(b"\r\n\r\n")
        for _ in requests:
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self.transport.write, ANSWER)


async def be_the_host() -> None:
    server = await asyncio.get_running_loop().create_server(Host, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever started this is gone


# --- the ways ---------------------------------------------------------------------------------------------------------


def headers(number: int) -> dict[str, str]:
    return {
        "Accept": "application/json",
        "User-Agent": "lock-worker/0",
        "Authorization": f"Bearer {TOKEN}",
        "Idempotency-Key": f"job-{number}",
        "traceparent": TRACEPARENT,
    }


def path(number: int) -> str:
    return f"/conversations/conversation-{number}/lock"


def limits(slots: int) -> httpx.Limits:
    return httpx.Limits(max_connections=slots, max_keepalive_connections=slots)


def in_time(call: Call) -> Call:
    async def timed(number: int) -> tuple[int, bytes]:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await call(number)

    return timed


async def through_transport(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> tuple[int, bytes]:
    response = await transport.handle_async_request(request)
    try:
        return response.status_code, await response.aread()
    finally:
        await response.aclose()


@asynccontextmanager
async def stock_httpx(url: str, slots: int) -> AsyncIterator[Call]:
    async with httpx.AsyncClient(base_url=url, limits=limits(slots), timeout=None, trust_env=False) as client:  # noqa: S113 - as all: around it

        async def call(number: int) -> tuple[int, bytes]:
            response = await client.post(path(number), headers=headers(number))
            return response.status_code, response.content

        yield in_time(call)


@asynccontextmanager
async def httpx_over_httpx_aiohttp(url: str, slots: int) -> AsyncIterator[Call]:
    transport = AiohttpTransport(limits=limits(slots))
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=None, trust_env=False) as client:  # noqa: S113 - as above

        async def call(number: int) -> tuple[int, bytes]:
            response = await client.post(path(number), headers=headers(number))
            return response.status_code, response.content

        yield in_time(call)


@asynccontextmanager
async def httpx_aiohttp_alone(url: str, slots: int) -> AsyncIterator[Call]:
    transport = AiohttpTransport(limits=limits(slots))

    async def call(number: int) -> tuple[int, bytes]:
        request = httpx.Request("POST", url + path(number), headers=headers(number))
        return await through_transport(transport, request)

    yield in_time(call)
    await transport.aclose()


@asynccontextmanager
async def one_httpx_transport_a_slot(url: str, slots: int) -> AsyncIterator[Call]:
    idle = [httpx.AsyncHTTPTransport(limits=limits(1)) for _ in range(slots)]

    async def call(number: int) -> tuple[int, bytes]:
        transport = idle.pop()
        try:
            request = httpx.Request("POST", url + path(number), headers=headers(number))
            return await through_transport(transport, request)
        finally:
            idle.append(transport)

    yield in_time(call)
    for transport in idle:
        await transport.aclose()


class SessionTransport(httpx.AsyncBaseTransport):
    """httpx over aiohttp's public client, with what httpx-aiohttp gets wrong set right as far as that client allows."""

    def __init__(self, url: str, slots: int) -> None:
        self.url = yarl.URL(url)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=slots),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.session.request(
            request.method,
            self.url.with_path(request.extensions["target"].decode(), encoded=True),
            headers=[(name.decode(), value.decode()) for name, value in request.headers.raw],
            allow_redirects=False,
        )
        async with response:
            body = await response.content.read()
        return httpx.Response(response.status, headers=response.raw_headers, stream=httpx.ByteStream(body))


@asynccontextmanager
async def own_transport_over_client_session(url: str, slots: int) -> AsyncIterator[Call]:
    transport = SessionTransport(url, slots)
    origin = httpx.URL(url)
    nothing = httpx.ByteStream(b"")

    async def call(number: int) -> tuple[int, bytes]:
        request = httpx.Request(
            "POST",
            origin,
            headers={"Host": origin.netloc.decode(), "Content-Length": "0", **headers(number)},
            stream=nothing,
            extensions={"target": path(number).encode()},
        )
        return await through_transport(transport, request)

    yield in_time(call)
    await transport.session.close()


@asynccontextmanager
async def managem_api(url: str, slots: int) -> AsyncIterator[Call]:
    api = ManagemApi(
        base_url=url,
        token=lambda: TOKEN,
        timeout_seconds=TIMEOUT_SECONDS,
        concurrency=slots,
        user_agent="lock-worker/0",
    )

    async def call(number: int) -> tuple[int, bytes]:
        answer = await api.lock(f"conversation-{number}", idempotency_key=f"job-{number}", traceparent=TRACEPARENT)
        return answer.status, answer.body

    yield call
    await api.aclose()


class Bare(asyncio.Protocol):
    """No client at all: it knows where this one answer keeps its length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""
        self.waiter: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if separator and len(body) == int(head[head.index(b"Content-Length: ") + 16 :]):
            self.received = b""
            self.waiter.set_result((int(head[9:12]), body))


@asynccontextmanager
async def bare_sockets(url: str, slots: int) -> AsyncIterator[Call]:
    del slots
    origin = httpx.URL(url)
    loop = asyncio.get_running_loop()
    idle: list[Bare] = []

    async def call(number: int) -> tuple[int, bytes]:
        if idle:
            bare = idle.pop()
        else:
            _, bare = await loop.create_connection(Bare, origin.host, origin.port or 80)
        bare.waiter = loop.create_future()
        fields = {"Host": origin.netloc.decode(), "Content-Length": "0", **headers(number)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        bare.transport.write(f"POST {path(number)} HTTP/1.1\r\n{lines}\r\n".encode())
        got = await bare.waiter
        idle.append(bare)
        return got

    yield in_time(call)
    for bare in idle:
        bare.transport.close()


WAYS: dict[str, Callable[[str, int], AbstractAsyncContextManager[Call]]] = {
    "httpx.AsyncClient": stock_httpx,
    "httpx.AsyncClient over httpx-aiohttp": httpx_over_httpx_aiohttp,
    "httpx-aiohttp's transport, prepared request": httpx_aiohttp_alone,
    "one single-connection httpx transport a slot": one_httpx_transport_a_slot,
    "own transport over aiohttp.ClientSession": own_transport_over_client_session,
    "ManagemApi (own transport over aiohttp's connector)": managem_api,
    "bare sockets, no HTTP client (the floor)": bare_sockets,
}


# --- the measurement --------------------------------------------------------------------------------------------------


async def measure(way: str, url: str, slots: int, seconds: float) -> tuple[float, float]:
    """Return requests per second and microseconds of CPU a request."""
    async with WAYS[way](url, slots) as call:

        async def slot(first: int, end: float) -> int:
            number = first
            while time.perf_counter() < end:
                status, body = await call(number)
                assert (status, len(body)) == (200, len(CONVERSATION))
                number += slots
            return (number - first) // slots

        async def run(seconds: float) -> int:
            end = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(slot(first, end) for first in range(slots))))

        await run(0.5)  # connections are opened, and the interpreter has specialised the code
        gc.collect()
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        requests = await run(seconds)
        after, ended = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return requests / (ended - began), cpu / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[100, 200, 256], help="requests in flight at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each way runs in each round")
    parser.add_argument("--host", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(be_the_host())
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("httpx", "httpx-aiohttp", "aiohttp"))
    print(f"Python {platform.python_version()}, {packages}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http_transports", "--host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        url = f"http://127.0.0.1:{int(host.stdout.readline())}"
        for slots in options.slots:
            found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way, results in found.items():
                    results.append(asyncio.run(measure(way, url, slots, options.seconds)))
            print(f"\n{slots} slots{'':44} requests/s   CPU us/request   (rounds)")
            for way, results in found.items():
                rates, costs = zip(*results, strict=True)
                each = ", ".join(f"{cost:.0f}" for cost in costs)
                print(f"{way:53} {statistics.median(rates):9.0f} {statistics.median(costs):16.0f}   ({each})")
        host.stdin.close()


if __name__ == "__main__":
    main()
