"""Commands to Redis from the asyncio side, each write on a connection of its own until all its answers are there.

The connections are redis-py's; its client is left out. Around each command that has a pool with a look at the socket,
retries, measurements and, on Python 3.11, a task of its own for sending, and all of that is dearer than the command.
Nothing is ever repeated here: the callers know which command may be.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio import Connection

Command: TypeAlias = "Sequence[str | bytes | int]"


class Answers:
    """The answers to commands that are sent in one write, in their order. Whoever wants no more of them closes it."""

    def __init__(self, connection: Connection, idle: list[Connection], timeout_seconds: float) -> None:
        self._connection = connection
        self._idle = idle
        self._timeout_seconds = timeout_seconds
        self._until: float | None = None
        self._left = 0

    async def send(self, commands: Sequence[Command]) -> None:
        """Send them; once. Raises as :meth:`Link.execute_command`."""
        self._left = len(commands)
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]  # its stubs know tuples of one alone
        self._until = asyncio.get_running_loop().time() + self._timeout_seconds
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        async with self._lost_unless_it_ends():
            await self._connection.send_packed_command(packed, check_health=False)
            # redis-py can lose a cancellation while it connects; see worker.upkeep
            if task is not None and task.cancelling() > cancelled:
                raise asyncio.CancelledError

    async def next(self) -> Any:
        """The next answer; the first one is waited for no longer than the rest of the time that sending left.

        Raises as :meth:`Link.execute_command`. After a refusal (``ResponseError``) the next answers are still to come.
        """
        if not self._left:
            raise RedisConnectionError("the connection was closed before this answer")
        async with self._lost_unless_it_ends():
            try:
                answer = await self._connection.read_response()
            except ResponseError as refusal:
                answer = refusal
        self._until = None
        self._left -= 1
        if not self._left:
            self._idle.append(self._connection)
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def close(self) -> None:
        """Want no more answers: the connection is closed, unless all of them came."""
        if self._left:
            self._left = 0
            await self._connection.disconnect(nowait=True)

    @asynccontextmanager
    async def _lost_unless_it_ends(self) -> AsyncIterator[None]:
        """No connection stays open on which another answer may come than the one that is waited for."""
        until = self._until or asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(until):
                yield
        except TimeoutError:
            await self.close()
            raise RedisTimeoutError(f"no answer within {self._timeout_seconds:g} seconds") from None
        except BaseException:
            await self.close()
            raise


class Link:
    """Sends commands.

    Args:
        connect: makes a connection, without a time-out for single reads and writes, and not yet connected.
        timeout_seconds: the time that one command may take, connecting included.
    """

    def __init__(self, connect: Callable[[], Connection], *, timeout_seconds: float) -> None:
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._idle: list[Connection] = []

    async def execute_command(self, *command: str | bytes | int) -> Any:
        """Send a command and return its answer.

        Raises:
            redis.exceptions.RedisError: the server refused (``ResponseError``), was lost, or took too long. All but a
                refusal leave open whether the command was run.
            OSError: there is no connection to be had.
        """
        return await (await self.send(command)).next()

    async def send(self, *commands: Command) -> Answers:
        """Send commands in one write. The server runs them one after the other, and a blocking one holds up the rest.

        Raises as :meth:`execute_command`.
        """
        connection = self._idle.pop() if self._idle else self._connect()
        answers = Answers(connection, self._idle, self._timeout_seconds)
        await answers.send(commands)
        return answers

    async def disconnect(self) -> None:
        """Close the connections that no command uses, so that the next ones connect anew."""
        idle = self._idle[:]
        self._idle.clear()
        for connection in idle:
            await connection.disconnect(nowait=True)
