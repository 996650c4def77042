"""What a breaker answers before a take: how many jobs may be taken, or how long to wait and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Admit:
    """Up to so many jobs may be taken now; a probe takes one, and rather a new one than one that failed before."""

    jobs: int
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """None may be taken for so many seconds; ``reason`` is a stable word for logs and metrics."""

    seconds: float
    reason: str


GateAnswer: TypeAlias = Admit | Wait
