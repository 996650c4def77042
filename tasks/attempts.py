"""The count of a job's attempts, which are the calls that count against ``MAX_ATTEMPTS``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class AttemptCounter(Protocol):
    """Where the attempts of a job are counted. In a worker that is its delivery, which goes back to Redis."""

    attempts: int


@dataclass(slots=True)
class Attempts:
    """The counter of a job that no queue delivered."""

    attempts: int = 0
