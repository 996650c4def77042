"""One queue's ways out of this worker: jobs that end, wait or go back, many in one call, each with its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from worker.broker.moves import Delay
from worker.runtime.batcher import Batcher

if TYPE_CHECKING:
    import asyncio

    from tasks.decision import Decision, Later
    from worker.broker.moves import CompleteAnswer, Completion, Delivery, Duplicate, Moves


@dataclass(slots=True)
class Assignment:
    """A job on the asyncio side.

    Attributes:
        decision: how it ends or goes on, once that is known.
        task: what runs it, once it has begun.
        begun_at: when that was, on the monotonic clock.
        request: what Celery knows of it, where it was shown to Celery.
        is_at_celery: it is being shown, and goes on when it comes back.
        is_revoked: Celery said so.
        is_cancelled: it is to go back to Redis.
        deadline_ms: when it is too old, where that is to be noted.
    """

    delivery: Delivery
    decision: Decision | None = None
    task: asyncio.Task[None] | None = None
    begun_at: float = 0.0
    request: Any = None
    is_at_celery: bool = False
    is_revoked: bool = False
    is_cancelled: bool = False
    deadline_ms: int = 0


def _delay(item: Assignment, later: Later) -> Delay:
    delivery = item.delivery
    return Delay(
        delivery, later.delay, is_retry=later.is_retry, deadline_ms=item.deadline_ms, progress=delivery.progress
    )


class SettlementListener(Protocol):
    """Who is told what Redis answered."""

    def completed(self, item: Assignment, answer: CompleteAnswer | Duplicate) -> None:
        """SettlementListener that a completion was answered."""

    def delayed(self, item: Assignment, later: Later, *, is_ours: bool) -> None:
        """SettlementListener that a delay was answered."""

    def released(self, item: Assignment) -> None:
        """SettlementListener that a release was answered."""


class Settler:
    """One queue's moves, batched."""

    def __init__(self, told: SettlementListener, moves: Moves) -> None:
        self.moves = moves
        self.complete: Batcher[tuple[Assignment, Completion], CompleteAnswer | Duplicate] = Batcher(
            "complete",
            lambda batch: moves.complete([completion for _, completion in batch]),
            queue=moves.keys.queue,
            weigh=lambda item: len(item[1].event),
            settled=lambda item, answer: told.completed(item[0], answer),
        )
        self.delay: Batcher[tuple[Assignment, Later], bool] = Batcher(
            "delay",
            lambda batch: moves.delay([_delay(item, later) for item, later in batch]),
            queue=moves.keys.queue,
            weigh=lambda _: 0,
            settled=lambda item, is_ours: told.delayed(item[0], item[1], is_ours=is_ours),
        )
        self.release: Batcher[Assignment, bool] = Batcher(
            "release",
            lambda batch: moves.release([item.delivery for item in batch]),
            queue=moves.keys.queue,
            weigh=lambda _: 0,
            settled=lambda item, _: told.released(item),
        )
