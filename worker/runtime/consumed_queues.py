"""The queues that one worker takes jobs from, and which of them are worth a take now."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ConsumedQueues:
    """The queues that a worker takes jobs from, in the order in which the next takes try them.

    A queue is *empty* from a take that left no ready job on it until a message arrives or :meth:`look_again` is called.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._empty: set[str] = set()
        self._with_retries_left: set[str] = set()
        self._skipped_until: dict[str, float] = {}

    def __contains__(self, queue: str) -> bool:
        return queue in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, queue: str) -> None:
        """Take jobs from a queue from now on."""
        self._names.append(queue)

    def remove(self, queue: str) -> None:
        """Take no more jobs from a queue."""
        if queue in self._names:
            self._names.remove(queue)
        self._empty.discard(queue)
        self._skipped_until.pop(queue, None)

    def usable(self, now: float) -> list[str]:
        """Return the queues that are not skipped at this monotonic time."""
        return [queue for queue in self._names if now >= self._skipped_until.get(queue, now)]

    def first_to_take(self, queues: Sequence[str]) -> str | None:
        """Return the first of these queues that may have jobs; None: all are empty."""
        return next((queue for queue in queues if queue not in self._empty), None)

    def skip(self, queue: str, until: float) -> None:
        """Send no take for a queue before this monotonic time."""
        self._skipped_until[queue] = until

    def is_empty(self, queue: str) -> bool:
        """Return whether the last take left no ready job on a queue."""
        return queue in self._empty

    def mark_empty(self, queue: str) -> None:
        """Note that a take left no ready job on a queue."""
        self._empty.add(queue)

    def look_again(self, queue: str) -> None:
        """Let the next take try a queue, because jobs may have arrived on it."""
        self._empty.discard(queue)

    def mark_retries_left(self, queue: str) -> None:
        """Note that a take brought as many retries as it might: there may be more, on a list that has no wait."""
        self._with_retries_left.add(queue)

    def look_for_retries(self) -> None:
        """Let the next takes try the queues that may have retries left, because a job has left this worker."""
        if self._with_retries_left:
            self._empty -= self._with_retries_left
            self._with_retries_left.clear()

    def try_next(self, queue: str, *, is_first: bool) -> None:
        """Let takes try a queue before all others (``is_first``), or after them."""
        self._names.remove(queue)
        self._names.insert(0 if is_first else len(self._names), queue)
