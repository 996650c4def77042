"""How a job left this worker: a small closed set, told by the asyncio side to Celery's."""

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
    """It was put aside for so many seconds."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """There is nothing to tell of it: a copy was dropped, or another worker has it now."""


Settlement: TypeAlias = Completed | Delayed | Ignored
