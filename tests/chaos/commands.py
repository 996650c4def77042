"""What operators do by the commands of ``lock-worker``, each a process, as at a terminal.

Redis may be away, and workers that were killed are waited for longer than an action lasts. So an action counts as done
when it stands in Redis, and a replica has that too where there are any. A command that still runs when the action is to
be undone is interrupted, as by Ctrl-C.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from tests.chaos.history import Ran
from tests.chaos.moves import control_of
from tests.chaos.names import CONTROL, QUEUE
from tests.chaos.steering import Action
from worker.broker.keys import Keys, digest
from worker.message.controls import read_controls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.servers import Servers
    from tests.chaos.steering import Steer

_PROGRAM = Path(sys.executable).with_name("lock-worker")
_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 3.0
_END_SECONDS = 20.0
_OUTPUT_CHARACTERS = 2_000


class Running:
    """A command that runs, until :meth:`finish`."""

    def __init__(self, redis_url: str, arguments: tuple[str, ...]) -> None:
        self._arguments = arguments
        self._output = ""
        self._was_interrupted = False
        #: When it ended.
        self.ended_at = math.inf
        own = {"REDIS_URL": redis_url, "LOCK_QUEUE": QUEUE, "CONTROL_STREAM": CONTROL, "CONTROL_MAXLEN": "10000000"}
        self._process = subprocess.Popen(
            [_PROGRAM, *arguments], env={**os.environ, "LOCK_WORKER_ACTOR": "the chaos", **own}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return not self._reader.is_alive()

    @property
    def obeyed_at(self) -> float | None:
        """When it said that all workers obey; None: it did not."""
        return self.ended_at if self.has_ended and self._process.returncode == 0 else None

    def finish(self) -> Ran:
        """Interrupt it if it still runs after a while; return how it ended."""
        self._reader.join(_PATIENCE_SECONDS)
        if not self.has_ended:
            self._was_interrupted = True
            self._process.send_signal(signal.SIGINT)
            self._reader.join(_END_SECONDS)
        if not self.has_ended:
            self._process.kill()
            self._reader.join()
        return Ran(self._arguments, self._process.returncode, self._was_interrupted, self._output[-_OUTPUT_CHARACTERS:])

    def _read(self) -> None:
        self._output, _ = self._process.communicate()
        self.ended_at = time.time()


class Commands:
    """Does by commands what an operator does, and undoes it.

    Args:
        client: looks whether it stands.
        servers: where.
        stopped: nothing is waited for any more.

    ``ran`` are the commands that have ended so far.
    """

    def __init__(self, client: Any, servers: Servers, stopped: threading.Event) -> None:
        self.ran: list[Ran] = []
        self._client = client
        self._servers = servers
        self._stopped = stopped
        self._keys = Keys(QUEUE)
        self._running: dict[int, Running] = {}

    def begin(self, steer: Steer) -> int:
        """Do it, and return the version that workers are to obey; the command goes on.

        Raises:
            OSError, RedisError: the command ended, and it does not stand, or it may be forgotten.
        """
        self._run(steer, _begin_arguments(steer))
        self._wait(steer, lambda: self._stands(steer, otherwise=False))
        return int(self._client.hget(self._keys.controls, "version") or 0)

    def obeyed_at(self, steer: Steer) -> float | None:
        """When the command said that all workers obey; None: it did not so far."""
        return self._running[steer.number].obeyed_at

    def end(self, steer: Steer) -> None:
        """Undo it.

        Raises:
            OSError, RedisError: the command ended, and it stands all the same, or its end may be forgotten.
        """
        self._run(steer, _end_arguments(steer))
        self._wait(steer, lambda: not self._stands(steer, otherwise=True))

    def finish(self, steer: Steer) -> None:
        """End its command, if one runs."""
        running = self._running.pop(steer.number, None)
        if running is not None:
            self.ran.append(running.finish())

    def _run(self, steer: Steer, arguments: tuple[str, ...]) -> None:
        self.finish(steer)
        self._running[steer.number] = Running(self._servers.url, arguments)

    def _wait(self, steer: Steer, is_done: Callable[[], bool]) -> None:
        while True:
            had_ended = self._running[steer.number].has_ended
            if is_done():
                self._servers.run(self._client, "PING")  # sure of what came before it
                return
            if had_ended or self._stopped.wait(_LOOK_SECONDS):
                raise OSError("the command could not do it")

    def _stands(self, steer: Steer, *, otherwise: bool) -> bool:
        """Whether it is in force; ``otherwise`` is returned while Redis cannot be asked."""
        try:
            if steer.action is Action.CANCEL_IDS:
                names = [self._keys.cancelled_prefix + digest(job) for job in steer.jobs]
                return int(self._client.exists(*names)) == len(names)
            found = read_controls(self._client.hgetall(self._keys.controls))
        except (RedisError, OSError):
            return otherwise
        note = found.pause
        if not steer.action.is_pause:
            control = found.find(control_of(steer))
            note = None if control is None else control.note
        return note is not None and note.reason == steer.reason


def _begin_arguments(steer: Steer) -> tuple[str, ...]:
    why = ("--reason", steer.reason)
    if steer.action is Action.CANCEL_IDS:
        return ("cancel", *why, "--", *steer.jobs)
    if steer.action is Action.PAUSE_FOR_A_TIME:
        return ("pause", "--for", f"{math.ceil(steer.seconds)}s", *why)
    return ("pause", *why) if steer.action.is_pause else ("hold", *_selector(steer), *why)


def _end_arguments(steer: Steer) -> tuple[str, ...]:
    why = ("--reason", steer.reason)
    return ("resume", *why) if steer.action.is_pause else ("release", *_selector(steer), *why)


def _selector(steer: Steer) -> tuple[str, str]:
    return ("--actor" if steer.action is Action.HOLD_ACTOR else "--rule", steer.who)
