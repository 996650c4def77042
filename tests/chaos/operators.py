"""The operators of a round: they pause, hold, cancel and revoke by the plan, wait until all workers obey, and undo it.

They write what the commands of ``lock-worker`` write, and wait as those do: until each registered worker that lives
tells that it obeys. What they do while Redis is away they do again until Redis has it.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import NoScriptError

from tests.chaos.history import Release, Steered
from tests.chaos.names import CONTROL, QUEUE
from tests.chaos.steering import Action
from worker.broker.control_moves import Trail, cancel_command, control_command, wake_command
from worker.broker.keys import Keys, digest
from worker.message.control_event import control_event
from worker.message.controls import Control, Note, read_controls
from worker.message.selector import Selector
from worker.runtime.members import read_members

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from tests.chaos.plan import Plan
    from tests.chaos.producers import Producers
    from tests.chaos.servers import Servers
    from tests.chaos.steering import Steer
    from worker.broker.control_moves import Action as Move
    from worker.broker.script_calls import Command
    from worker.message.control_event import What

    Answer = TypeVar("Answer")

#: Who holds a rule beyond RULE_LIMIT.
RULE_LIMIT = "RULE_LIMIT"

_TRAIL = Trail(CONTROL, 10_000_000)
_TIMEOUT_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_AGAIN_SECONDS = 0.2
#: A rule that its limit holds is released after so long.
_RELEASE_RULES_SECONDS = 4.0
_DAY_MS = 86_400_000
_REFUSED = (OSError, redis.RedisError, OperationalError)


class Operators:
    """All operators of a round; each acts in a thread of its own.

    Args:
        plan: what they do.
        servers: where.
        producers: know whose a message is.
        living: tells the names of the workers that live.

    ``steered`` and ``releases`` are what they did so far.
    """

    def __init__(self, plan: Plan, servers: Servers, producers: Producers, living: Callable[[], set[str]]) -> None:
        self.steered: list[Steered] = []
        self.releases: list[Release] = []
        self._plan = plan
        self._servers = servers
        self._producers = producers
        self._living = living
        self._keys = Keys(QUEUE)
        self._client: Any = servers.client(socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS)
        self._began = 0.0
        self._stopped = threading.Event()
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
        began, until = time.time(), time.monotonic() + steer.seconds
        version = self._until_done(lambda: self._begin(steer))
        if version is None:
            return
        done = time.time()
        patience = until if steer.action.is_undone else time.monotonic() + 30.0
        obeyed = self._obeyed(version, patience)
        self._stopped.wait(max(0.0, until - time.monotonic()))
        lifted = time.time() if steer.action.is_undone else float("inf")
        if steer.action is Action.PAUSE_FOR_A_TIME:
            lifted = min(lifted, began + steer.seconds)
        self.steered.append(Steered(steer, began, done, obeyed, lifted))
        if steer.action.is_undone:
            self._until_done(lambda: self._end(steer))

    def _begin(self, steer: Steer) -> int | None:
        """Do it, and return the version that workers are to obey; None: that is not known."""
        if steer.action is Action.REVOKE:
            return self._revoke(steer)
        if steer.action is Action.CANCEL_IDS:
            return self._cancel(steer)
        if steer.action.is_pause:
            return self._pause(steer)
        control = _control(steer)
        what: What = "cancelled" if control.kind == "cancel" else "held"
        return self._send_control("set", self._event(what, control.note), control=control)

    def _end(self, steer: Steer) -> int:
        if steer.action.is_pause:
            return self._send_control("resume", self._event("resumed", _note(steer)))
        return self._send_control("remove", self._event("released", _note(steer)), control=_control(steer))

    def _pause(self, steer: Steer) -> int:
        seconds, micros = self._client.time()
        until_ms = round((seconds + micros / 1e6 + steer.seconds) * 1000)
        until_ms = until_ms if steer.action is Action.PAUSE_FOR_A_TIME else 0
        note = _note(steer)
        return self._send_control("pause", self._event("paused", note), text=note.to_json(), until_ms=until_ms)

    def _cancel(self, steer: Steer) -> int:
        note, digests = _note(steer), [digest(job) for job in steer.jobs]
        event = self._event("cancelled", note)

        call = partial(cancel_command, self._keys, _TRAIL, digests, text=note.to_json(), ttl_ms=_DAY_MS, event=event)
        version = int(self._send(call))
        self._wake(set(steer.jobs))
        return version

    def _wake(self, ids: set[str]) -> None:
        """Jobs of these ids that are delayed or on hold are to end now."""
        keys, members = self._keys, []
        found = [("delayed", ref.decode(), ref.decode()) for ref in self._client.zrange(keys.delayed, 0, -1)]
        on_hold = [member.decode() for member in self._client.zrange(keys.held, 0, -1)]
        found += [("held", member, member.partition(":")[2]) for member in on_hold]
        for place, member, ref in found:
            raw = self._client.hget(keys.record_prefix + ref, "raw")
            if self._producers.key_of.get(raw) in ids:
                members.append((place, member, ref))
        if members:
            self._send(partial(wake_command, keys, keys, members, max_age_ms=_DAY_MS))

    def _revoke(self, steer: Steer) -> int | None:
        """Celery's revoke reaches the workers that listen just now; each notes it in Redis."""
        app = Celery("operator", broker=self._servers.url, set_as_current=False)
        try:
            app.control.revoke(list(steer.jobs))
        finally:
            app.close()
        deadline = time.monotonic() + 10.0
        names = [self._keys.cancelled_prefix + digest(job) for job in steer.jobs]
        while not self._stopped.is_set() and time.monotonic() < deadline:
            if self._client.exists(*names) == len(names):
                return int(self._client.hget(self._keys.controls, "version") or 0)
            time.sleep(_LOOK_SECONDS)
        return None

    def _event(self, what: What, note: Note) -> str:
        return control_event(what, note, source="/chaos", queue=QUEUE)

    def _send_control(
        self, move: Move, event: str, *, control: Control | None = None, text: str = "", until_ms: int = 0
    ) -> int:
        field, text = ("", text) if control is None else (control.field, control.to_json())

        call = partial(control_command, self._keys, _TRAIL, move, event, field=field, text=text, until_ms=until_ms)
        return int(self._send(call)[0])

    def _send(self, call: Callable[..., Command]) -> Any:
        try:
            return self._servers.run(self._client, *call())
        except NoScriptError:
            return self._servers.run(self._client, *call(whole_text=True))

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
                        began = time.time()
                        self._send_control("remove", self._event("released", control.note), control=control)
                        self.releases.append(Release(control.selector.rule or "", began))
            except _REFUSED:
                continue


def _note(steer: Steer) -> Note:
    return Note("the chaos", steer.reason, at_ms=round(time.time() * 1000))


def _control(steer: Steer) -> Control:
    is_actor = steer.action is Action.HOLD_ACTOR
    selector = Selector(actor=steer.who) if is_actor else Selector(rule=steer.who)
    return Control("cancel" if steer.action.ends_jobs else "hold", selector, _note(steer))
