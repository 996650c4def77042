"""The operators of a round: they pause, hold, cancel and revoke by the plan, wait until all workers obey, and undo it.

They use the commands of ``lock-worker`` or write what those write, and wait until each registered worker that lives
tells that it obeys. What they do while Redis is away they do again until Redis has it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import redis
from kombu.exceptions import OperationalError

from tests.chaos.commands import Commands
from tests.chaos.history import Steered
from tests.chaos.moves import Moves
from tests.chaos.names import QUEUE
from tests.chaos.steering import Action
from worker.broker.keys import Keys
from worker.message.controls import read_controls
from worker.runtime.members import read_members

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from tests.chaos.history import Ran
    from tests.chaos.plan import Plan
    from tests.chaos.producers import Producers
    from tests.chaos.servers import Servers
    from tests.chaos.steering import Steer

    Answer = TypeVar("Answer")

#: Who holds a rule beyond RULE_LIMIT.
RULE_LIMIT = "RULE_LIMIT"

_TIMEOUT_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_AGAIN_SECONDS = 0.2
#: A rule that its limit holds is released after so long.
_RELEASE_RULES_SECONDS = 4.0
_REFUSED = (OSError, redis.RedisError, OperationalError)


class Operators:
    """All operators of a round; each acts in a thread of its own.

    Args:
        plan: what they do.
        servers: where.
        producers: know whose a message is.
        living: tells the names of the workers that live.

    ``steered`` is what they did so far.
    """

    def __init__(self, plan: Plan, servers: Servers, producers: Producers, living: Callable[[], set[str]]) -> None:
        self.steered: list[Steered] = []
        self._plan = plan
        self._living = living
        self._keys = Keys(QUEUE)
        self._client: Any = servers.client(socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS)
        self._began = 0.0
        self._stopped = threading.Event()
        #: Of one thing only one action is in force at a time, also if an operator was late.
        self._locks = defaultdict[str, threading.Lock](threading.Lock)
        self._moves = Moves(self._client, servers, producers, self._stopped)
        self._commands = Commands(self._client, servers, self._stopped)
        self._threads = [
            threading.Thread(target=self._act, args=(steer,), name=f"operator-{steer.number}") for steer in plan.steers
        ]
        self._releaser = threading.Thread(target=self._release_rules, name="operator-of-rules")

    def start(self) -> None:
        """Begin with the plan."""
        self._began = time.monotonic()
        for thread in (*self._threads, *([self._releaser] if self._plan.rule_limit else [])):
            thread.start()

    @property
    def are_done(self) -> bool:
        """Whether all has been done, and undone."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def ran(self) -> list[Ran]:
        """The commands that they ran."""
        return self._commands.ran

    def stop(self) -> None:
        """Act no more."""
        self._stopped.set()
        for thread in (*self._threads, self._releaser):
            if thread.ident is not None:
                thread.join()
        self._client.close()

    # -- an action

    def _act(self, steer: Steer) -> None:
        if self._stopped.wait(max(0.0, self._began + steer.at - time.monotonic())):
            return
        with self._locks[steer.action.on]:
            self._do_and_undo(steer)

    def _do_and_undo(self, steer: Steer) -> None:
        by: Commands | Moves = self._commands if steer.by_command else self._moves
        began, until = time.time(), time.monotonic() + steer.seconds
        version = self._until_done(lambda: by.begin(steer))
        if version is None:
            self._commands.finish(steer)
            return
        done = time.time()
        patience = until if steer.action.is_undone else time.monotonic() + 30.0
        obeyed = self._obeyed(version, patience)
        self._stopped.wait(max(0.0, until - time.monotonic()))
        if steer.by_command:
            obeyed = _first(obeyed, self._commands.obeyed_at(steer))
        lifted = time.time() if steer.action.is_undone else float("inf")
        if steer.action is Action.PAUSE_FOR_A_TIME:
            lifted = min(lifted, began + steer.seconds)
        self.steered.append(Steered(steer, began, done, obeyed, lifted))
        if steer.action.is_undone:
            self._until_done(lambda: by.end(steer))
        self._commands.finish(steer)

    # -- waiting

    def _until_done(self, act: Callable[[], Answer]) -> Answer | None:
        """Act until Redis answers."""
        while True:
            try:
                return act()
            except _REFUSED:
                if self._stopped.wait(_AGAIN_SECONDS):
                    return None

    def _obeyed(self, version: int, until: float) -> float | None:
        """When all registered workers that live obey a version; None: that was not seen in time."""
        while time.monotonic() < until and not self._stopped.is_set():
            try:
                workers = self._client.hgetall(self._keys.workers)
                members = [*read_members(workers, time.time() * 1000)]
                living = self._living()
                if members and all(each.activity.controls >= version for each in members if each.worker in living):
                    return time.time()
            except _REFUSED:
                pass
            self._stopped.wait(_LOOK_SECONDS)
        return None

    # -- rules that ask for too much

    def _release_rules(self) -> None:
        """Release every few seconds what rules' limits hold."""
        while not self._stopped.wait(_RELEASE_RULES_SECONDS):
            try:
                controls = read_controls(self._client.hgetall(self._keys.controls)).controls
                for control in controls:
                    if control.note.by == RULE_LIMIT:
                        self._moves.release(control)
            except _REFUSED:
                continue


def _first(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)
