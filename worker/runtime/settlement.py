"""How a job left this worker: a small closed set, reported by the asyncio loop to Celery's thread, and traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Completed:
    """Its event is out. ``problem`` says why it failed, and ``error`` is the label of that; None: it did not."""

    outcome: str
    problem: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Delayed:
    """It was delayed for so many seconds. ``is_retry``: because a call for it failed."""

    seconds: float
    reason: str
    is_retry: bool


@dataclass(frozen=True, slots=True)
class Ignored:
    """Celery has nothing to report: a duplicate was dropped, or another worker has the job now."""

    why: Literal["duplicate", "released", "lease_lost", "settled_elsewhere"]


@dataclass(frozen=True, slots=True)
class SetAside:
    """It was set aside until an operator releases its hold."""


Settlement: TypeAlias = Completed | Delayed | SetAside | Ignored
