"""The breakers of a pod together: what they admit, and the last failed call, which operators read in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from worker.flow_control.gate_answer import Admit, GateAnswer, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.outcome import Problem
    from worker.flow_control.breaker import Breaker

#: A slow start also goes on with time, so ask again soon.
_SLOW_START_SECONDS = 0.1


class Failure(NamedTuple):
    """A failed call: when it ended, in monotonic seconds, and why it failed."""

    at: float
    problem: Problem


class PodBreakers:
    """The breakers of a pod, in the order in which they are asked. ``clock`` returns monotonic seconds."""

    def __init__(self, breakers: tuple[Breaker, ...], clock: Callable[[], float]) -> None:
        self.all = breakers
        #: The last call that failed or was refused for load.
        self.last_failure: Failure | None = None
        self._clock = clock

    @property
    def is_any_open(self) -> bool:
        """True while one of them lets only probes pass."""
        return any(breaker.is_open for breaker in self.all)

    @property
    def is_any_in_doubt(self) -> bool:
        """True from the opening of one of them until it is closed again."""
        return any(breaker.is_in_doubt for breaker in self.all)

    def ask(self, free: int, held: int, stuck: int) -> GateAnswer:
        """Return how many jobs all of them admit, or how long to wait. Arguments as for :meth:`Breaker.ask`."""
        jobs = free
        probed: list[Breaker] = []
        for breaker in self.all:
            answer = breaker.ask(jobs, held, stuck)
            if isinstance(answer, Wait) or answer.jobs == 0:
                for other in probed:
                    other.give_back_probe()
                if isinstance(answer, Wait):
                    return answer
                return Wait(_SLOW_START_SECONDS, breaker.reason) if jobs else Admit(0)
            if answer.is_probe:
                probed.append(breaker)
            jobs = answer.jobs
        return Admit(jobs, is_probe=bool(probed))

    def give_back_probe(self) -> None:
        """Allow the next probe at once, because the last one made no call."""
        for breaker in self.all:
            breaker.give_back_probe()

    def note_failure(self, problem: Problem) -> None:
        """Remember why a call has failed just now."""
        self.last_failure = Failure(self._clock(), problem)
        for breaker in self.all:
            breaker.last_problem = problem
