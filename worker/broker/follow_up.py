"""What is sent behind a take, in the same write: the claim of the message that woke the worker, and the next wait.

That saves a job that comes alone two of the four times that its worker asks Redis, each of which wakes both sides up.

A take behind a *wait* would be run at a time when perhaps nobody is there to read its answer. Here the take comes
first: it is run when it arrives, like one that is sent alone. What stands behind it may be lost, and may be run in
vain: a message that a wait brings to the arrived list is found by whoever takes next, and an id may be claimed by a
worker that does not get the job: another one was faster, or the take was answered by a pause, by the rate limit or with
other jobs. That is harmless. A claim says what the id is for, not whose it is: whoever takes the job later makes the
same one, from the same bytes, and is told to go on. Where the id stands for something already, nothing is written. (A
message without an id gets a new one each time it is read; what was claimed for it is forgotten in time.)
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
        """Send them."""


class FollowUp:
    """Is sent once, with a take.

    Args:
        pipe: sends commands.
        claim: what is claimed, and the call of ``claim.lua`` for it; None: nothing is.
        wait: the next wait.
    """

    def __init__(self, pipe: Pipe, claim: tuple[Claim, Command] | None, wait: Command) -> None:
        self._pipe = pipe
        self._claim = claim
        self._wait = wait
        self._answers: Answers | None = None
        #: What was claimed, and what the script answered; None: nothing, so the server has yet to be asked.
        self.claimed: tuple[Claim, int] | None = None

    async def send_behind(self, take: Command) -> Any:
        """Send all of it in one write; returns the answer of the take.

        Raises as the take alone would, and then the rest is given up. Other trouble with the rest is no trouble of the
        take: a claim that failed is made again by itself, and the wait tells its own.
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
        """Whether the server was sent the wait, and :meth:`wait` or :meth:`give_up` is still to be called."""
        return self._answers is not None

    async def wait(self) -> bytes | None:
        """The answer of the wait, as of :meth:`worker.broker.moves.Moves.wait`."""
        answers, self._answers = self._answers, None
        assert answers is not None  # noqa: S101 - see `is_waiting`
        message: bytes | None = await answers.next()
        return message

    async def give_up(self) -> None:
        """Wait no more."""
        if self._answers is not None:
            await self._answers.close()
            self._answers = None
