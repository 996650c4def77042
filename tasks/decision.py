"""The decisions that a run of a job can end in: a small closed set of frozen types.

The worker carries a decision out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tasks.event import Event


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is finished: publish its event and delete the job, in one step."""

    event: Event


@dataclass(frozen=True, slots=True)
class Later:
    """The job has to wait ``delay`` seconds; ``reason`` is a stable label for logs and metrics.

    ``is_retry``: a call for it failed, so it comes back beside new jobs and not before them.
    """

    delay: float
    reason: str
    is_retry: bool = False


Decision: TypeAlias = Finished | Later
