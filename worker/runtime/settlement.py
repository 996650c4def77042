"""How a job left this worker: a small closed set, reported by the asyncio loop to Celery's thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Completed:
    """Its event is out. ``problem`` says why it failed; None: it did not."""

    outcome: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Delayed:
    """It was delayed for so many seconds."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Celery has nothing to report: a duplicate was dropped, or another worker has the job now."""


Settlement: TypeAlias = Completed | Delayed | Ignored
