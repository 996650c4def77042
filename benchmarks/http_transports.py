"""What one small POST costs the client: httpx as its documentation has it, the worker's client, and no client at all.

    python -m benchmarks.http_transports            # about two minutes; or with fewer --slots, --rounds, --seconds

Each sends a POST with the worker's headers to a host that answers after 50 ms with the documented conversation, waits
ten seconds at most for the whole answer, and reads the body. The host is a bare asyncio protocol in a process of its
own. In each round all of them run in turn, so that a busy machine is busy for all; the median of the rounds counts. CPU
is user and system time of the client's process alone.

Caveats: loopback, no TLS, a host that never fails. Slots / 50 ms are the most requests a second that there can be. The
CPU of one request falls as more of them share a turn of the loop, so compare within one table only.
"""

# ruff: noqa: S101 - what it measures must be what it says

from __future__ import annotations

import argparse
import asyncio
import gc
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

import httpx

from sandbox.conversation import as_json, conversation
from tasks.managem.client import ManagemApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

DELAY_SECONDS = 0.05
TIMEOUT_SECONDS = 10
WARM_UP_SECONDS = 0.5  # connections are opened, and the interpreter specialises the code
TOKEN = "t" * 40
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = as_json(conversation("conversation-1"))
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

Call: TypeAlias = "Callable[[int], Awaitable[tuple[int, bytes]]]"


class Connection(asyncio.Protocol):
    """One end of a connection, and what it has received and not used yet."""

    received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


class Host(Connection):
    """Answers each request after the delay; requests have no body, so that a blank line ends one."""

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        *requests, self.received = (self.received + data).split(b"\r\n\r\n")
        for _ in requests:
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self.transport.write, ANSWER)


async def be_the_host() -> None:
    """Print the port, and answer until whoever started this is gone."""
    server = await asyncio.get_running_loop().create_server(Host, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


def headers(number: int) -> dict[str, str]:
    """What the worker sends, but for what every client adds by itself."""
    return {
        "Accept": "application/json",
        "User-Agent": "lock-worker/0",
        "Authorization": f"Bearer {TOKEN}",
        "Idempotency-Key": f"job-{number}",
        "traceparent": TRACEPARENT,
    }


def path(number: int) -> str:
    """The target of a request."""
    return f"/conversations/conversation-{number}/lock"


@asynccontextmanager
async def tuned_httpx(url: str, slots: int) -> AsyncIterator[Call]:
    """Httpx's own transport, one a slot: its pool looks at all of its connections for every request."""
    idle = [httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1)) for _ in range(slots)]

    async def call(number: int) -> tuple[int, bytes]:
        transport = idle.pop()
        request = httpx.Request("POST", url + path(number), headers=headers(number))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            response = await transport.handle_async_request(request)
            body = await response.aread()
        await response.aclose()
        idle.append(transport)
        return response.status_code, body

    yield call
    for transport in idle:
        await transport.aclose()


@asynccontextmanager
async def managem_api(url: str, slots: int) -> AsyncIterator[Call]:
    """The worker's client."""
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


class Bare(Connection):
    """No client: it knows where this one answer keeps its length."""

    waiter: asyncio.Future[tuple[int, bytes]]

    def data_received(self, data: bytes) -> None:
        """Hand over an answer that is complete."""
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if separator and len(body) == int(head[head.index(b"Content-Length: ") + 16 :]):
            self.received = b""
            self.waiter.set_result((int(head[9:12]), body))


@asynccontextmanager
async def bare_sockets(url: str, slots: int) -> AsyncIterator[Call]:
    """The floor."""
    del slots
    origin = httpx.URL(url)
    loop = asyncio.get_running_loop()
    idle: list[Bare] = []

    async def call(number: int) -> tuple[int, bytes]:
        bare = idle.pop() if idle else (await loop.create_connection(Bare, origin.host, origin.port or 80))[1]
        bare.waiter = loop.create_future()
        fields = {"Host": origin.netloc.decode(), "Content-Length": "0", **headers(number)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        bare.transport.write(f"POST {path(number)} HTTP/1.1\r\n{lines}\r\n".encode())
        async with asyncio.timeout(TIMEOUT_SECONDS):
            got = await bare.waiter
        idle.append(bare)
        return got

    yield call
    for bare in idle:
        bare.transport.close()


WAYS: dict[str, Callable[[str, int], AbstractAsyncContextManager[Call]]] = {
    "httpx.AsyncHTTPTransport, one a slot": tuned_httpx,
    "ManagemApi, the worker's": managem_api,
    "bare sockets, the floor": bare_sockets,
}


async def measure(way: str, url: str, slots: int, seconds: float) -> tuple[float, float]:
    """Return requests per second and microseconds of CPU a request."""
    async with WAYS[way](url, slots) as call:

        async def slot(first: int, end: float) -> int:
            number = first
            while time.perf_counter() < end:
                assert await call(number) == (200, BODY)
                number += slots
            return (number - first) // slots

        async def run(seconds: float) -> int:
            end = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(slot(first, end) for first in range(slots))))

        await run(WARM_UP_SECONDS)
        gc.collect()
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        requests = await run(seconds)
        after, ended = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return requests / (ended - began), cpu / requests * 1e6


def main() -> None:
    """Measure, and print a table for each number of slots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[100, 200, 256], help="requests in flight at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each way runs in each round")
    parser.add_argument("--host", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host:
        asyncio.run(be_the_host())
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("httpx", "aiohttp"))
    sys.stdout.write(f"Python {platform.python_version()}, {versions}, {os.cpu_count()} CPUs\n")
    command = [sys.executable, "-m", "benchmarks.http_transports", "--host"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        url = f"http://127.0.0.1:{int(host.stdout.readline())}"
        for slots in options.slots:
            rounds = [
                {way: asyncio.run(measure(way, url, slots, options.seconds)) for way in WAYS}
                for _ in range(options.rounds)
            ]
            sys.stdout.write(f"\n{f'{slots} slots':37} requests/s   CPU us/request\n")
            for way in WAYS:
                rates, costs = zip(*(one[way] for one in rounds), strict=True)
                sys.stdout.write(f"{way:37} {statistics.median(rates):10.0f} {statistics.median(costs):16.0f}\n")
        host.stdin.close()


if __name__ == "__main__":
    main()
