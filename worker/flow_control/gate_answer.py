"""What a breaker answers before a take: how many jobs may be taken now, or how long to wait and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Admit:
    """Up to ``jobs`` jobs may be taken now. A probe takes one, and prefers a new job to one that failed before."""

    jobs: int
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """No job may be taken for so many seconds; ``reason`` is a stable label for logs and metrics."""

    seconds: float
    reason: str


GateAnswer: TypeAlias = Admit | Wait
