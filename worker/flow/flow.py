"""All of a process's own gates, as the two sides that use them see them.

Celery's loop asks before each take; the asyncio side tells how calls ended. The gates of the whole fleet (its pause and
its rate limit) stand in Redis and are asked by the take itself.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, assert_never

from tasks.verdict import Blame
from worker.flow.breaker import Breaker
from worker.gate import Admit, Answer, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.hands import Hands

logger = logging.getLogger(__name__)

#: Different jobs whose failures open the breaker; with fewer failing, the jobs are at fault.
JOBS_TO_OPEN = 3
_FIRST_PROBE_SECONDS = 1.0
_LONGEST_PROBE_SECONDS = 30.0
_TOKEN_PROBE_SECONDS = 5.0
_MEANWHILE = "Meanwhile jobs wait in Redis and lose no attempt; once a probe succeeds they go on by themselves."
_API_DOWN = (
    "Calls to the API fail one after the other, whatever the job; the problem of each stands in its job_delayed line. "
    f"If this lasts, see whether the API is up and whether API_URL is right. {_MEANWHILE}"
)
_REFUSED = (
    "The API does not accept the worker's token (it answers 401). Put a valid one into API_TOKEN_FILE, which is read "
    f"again without a restart, or into API_TOKEN and restart the worker. {_MEANWHILE}"
)


class Flow:
    """The gates of one process.

    Args:
        hands: what this worker holds.
        failures: failures in a row that open the breaker; 0 for no breaker.
        is_rate_limited: whether every call needs a permit, which only a take gives.
        pause: keeps the whole fleet from taking jobs for so many seconds.
        clock: monotonic seconds.
        chance: a number drawn evenly from 0 to 1.
    """

    def __init__(
        self,
        hands: Hands,
        *,
        failures: int,
        is_rate_limited: bool,
        pause: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.api = Breaker(
            "api_down",
            advice=_API_DOWN,
            failures=failures, jobs=JOBS_TO_OPEN,
            first_wait=_FIRST_PROBE_SECONDS, longest_wait=_LONGEST_PROBE_SECONDS,
            clock=clock, chance=chance,
        )  # fmt: skip
        self.token = Breaker(
            "token_refused",
            advice=_REFUSED,
            failures=1, jobs=1,
            first_wait=_TOKEN_PROBE_SECONDS, longest_wait=_TOKEN_PROBE_SECONDS,
            clock=clock, chance=chance,
        )  # fmt: skip
        self.gates = (self.token, self.api)
        self._hands = hands
        self._is_rate_limited = is_rate_limited
        self._pause_fleet = pause
        self._clock = clock
        self._paused_until = 0.0

    def ask(self) -> Answer:
        """How many jobs to take now."""
        jobs = self._hands.wanted()
        probed: list[Breaker] = []
        for gate in self.gates:
            answer = gate.ask(jobs, len(self._hands))
            if isinstance(answer, Wait) or answer.jobs == 0:
                for other in probed:
                    other.unused()
                return answer
            if answer.is_probe:
                probed.append(gate)
            jobs = answer.jobs
        return Admit(jobs, is_probe=bool(probed))

    def unused(self) -> None:
        """The take found no job."""
        for gate in self.gates:
            gate.unused()

    def holds_back(self) -> bool:
        """Whether a job must not wait for its next call in its slot, because the call has to ask first."""
        is_paused = self._clock() < self._paused_until
        return is_paused or self._is_rate_limited or not all(gate.is_closed for gate in self.gates)

    def pause(self, seconds: float) -> None:
        """Let nobody in the fleet take a job for so long."""
        now = self._clock()
        if now >= self._paused_until:  # said once, though all calls under way may be answered the same
            logger.warning("fleet_paused", extra={"seconds": round(seconds, 3)})
        self._paused_until = max(self._paused_until, now + seconds)
        self._pause_fleet(seconds)

    def answered(self) -> None:
        """A call was answered as it should."""
        for gate in self.gates:
            gate.succeeded(self._hands.limit)

    def failed(self, job: str, blame: Blame) -> bool:
        """A call for a job failed; True if that counts as an attempt of the job: a probe does not."""
        match blame:
            case Blame.TOKEN:
                self.token.failed(job)
                return False
            case Blame.API:
                return self.api.failed(job) and not self.token.is_open
            case Blame.LOAD:
                return not any(gate.is_open for gate in self.gates)
            case Blame.WORKER:
                return True
            case _:
                assert_never(blame)
