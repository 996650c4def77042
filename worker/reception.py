"""Where taken messages are received, on Celery's loop: held, and passed to the asyncio side at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.broker.keys import Keys
from worker.observe import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.moves import Rules, Taken
    from worker.executor import Executor
    from worker.flow.flow import Flow
    from worker.gate import Answer
    from worker.hands import Hands

#: Seconds without an answer of Redis, or of a take, after which this worker does not count as ready.
_SILENT_SECONDS = 5.0


class Reception:
    """Receives what was taken, and answers what a transport asks about taking.

    Args:
        read: reads messages.
        handler: knows how each end of a job is told.
        executor: carries decisions out.
        flow: this process's gates.
        task: Celery's task that a job is a run of.
        is_job_queue: whether a queue holds jobs (and not Celery's own remote control).
    """

    def __init__(self, *, executor: Executor, flow: Flow, is_job_queue: Callable[[str], bool]) -> None:
        self._executor = executor
        self._flow = flow
        self._took_at: float | None = None
        self._keys: dict[str, Keys] = {}
        self.is_job_queue = is_job_queue

    def __json__(self) -> str:
        """What ``inspect stats`` shows of it: kombu cannot answer with what it cannot turn into JSON."""
        return repr(self)

    @property
    def hands(self) -> Hands:
        """What this worker holds."""
        return self._executor.hands

    @property
    def rules(self) -> Rules:
        """The settings of the moves."""
        return self._executor.rules

    @property
    def worker(self) -> str:
        """This worker's name in Redis."""
        return self._executor.name

    def next_token(self) -> str:
        """A lease token for a take."""
        return self._executor.next_token()

    def waits(self, client_id: int | None) -> None:
        """Told whether a connection waits for jobs, and its id."""
        self._executor.waits(client_id)

    def keys(self, queue: str) -> Keys:
        """A queue's keys; who asks for them takes from it, so from then on it is looked after."""
        if queue not in self._keys:
            self._keys[queue] = Keys(queue)
            self._executor.look_after(queue)
        return self._keys[queue]

    def reasons_not_ready(self) -> list[str]:
        """Why this worker takes no jobs now, as stable words; none: it does, or works on as many as it may."""
        if self.hands.is_closed:
            return ["stopping"]
        reasons = [] if self._executor.clock.silent_seconds < _SILENT_SECONDS else ["redis_unreachable"]
        closed = [gate.reason for gate in self._flow.gates if not gate.is_closed]
        is_idle = self._took_at is None or time.monotonic() - self._took_at > _SILENT_SECONDS
        if is_idle and self.hands.wanted() and not closed:
            reasons.append("takes_no_jobs")
        return reasons + closed

    def refresh_gauges(self) -> None:
        """Bring the gauges of what this worker holds up to date."""
        metrics.IN_HAND.set(len(self.hands))
        metrics.CONCURRENCY.set(self.hands.limit)
        for gate in self._flow.gates:
            metrics.GATE_OPEN.labels(gate.reason).set(gate.is_closed)

    def ask(self) -> Answer:
        """How many jobs to take now, or how long to wait."""
        return self._flow.ask()

    def unused(self) -> None:
        """Told that a take found nothing."""
        self._flow.unused()

    def hold(self, taken: Taken) -> None:
        """Told what a take brought: from now on it is in our hands, and its leases are kept."""
        self._executor.clock.told(taken.server_ms)
        self._took_at = time.monotonic()
        for delivery in taken.jobs:
            self.hands.add(delivery)

    def receive(self, taken: Taken) -> None:
        """Begin with what a take brought."""
        if taken.jobs:
            self._executor.receive(taken.jobs)

    def hand_back(self, taken: Taken) -> None:
        """Give back what a take brought when nobody is there to run it."""
        self.hold(taken)
        self._executor.hand_back(taken.jobs)
