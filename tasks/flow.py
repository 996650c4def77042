"""What a job's life reports to flow control and asks of it.

The worker implements it for a fleet (``worker.flow_control``), and ``tasks.in_process`` for a job that runs alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tasks.outcome import Problem
    from tasks.run import Run
    from tasks.verdict import Blame


class Flow(Protocol):
    """Flow control: holds calls back, apart from a job's own waits."""

    def begins(self, run: Run) -> None:
        """Note that a call begins."""

    def answered(self, run: Run) -> None:
        """Note that a call was answered, with a confirmation or a final refusal."""

    def failed(self, run: Run, blame: Blame, problem: Problem) -> int:
        """Note that a call failed; return how many attempts that costs its job."""

    def refused(self, run: Run, status: int, retry_after: float | None) -> float:
        """Note that the API refused a call for load; return the seconds that its job waits at least."""

    @property
    def doubts_token(self) -> bool:
        """True if the token was refused just now, so that a second try with the same one is useless."""

    @property
    def needs_permits(self) -> bool:
        """True if each call needs a permit, which only a take gives."""

    def holds_back(self) -> bool:
        """Return True if the next call must go through a take, because only a take checks what holds calls back."""

    def may_wait_in_slot(self) -> bool:
        """Return True if a job may keep its slot until its next call."""

    def waits_in_slot(self, change: int) -> None:
        """Note that one more (1) or one less (-1) job waits in its slot."""

    def reason(self) -> Problem:
        """Return why no call was made for a job that is too old."""
