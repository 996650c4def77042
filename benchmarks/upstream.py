"""The API for the benchmark: as cheap as can be, in a process of its own, so that it is not the limit.

It answers ``POST /conversations/<id>/lock`` with the documented conversation of that id (about 1.2 kB), on one port
for each median delay. The delay of a conversation follows from its id and the seed alone (`delay_seconds`), so every
row meets the same delays for the same jobs, in whatever order it runs them. A request without a bearer token or an
``Idempotency-Key`` is answered 400: who leaves one out is found out.

    python -m benchmarks.upstream --seed 7 0 50 200

prints the ports as a JSON object by delay in ms, and runs until its standard input is closed. ``GET /`` answers the
number of locks so far. uvloop is used where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import re
import sys
import zlib
from functools import lru_cache, partial
from typing import cast

from sandbox.conversation import as_json, conversation

#: The spread of the delays: the logarithm of a delay is normal with this deviation. One in a hundred takes 1.6 times
#: the median or more.
SIGMA = 0.2
_DELAYS = 4096
_REQUEST = re.compile(rb"POST /conversations/([A-Za-z0-9-]+)/lock HTTP/1\.1\r\n")
_MARK = "conversation-00000000"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Tue, 07 Nov 2023 05:31:56 GMT\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Server: bare\r\nX-Request-Id: 0af7651916cd43dd\r\nContent-Length: %d\r\n\r\n"
)
_BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
_TEMPLATE = as_json(conversation(_MARK)).split(_MARK.encode())
_TEMPLATE_LENGTH = sum(len(part) for part in _TEMPLATE)


@lru_cache(maxsize=8)
def _factors(seed: int) -> tuple[float, ...]:
    chance = random.Random(seed)
    return tuple(chance.lognormvariate(0.0, SIGMA) for _ in range(_DELAYS))


def delay_seconds(conversation_id: str, median_ms: int, seed: int) -> float:
    """How long the answer for a conversation takes; nothing at all where the median is 0."""
    return median_ms / 1000 * _factors(seed)[zlib.crc32(conversation_id.encode()) % _DELAYS]


def answer(conversation_id: bytes) -> bytes:
    """The whole response for a conversation."""
    length = _TEMPLATE_LENGTH + (len(_TEMPLATE) - 1) * len(conversation_id)
    return _HEAD % length + conversation_id.join(_TEMPLATE)


class Api(asyncio.Protocol):
    """One connection. Requests have no body, so that a blank line ends one."""

    locks = 0

    def __init__(self, delays: tuple[float, ...]) -> None:
        self._delays = delays
        self._later = asyncio.get_running_loop().call_later
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        self._write = self._transport.write

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        for request in requests:
            match = _REQUEST.match(request)
            if match is None:
                self._write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(Api.locks)), Api.locks))
            elif b"uthorization: Bearer " not in request or b"dempotency-Key: job-" not in request:
                self._write(_BAD)
            else:
                Api.locks += 1
                identity = match[1]
                delay = self._delays[zlib.crc32(identity) % _DELAYS]
                if delay:
                    self._later(delay, self._answer_late, answer(identity))
                else:
                    self._write(answer(identity))

    def _answer_late(self, response: bytes) -> None:
        if not self._transport.is_closing():  # the worker may have been ended meanwhile
            self._write(response)


async def _serve(medians_ms: list[int], seed: int) -> None:
    loop = asyncio.get_running_loop()
    ports: dict[int, int] = {}
    servers: list[asyncio.Server] = []
    for median_ms in medians_ms:
        delays = tuple(median_ms / 1000 * factor for factor in _factors(seed))
        server = await loop.create_server(partial(Api, delays), "127.0.0.1", 0, backlog=4096)
        servers.append(server)
        ports[median_ms] = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    gc.freeze()
    await asyncio.to_thread(sys.stdin.read)  # until whoever started this is gone
    for server in servers:
        server.close()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("medians_ms", type=int, nargs="+")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            import uvloop  # noqa: PLC0415 - where it is installed
        except ImportError:
            asyncio.run(_serve(options.medians_ms, options.seed))
        else:
            uvloop.run(_serve(options.medians_ms, options.seed))


if __name__ == "__main__":
    main()
