"""Holds calls back while the API does not accept the token, and decides what a 401 costs its job.

A token that the API never accepted is at fault with the first 401. Once it was accepted, a 401 may be the job's fault,
and only the answers after it tell: if other calls are answered before the job's next 401, the token is good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.flow_control.breaker import PROBES_GO_ON, Breaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.run import Run
    from worker.flow_control.fleet_counts import FleetCounts

_PROBE_SECONDS = 5.0
#: 401s in a row from different jobs that open the breaker.
_FAILURES = 3
#: One job refused with 401 again and again counts against the token once no call succeeded for so many seconds.
_SILENCE_SECONDS = 5.0
_ADVICE = (
    "The API does not accept the worker's token (it answers 401). Put a valid one into API_TOKEN_FILE, which is read "
    f"again without a restart, or into API_TOKEN and restart the worker. {PROBES_GO_ON}"
)


class TokenGate:
    """The breaker of the token.

    Args:
        counts: the calls of the fleet.
        is_new: returns True if the token has changed since the API refused it.
        clock: returns monotonic seconds.
        rng: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        counts: FleetCounts,
        *,
        is_new: Callable[[], bool],
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self.breaker = Breaker(
            "token_refused",
            answered_again="token_accepted",
            advice=_ADVICE,
            failures=_FAILURES,
            first_wait=_PROBE_SECONDS, max_wait=_PROBE_SECONDS,
            clock=clock, rng=rng,
        )  # fmt: skip
        self._counts = counts
        self._is_new = is_new
        self._clock = clock
        self._is_proven = False
        self._served_at = 0.0

    @property
    def is_doubted(self) -> bool:
        """True if calls are answered 401 just now, so that a second try with the same token is useless."""
        return self.breaker.is_open or self.breaker.evidence.failures > 0

    def probe_if_new(self) -> None:
        """Allow a probe at once if the token has changed since the API refused it."""
        if self.breaker.is_open and self._is_new():
            self.breaker.give_back_probe()

    def others_answered(self) -> None:
        """Record that the API answered calls of other workers, which most likely have the same token."""
        self._is_proven = True

    def answered(self, began: float, concurrency: int) -> None:
        """Record an answered call. Arguments as for :meth:`Breaker.succeeded`."""
        self._is_proven, self._served_at = True, self._clock()
        self.breaker.succeeded(began, concurrency)

    def refused(self, run: Run, began: float) -> int:
        """Record a 401; returns how many attempts it costs its job.

        It counts against its job only if other calls were answered since the job's previous 401.
        """
        progress = run.progress
        answered, refused_before = self._counts.answered, progress.token_refusals
        others_succeed = refused_before > 0 and progress.answered is not None and answered > progress.answered
        progress.answered = answered
        self._weigh(run, began, is_again=refused_before > 0 and not others_succeed)
        if self.breaker.is_open:
            self._is_proven = False
            progress.token_refusals = 0
            return 0
        if not others_succeed:
            progress.token_refusals += 1
            return 0
        progress.token_refusals = 1
        return refused_before

    def _weigh(self, run: Run, began: float, *, is_again: bool) -> None:
        """Weigh a 401 against the token. ``is_again``: no call was answered since the job's previous one."""
        if self.breaker.is_open:
            if run.is_probe:
                self.breaker.probe_failed(is_fresh=True)
        elif self._is_proven:
            is_fresh = not run.is_retry and not is_again
            is_lasting = is_again and self._clock() - self._served_at > _SILENCE_SECONDS
            self.breaker.failed(run.job, began, is_fresh=is_fresh, is_outright=is_lasting)
        else:
            self.breaker.open_now()
