"""The moves that operators make with ``lock-worker``: they replay and discard dead letters, and adopt left jobs.

The functions return only the command, because the command line sends it over redis-py's blocking client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker import scripts
from worker.broker.keys import UNACKED, UNACKED_INDEX
from worker.broker.script_calls import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.control_moves import Trail
    from worker.broker.keys import Keys
    from worker.broker.script_calls import Command


def replay_command(keys: Keys, dead: str, letters: Sequence[tuple[str, bytes]], *, priority: int) -> Command:
    """Return the call of ``replay.lua``: entries of the dead stream, each with the message of its new job.

    It sends the whole text, because people call it so seldom that the server would not know the digest.
    """
    arguments = [part for letter in letters for part in letter]
    names = [dead, keys.priority_list(priority), keys.absent]
    return command(scripts.REPLAY, names, arguments, whole_text=True)


def discard_command(keys: Keys, dead: str, trail: Trail, entries: Sequence[str], *, event: str) -> Command:
    """Return the call of ``discard.lua``: entries of the dead stream, and the event that notes it.

    It sends the whole text, as :func:`replay_command` does.
    """
    arguments: list[str | int] = [event, trail.maxlen, *entries]
    return command(scripts.DISCARD, [dead, trail.stream, keys.absent], arguments, whole_text=True)


def adopt_command(keys: Keys, jobs: Sequence[tuple[bytes, bytes]], *, priority: int) -> Command:
    """Return the call of ``adopt.lua``: tags in kombu's ``unacked``, each with its message.

    The last one is taken first. It sends the whole text, as :func:`replay_command` does.
    """
    arguments = [part for job in jobs for part in job]
    names = [UNACKED, UNACKED_INDEX, keys.priority_list(priority), keys.absent]
    return command(scripts.ADOPT, names, arguments, whole_text=True)
