"""How often something was counted in the last minutes, from the samples of the queue's totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.broker.state import Sample, State


def counted(queue: State, total: str, seconds: float) -> int:
    """Return how often something was counted in about the last so many seconds, or since the first sample.

    Args:
        queue: the state of the queue.
        total: one of its totals.
        seconds: the time; up to five minutes.
    """
    before = _sample(queue, seconds)
    return 0 if before is None else max(0, queue.totals.get(total, 0) - before.totals.get(total, 0))


def per_second(queue: State, total: str, seconds: float) -> float | None:
    """Return the same for each second; None: there is no sample yet."""
    before = _sample(queue, seconds)
    if before is None or before.at_ms >= queue.server_ms:
        return None
    return counted(queue, total, seconds) * 1000 / (queue.server_ms - before.at_ms)


def _sample(queue: State, seconds: float) -> Sample | None:
    """Return the newest sample that is so old, or the first one."""
    until_ms = queue.server_ms - seconds * 1000
    old = [sample for sample in queue.samples if sample.at_ms <= until_ms]
    return old[-1] if old else next(iter(queue.samples), None)
