"""Sends two commands behind a take, in one write: the claim of the message that woke the worker, and the next wait.

A job that comes alone then costs its worker two round trips instead of four, each of which wakes both sides up.

The order matters. A take behind a *wait* would run at a time when perhaps no worker reads its answer. Here the take
comes first, so it runs when it arrives, like a take that is sent alone.

The two commands behind it may be lost, or run in vain, and both is harmless:

- A message that the wait moves to the arrived list is found by the next take of any worker.
- A worker may claim an id and not get the job, because another worker was faster, or because the take was answered by
  a pause, by the rate limit or with other jobs. A claim says what the id stands for, not which worker has it. The
  worker that takes the job later makes the same claim from the same bytes and may go on. Where the id stands for
  something else already, the claim writes nothing. (A message without an id gets a new one each time it is read; the
  claim of an unused one expires.)
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from worker.broker.client import Answers, Command
    from worker.broker.records import Claim


class Pipe(Protocol):
    """Sends commands in one write."""

    async def send(self, *commands: Command) -> Answers:
        """Send the commands and return their answers."""


class FollowUp:
    """The commands behind one take.

    Args:
        pipe: sends commands.
        claim: the claim, and the call of ``claim.lua`` for it; None: no claim.
        wait: the command of the next wait.
    """

    def __init__(self, pipe: Pipe, claim: tuple[Claim, Command] | None, wait: Command) -> None:
        self._pipe = pipe
        self._claim = claim
        self._wait = wait
        self._answers: Answers | None = None
        #: The claim and the script's answer; None: there is none, so the claim is still to be made.
        self.claimed: tuple[Claim, int] | None = None

    async def send_behind(self, take: Command) -> Any:
        """Send the take and the commands behind it in one write; return the answer of the take.

        Raises what the take alone would raise; the other answers are given up then. An error of the claim is dropped,
        because the caller makes a claim without an answer again. An error of the wait is raised by :meth:`wait`.
        """
        behind = [self._wait] if self._claim is None else [self._claim[1], self._wait]
        answers = await self._pipe.send(take, *behind)
        try:
            taken = await answers.next()
        except ResponseError:
            await answers.close()
            raise
        self._answers = answers
        if self._claim is not None:
            with suppress(RedisError, OSError):
                (answer,) = await answers.next()
                self.claimed = self._claim[0], answer
        return taken

    @property
    def is_waiting(self) -> bool:
        """True if the wait was sent and neither :meth:`wait` nor :meth:`give_up` was called since."""
        return self._answers is not None

    async def wait(self) -> bytes | None:
        """Return the answer of the wait, as :meth:`worker.broker.job_moves.JobMoves.wait` does."""
        answers, self._answers = self._answers, None
        assert answers is not None  # noqa: S101 - see `is_waiting`
        message: bytes | None = await answers.next()
        return message

    async def give_up(self) -> None:
        """Close the connection on which the server waits, if it does."""
        if self._answers is not None:
            await self._answers.close()
            self._answers = None
