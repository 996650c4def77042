"""The sandbox API for a round: in a thread, can be taken away and given back, and tells when it was late."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from sandbox.api import SandboxApi
from sandbox.started import Started
from tests.chaos.history import Call, Span

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

_LOG_LIMIT = 10_000_000
_BEAT_SECONDS = 0.02
_LATE_SECONDS = 0.03


class ApiHost(Started):
    """The API, from ``with`` on.

    Attributes:
        late: when its event loop was late: calls of that time were seen after it.
        away: when it refused connections.
    """

    def __init__(self, token: str) -> None:
        self.api = SandboxApi(token=token, log_limit=_LOG_LIMIT)
        self.late: list[Span] = []
        self.away: list[Span] = []
        self._gone_at = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox-api")
        self._heart: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the thread, and accept connections."""
        self._thread.start()
        self._do(self._begin())

    def close(self) -> None:
        """End both."""
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def go_away(self) -> None:
        """Cut all connections and refuse new ones."""
        if not self._gone_at:
            self._gone_at = time.time()
            self._do(self.api.stop())

    def come_back(self) -> None:
        """Accept connections again."""
        if self._gone_at:
            self._do(self.api.start())
            self.away.append(Span(self._gone_at, time.time()))
            self._gone_at = 0.0

    def calls(self) -> list[Call]:
        """All calls so far."""
        return [
            Call(
                conversation=call.conversation_id or "",
                key=call.idempotency_key,
                at=call.at_wall,
                ended=None if call.ended_monotonic is None else call.at_wall + call.ended_monotonic - call.at_monotonic,
                answer=call.answer,
            )
            for call in self.api.calls()
        ]

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _begin(self) -> None:
        await self.api.start()
        self._heart = asyncio.create_task(self._beat())

    async def _finish(self) -> None:
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
        await self.api.stop()

    async def _beat(self) -> None:
        while True:
            slept_at = time.time()
            await asyncio.sleep(_BEAT_SECONDS)
            woke_at = time.time()
            if woke_at - slept_at - _BEAT_SECONDS > _LATE_SECONDS:
                self.late.append(Span(slept_at, woke_at))
