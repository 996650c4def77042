"""Commands to Redis from the asyncio side, each write on a connection of its own until all its answers are there.

The connections are redis-py's; its client is left out. Around each command that has a pool with a look at the socket,
retries, measurements and, on Python 3.11, a task of its own for sending, and all of that is dearer than the command.
Nothing is ever repeated here: the callers know which command may be.

A connection that is lost takes the idle ones with it, for they led to the same place. So does one whose server says
that it is of no use (``worker.broker.refusals``), such as a primary that has become a replica: it keeps its connections
open when its address leads to another server, and who stayed on them would be refused for ever.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.broker.refusals import NotConnectedError, connection_is_useless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio import Connection

    from worker.broker.backoff import ConnectBackoff

Command: TypeAlias = "Sequence[str | bytes | int]"

#: Who waits for its turn to connect looks so often whether another one has succeeded, in seconds.
_LOOK_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class _Open:
    """A connection that is open, and when connecting began (monotonic)."""

    connection: Connection
    began_at: float


class Answers:
    """The answers to commands that are sent in one write, in their order. Whoever wants no more of them closes it."""

    def __init__(self, link: RedisClient, opened: _Open, timeout_seconds: float) -> None:
        self._link = link
        self._opened = opened
        self._timeout_seconds = timeout_seconds
        self._until: float | None = None
        self._left = 0

    async def send(self, commands: Sequence[Command], *, until: float) -> None:
        """Send them; once. Raises as :meth:`RedisClient.execute_command`."""
        self._left = len(commands)
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]  # its stubs know tuples of one alone
        self._until = until
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        async with self._lost_unless_it_ends():
            await self._opened.connection.send_packed_command(packed, check_health=False)
            # redis-py can lose a cancellation while it sends; see worker.runtime.maintenance
            if task is not None and task.cancelling() > cancelled:
                raise asyncio.CancelledError

    async def next(self) -> Any:
        """The next answer; the first one is waited for no longer than the rest of the time that sending left.

        Raises what :meth:`RedisClient.execute_command` raises. After a refusal (``ResponseError``) the next answers are
        still to come, except where the connection is of no use any more.
        """
        if not self._left:
            raise RedisConnectionError("the connection was closed before this answer")
        async with self._lost_unless_it_ends():
            try:
                answer = await self._opened.connection.read_response()
            except ResponseError as refusal:
                answer = refusal
                if connection_is_useless(refusal):
                    raise
        self._until = None
        self._left -= 1
        if not self._left and not self._link.takes_back(self._opened):
            await self._opened.connection.disconnect(nowait=True)
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def close(self) -> None:
        """Want no more answers: the connection is closed, unless all of them came."""
        if self._left:
            self._left = 0
            await self._opened.connection.disconnect(nowait=True)

    @asynccontextmanager
    async def _lost_unless_it_ends(self) -> AsyncIterator[None]:
        """No connection stays open on which another answer may come than the one that is waited for."""
        until = self._until or asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(until):
                yield
        except TimeoutError:
            await self.close()
            error = RedisTimeoutError(f"no answer within {self._timeout_seconds:g} seconds")
            await self._link.lost(self._opened, error)
            raise error from None
        except (RedisError, OSError) as error:
            await self.close()
            await self._link.lost(self._opened, error)
            raise
        except BaseException:  # it was cancelled, and the connection is as good as before
            await self.close()
            raise


class RedisClient:
    """Sends commands.

    Args:
        connect: makes a connection, without a time-out for single reads and writes, and not yet connected.
        timeout_seconds: the time that one command may take, connecting included.
        backoff: says when to connect; shared by all connections of the process.
        on_useless: called with a refusal after which no connection to that server is of use.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        timeout_seconds: float,
        backoff: ConnectBackoff,
        on_useless: Callable[[ResponseError], None] = lambda _: None,
    ) -> None:
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._backoff = backoff
        self._idle: list[_Open] = []
        self._lost_at = float("-inf")
        self._on_useless = on_useless

    async def execute_command(self, *command: str | bytes | int) -> Any:
        """Send a command and return its answer.

        Raises:
            redis.exceptions.RedisError: the server refused (``ResponseError``), was lost, or took too long. All but a
                refusal and a :class:`NotConnectedError` leave open whether the command was run.
            OSError: the connection was lost.
        """
        return await (await self.send(command)).next()

    async def send(self, *commands: Command) -> Answers:
        """Send commands in one write. The server runs them one after the other, and a blocking one holds up the rest.

        Raises as :meth:`execute_command`.
        """
        until = asyncio.get_running_loop().time() + self._timeout_seconds
        opened = self._idle.pop() if self._idle else await self._open(until)
        answers = Answers(self, opened, self._timeout_seconds)
        await answers.send(commands, until=until)
        return answers

    async def disconnect(self) -> None:
        """Close the connections that no command uses, so that the next ones connect anew."""
        idle = self._idle[:]
        self._idle.clear()
        for opened in idle:
            await opened.connection.disconnect(nowait=True)

    def takes_back(self, opened: _Open) -> bool:
        """Told that all answers came; whether the connection is kept: it is, if none was lost since it was made."""
        self._backoff.worked()
        is_kept = opened.began_at > self._lost_at
        if is_kept:
            self._idle.append(opened)
        return is_kept

    async def lost(self, opened: _Open, error: BaseException) -> None:
        """Told that a connection was closed because of an error: the others are made anew as well."""
        self._lost_at = time.monotonic()
        self._backoff.failed(opened.began_at)
        if isinstance(error, ResponseError) and connection_is_useless(error):
            self._on_useless(error)
        await self.disconnect()

    async def _open(self, until: float) -> _Open:
        """A connection: a new one when its turn has come, or one that became free meanwhile.

        Raises:
            NotConnectedError: there was none to be had in time.
        """
        try:
            async with asyncio.timeout_at(until):
                while (wait := self._backoff.seconds_to_wait()) > 0:
                    await asyncio.sleep(min(wait, _LOOK_SECONDS))
                    if self._idle:
                        return self._idle.pop()
                return await self._connect_now()
        except TimeoutError:
            raise NotConnectedError(f"no connection within {self._timeout_seconds:g} seconds") from None

    async def _connect_now(self) -> _Open:
        opened = _Open(self._connect(), time.monotonic())
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            await opened.connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            self._backoff.failed(opened.began_at)
            raise NotConnectedError(str(error)) from error
        except BaseException:
            # Cancelled, perhaps because the time was up: then a server hangs, and that is a failure.
            self._backoff.failed(opened.began_at)
            await opened.connection.disconnect(nowait=True)
            raise
        # redis-py can lose a cancellation while it connects; see worker.runtime.maintenance
        if task is not None and task.cancelling() > cancelled:
            await opened.connection.disconnect(nowait=True)
            raise asyncio.CancelledError
        return opened
