"""Sends commands to Redis from the asyncio loop; each write has a connection to itself until all its answers are read.

It uses redis-py's connections without redis-py's client. For each command that client checks the socket in its pool,
wraps the call in retries and metrics and, on Python 3.11, sends in a task of its own; all of that costs more CPU than
the command. This client repeats nothing: only the callers know which commands may be repeated.

When a connection is lost, the idle ones are closed too, because they led to the same server. The same happens when a
server says that it is unusable (``worker.broker.refusals``), for example a primary that became a replica: it keeps its
connections open after its address has moved to another server, and would refuse every command on them for ever.
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

    from worker.broker.address_resolver import Address
    from worker.broker.backoff import ConnectBackoff

Command: TypeAlias = "Sequence[str | bytes | int]"

#: A caller that waits for its turn to connect checks this often whether another one has succeeded, in seconds.
_POLL_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class _Open:
    """An open connection, and when connecting began (monotonic)."""

    connection: Connection
    began_at: float


class Answers:
    """The answers to the commands of one write, in order. Close it if you do not read all of them."""

    def __init__(self, client: RedisClient, opened: _Open, timeout_seconds: float) -> None:
        self._client = client
        self._opened = opened
        self._timeout_seconds = timeout_seconds
        self._until: float | None = None
        self._left = 0

    async def send(self, commands: Sequence[Command], *, until: float) -> None:
        """Send the commands; to be called once. Raises as :meth:`RedisClient.execute_command`."""
        self._left = len(commands)
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]  # its stubs know tuples of one alone
        self._until = until
        async with self._closed_on_error():
            await self._opened.connection.send_packed_command(packed, check_health=False)

    async def next(self) -> Any:
        """Return the next answer. Sending and the first answer share one timeout; each further answer has its own.

        Raises what :meth:`RedisClient.execute_command` raises. After a refusal (``ResponseError``) the next answers can
        still be read, unless the refusal makes the connection unusable.
        """
        if not self._left:
            raise RedisConnectionError("the connection was closed before this answer")
        async with self._closed_on_error():
            try:
                answer = await self._opened.connection.read_response()
            except ResponseError as refusal:
                answer = refusal
                if connection_is_useless(refusal):
                    raise
        self._until = None
        self._left -= 1
        if not self._left and not self._client.takes_back(self._opened):
            await self._opened.connection.disconnect(nowait=True)
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def close(self) -> None:
        """Give up the answers that are left: closes the connection, unless all of them were read."""
        if self._left:
            self._left = 0
            await self._opened.connection.disconnect(nowait=True)

    @asynccontextmanager
    async def _closed_on_error(self) -> AsyncIterator[None]:
        """Close the connection on any error or cancellation: else a late answer would be taken for the next one."""
        until = self._until or asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(until):
                yield
        except TimeoutError:
            await self.close()
            error = RedisTimeoutError(f"no answer within {self._timeout_seconds:g} seconds")
            await self._client.lost(self._opened, error)
            raise error from None
        except (RedisError, OSError) as error:
            await self.close()
            await self._client.lost(self._opened, error)
            raise
        except BaseException:  # cancelled: no reason to suspect the server
            await self.close()
            raise


class RedisClient:
    """Sends commands over a pool of connections.

    Args:
        connect: makes a connection that is not yet connected and has no timeout for single reads and writes.
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
            redis.exceptions.RedisError: the server refused (``ResponseError``), was lost, or took too long. After a
                refusal or a :class:`NotConnectedError` the command was not run; after the others it may have been.
            OSError: the connection was lost.
        """
        return await (await self.send(command)).next()

    async def send(self, *commands: Command) -> Answers:
        """Send commands in one write. The server runs them in order, and a blocking one holds up the rest.

        Raises as :meth:`execute_command`.
        """
        until = asyncio.get_running_loop().time() + self._timeout_seconds
        opened = self._idle.pop() if self._idle else await self._open(until)
        answers = Answers(self, opened, self._timeout_seconds)
        await answers.send(commands, until=until)
        return answers

    async def disconnect(self) -> None:
        """Close the idle connections, so that the next commands connect anew."""
        idle = self._idle[:]
        self._idle.clear()
        for opened in idle:
            await opened.connection.disconnect(nowait=True)

    def takes_back(self, opened: _Open) -> bool:
        """Keep a connection after its last answer.

        Returns False, and the caller must close it, if any connection was lost after this one began to connect.
        """
        self._backoff.worked(opened.began_at)
        is_kept = opened.began_at > self._lost_at
        if is_kept:
            self._idle.append(opened)
        return is_kept

    async def lost(self, opened: _Open, error: BaseException) -> None:
        """Note that an error closed a connection, and close the idle ones too."""
        self._lost_at = time.monotonic()
        self._backoff.failed(opened.began_at)
        if isinstance(error, ResponseError) and connection_is_useless(error):
            self._on_useless(error)
        await self.disconnect()

    def has_other_address(self, address: Address) -> bool:
        """Return whether an idle connection is to another address; for connections that resolve theirs."""
        return any((opened.connection.host, opened.connection.port) != address for opened in self._idle)

    async def reconnect(self, reason: ResponseError) -> None:
        """Connect anew from now on, as if the server had refused with this reason; commands under way get answers."""
        self._lost_at = time.monotonic()
        self._on_useless(reason)
        await self.disconnect()

    async def _open(self, until: float) -> _Open:
        """Return a connection: a new one once the backoff allows it, or one that became free meanwhile.

        Raises:
            NotConnectedError: neither happened in time.
        """
        try:
            async with asyncio.timeout_at(until):
                while (wait := self._backoff.seconds_to_wait()) > 0:
                    await asyncio.sleep(min(wait, _POLL_SECONDS))
                    if self._idle:
                        return self._idle.pop()
                return await self._connect_now()
        except TimeoutError:
            raise NotConnectedError(f"no connection within {self._timeout_seconds:g} seconds") from None

    async def _connect_now(self) -> _Open:
        opened = _Open(self._connect(), time.monotonic())
        try:
            await opened.connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            self._backoff.failed(opened.began_at)
            raise NotConnectedError(str(error)) from error
        except BaseException:
            # Cancelled, perhaps by our timeout because the server hangs; so it counts as a failure.
            self._backoff.failed(opened.began_at)
            await opened.connection.disconnect(nowait=True)
            raise
        return opened
