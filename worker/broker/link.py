"""Commands to Redis from the asyncio side, each on a connection of its own for as long as it runs.

The connections are redis-py's; its client is left out. Around each command that has a pool with a look at the socket,
retries, measurements and, on Python 3.11, a task of its own for sending, and all of that is dearer than the command.
Nothing is ever repeated here: the callers know which command may be.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import hiredis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Connection


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
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stubs know tuples of one alone
                await connection.send_packed_command(packed, check_health=False)
                answer = await connection.read_response()
        except ResponseError:
            self._idle.append(connection)
            raise
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise RedisTimeoutError(f"no answer within {self._timeout_seconds:g} seconds") from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        return answer

    async def disconnect(self) -> None:
        """Close the connections that no command uses, so that the next ones connect anew."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)
