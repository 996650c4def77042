"""Calls scripts: by digest, and with the whole text if the server does not know the script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.client import Answers
    from worker.broker.scripts import Script

Argument: TypeAlias = str | int | bytes
Command: TypeAlias = list[Argument]


class Client(Protocol):
    """Sends commands to Redis, each of them once."""

    async def execute_command(self, *command: Any) -> Any:
        """Send one command and return its answer."""

    async def send(self, *commands: Sequence[Argument]) -> Answers:
        """Send several commands in one write."""


def command(script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, whole_text: bool = False) -> Command:
    """Return a script call: by digest, or by ``whole_text`` after the server said that it does not know the script."""
    name, what = ("EVAL", script.text) if whole_text else ("EVALSHA", script.sha)
    return [name, what, len(keys), *keys, *arguments]


async def call_script(client: Client, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> list[Any]:
    """Call a script once and return its answer. Raises what the client raises."""
    answer: list[Any]
    try:
        answer = await client.execute_command(*command(script, keys, arguments))
    except NoScriptError:
        # The server restarted or was flushed. It refused before anything ran, so sending the whole text is safe.
        answer = await client.execute_command(*command(script, keys, arguments, whole_text=True))
    return answer
