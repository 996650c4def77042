"""The job, the same in every queue: call, check the answer as the worker does, make its event, publish it.

The code that judges an answer, looks for drift and builds the event is the project's own (``tasks``), so that no row
is faster by doing less. It runs in each queue's environment, and is told by environment variables: ``REDIS_URL``,
``API_URL``, ``API_TOKEN``, ``BENCH_CLIENT`` (``httpx`` or ``tuned``), ``BENCH_POOL`` and ``BENCH_CONCURRENCY``.

The event goes to stream and channel in one round trip, without MULTI and EXEC: that is the cheapest way there is.
A queue that acknowledges a job does so in a step of its own, before or after.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import httpx
import redis
from redis.asyncio import Redis as AsyncRedis

from tasks import event
from tasks.managem.client import ManagemApi, Response
from tasks.managem.conversation import drift
from tasks.outcome import Locked
from tasks.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STREAM = "moderation.results"
STREAM_MAXLEN = 100_000
TIMEOUT_SECONDS = 10.0
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USER_AGENT = "lock-worker/0"

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
API_URL = os.environ.get("API_URL", "http://127.0.0.1:8080")
API_TOKEN = os.environ.get("API_TOKEN", "")
CLIENT = os.environ.get("BENCH_CLIENT", "httpx")
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "200"))
#: Connections of stock httpx's pool, which becomes slower with each one that it has (README.md).
POOL = int(os.environ.get("BENCH_POOL", "20"))

#: redis-py opens 100 connections at most unless told otherwise, and more jobs than that run at once.
REDIS_CONNECTIONS = 500
REDIS_URL_WITH_ROOM = f"{REDIS_URL}?max_connections={REDIS_CONNECTIONS}"

#: The API speaks plain HTTP; loading all certificate authorities would cost each process memory for nothing.
_NO_TLS = False


class UnexpectedAnswerError(Exception):
    """The benchmark's API never fails, so this is a fault of the benchmark."""


def headers(job_id: str) -> dict[str, str]:
    """What every call sends."""
    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
        "Authorization": f"Bearer {API_TOKEN}",
        "Idempotency-Key": job_id,
        "traceparent": TRACEPARENT,
    }


def path(conversation_id: str) -> str:
    """The endpoint."""
    return f"/conversations/{conversation_id}/lock"


def result(answer: Response, job_id: str, conversation_id: str, received_at: datetime) -> bytes:
    """Check an answer and make the event of it.

    Raises:
        UnexpectedAnswerError: the conversation is not locked, or the answer is not the documented one.
    """
    verdict = judge(answer, conversation_id, now=lambda: received_at)
    if not isinstance(verdict, Locked) or drift(verdict.conversation):
        raise UnexpectedAnswerError(str(verdict))
    facts = event.Facts(
        id=job_id,
        subject=conversation_id,
        received_fields={"conversation_id": conversation_id},
        replay_of=None,
        received_at=received_at,
        finished_at=datetime.now(UTC),
        attempts=1,
    )
    return event.build(facts, verdict).body


class AsyncJob:
    """The job on asyncio: one HTTP client and one Redis client for all that run at once."""

    def __init__(self) -> None:
        self._redis = AsyncRedis.from_url(REDIS_URL, max_connections=REDIS_CONNECTIONS)
        self._call = _tuned() if CLIENT == "tuned" else _stock()

    async def __call__(self, job_id: str, conversation_id: str) -> None:
        """Run one job."""
        received_at = datetime.now(UTC)
        answer = await self._call(job_id, conversation_id)
        body = result(answer, job_id, conversation_id, received_at)
        async with self._redis.pipeline(transaction=False) as together:
            together.xadd(STREAM, {"event": body}, maxlen=STREAM_MAXLEN, approximate=True)
            together.publish(STREAM, body)
            await together.execute()


def _tuned() -> Callable[[str, str], Awaitable[Response]]:
    api = ManagemApi(
        base_url=API_URL,
        token=lambda: API_TOKEN,
        timeout_seconds=TIMEOUT_SECONDS,
        concurrency=CONCURRENCY,
        user_agent=USER_AGENT,
    )

    async def call(job_id: str, conversation_id: str) -> Response:
        return await api.lock(conversation_id, idempotency_key=job_id, traceparent=TRACEPARENT)

    return call


def _stock() -> Callable[[str, str], Awaitable[Response]]:
    client = httpx.AsyncClient(
        base_url=API_URL,
        limits=httpx.Limits(max_connections=POOL, max_keepalive_connections=POOL),
        timeout=httpx.Timeout(TIMEOUT_SECONDS, pool=None),
        trust_env=False,
        verify=_NO_TLS,
    )

    async def call(job_id: str, conversation_id: str) -> Response:
        response = await client.post(path(conversation_id), headers=headers(job_id))
        return Response(response.status_code, response.content, response.headers.get("retry-after"))

    return call


class SyncJob:
    """The job for threads, greenlets and processes.

    Each job takes an idle HTTP client, the one used last, or makes one: so no two threads share a connection pool, and
    connections are kept. Greenlets are often new for each job, so that a client for each would not be kept.
    """

    def __init__(self) -> None:
        self._idle: list[httpx.Client] = []
        self._redis = redis.Redis.from_url(REDIS_URL, max_connections=REDIS_CONNECTIONS)

    def __call__(self, job_id: str, conversation_id: str) -> None:
        """Run one job."""
        received_at = datetime.now(UTC)
        try:
            client = self._idle.pop()
        except IndexError:
            client = httpx.Client(base_url=API_URL, timeout=TIMEOUT_SECONDS, trust_env=False, verify=_NO_TLS)
        response = client.post(path(conversation_id), headers=headers(job_id))
        self._idle.append(client)
        answer = Response(response.status_code, response.content, response.headers.get("retry-after"))
        body = result(answer, job_id, conversation_id, received_at)
        with self._redis.pipeline(transaction=False) as together:
            together.xadd(STREAM, {"event": body}, maxlen=STREAM_MAXLEN, approximate=True)
            together.publish(STREAM, body)
            together.execute()


@cache
def async_job() -> AsyncJob:
    """The job of this process, made in its first use because its clients belong to the loop that runs."""
    return AsyncJob()


@cache
def sync_job() -> SyncJob:
    """The job of this process, made in its first use: after a fork, and after greenlets have taken over the sockets."""
    return SyncJob()
