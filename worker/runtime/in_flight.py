"""What this worker holds: the jobs in its hands, and how many more it can take.

A job is held from the take that brought it until Redis has said that it is over. The asyncio side does both; Celery's
thread sets the limit and looks on, which is why each operation is one step of a dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.broker.moves import Delivery

#: Jobs at once at most, the same bound as that of CONCURRENCY: beyond it the loop has no time to keep the leases.
MAX_SLOTS = 10_000


class InFlight:
    """The jobs this worker holds, from the take that brought them to the answer that they are settled."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.is_closed = False
        self.is_draining = False
        self._has_suspect = False
        self._held: dict[str, Delivery] = {}
        #: How many of them failed before.
        self.retries = 0

    def __len__(self) -> int:
        return len(self._held)

    def deliveries(self) -> list[Delivery]:
        """The jobs held at this moment."""
        return list(self._held.values())

    def add(self, delivery: Delivery) -> None:
        """Hold a job."""
        self._held[delivery.lease_token + delivery.ref] = delivery
        self.retries += delivery.is_retry
        if delivery.runs_alone:
            self._has_suspect = True

    def drop(self, delivery: Delivery) -> None:
        """Hold a job no longer."""
        if self._held.pop(delivery.lease_token + delivery.ref, None) is not None:
            self.retries -= delivery.is_retry
        if delivery.runs_alone:
            self._has_suspect = False

    def free_slots(self) -> int:
        """How many jobs to take now.

        None beside a suspect, which runs alone, and none while the hands are being emptied for one.
        """
        if self.is_closed:
            return 0
        held = len(self._held)
        if held == 0:
            self.is_draining = False
        elif self.is_draining or self._has_suspect:
            return 0
        return max(0, self.limit - held)
