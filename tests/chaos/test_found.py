"""What chaos found in the worker, as small as it can be made."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.system.parts import flow_of
from worker.broker.keys import Keys
from worker.runtime.batcher import retry_forever
from worker.runtime.clock import ServerClock
from worker.runtime.in_flight import InFlight
from worker.runtime.maintenance import Maintenance

if TYPE_CHECKING:
    from worker.broker.records import Delivery


class LosingMoves:
    """Moves over a client that loses a cancellation, as redis-py does on Python 3.11 in the moment of a send."""

    rules = SimpleNamespace(lease_ms=60_000)
    keys = Keys("moderation.lock")

    def __init__(self) -> None:
        self.is_sending = asyncio.Event()

    async def lose(self, *_: Any, **__: Any) -> Any:
        self.is_sending.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RedisConnectionError from None

    promote = recover = renew = lose


def maintenance(moves: Any) -> Maintenance:
    in_flight = InFlight(1)
    delivery: Delivery = SimpleNamespace(  # type: ignore[assignment]
        token="t", ref="r", queue="moderation.lock", is_alone=False, is_retry=False
    )
    in_flight.add(delivery)
    return Maintenance(
        moves, in_flight, ServerClock(),
        next_lease_token=str, fleet=flow_of(in_flight), on_ready=lambda: None, on_recovered=lambda _: None,
        on_poisoned=lambda _: None, on_expired=lambda _: None, not_heard=lambda *_: None,
    )  # fmt: skip


@pytest.mark.parametrize("work", ["renew_leases", "run", "retry_forever"])
async def test_work_ends_when_it_is_cancelled_even_if_redis_py_loses_the_cancellation(work: str) -> None:
    """A worker in 50 did not end after SIGTERM: it waited for its upkeep, which had not heard that it was over."""
    moves = LosingMoves()
    doing = retry_forever("complete", moves.lose) if work == "retry_forever" else getattr(maintenance(moves), work)()
    task = asyncio.create_task(doing)
    await moves.is_sending.wait()

    task.cancel()

    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
