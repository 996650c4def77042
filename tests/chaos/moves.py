"""What operators write to Redis themselves: what the commands of ``lock-worker`` write, in as few steps."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import Celery
from redis.exceptions import NoScriptError

from tests.chaos.names import CONTROL, QUEUE
from tests.chaos.steering import Action
from worker.broker.control_moves import Trail, cancel_command, control_command, wake_command
from worker.broker.keys import Keys, digest
from worker.message.control_event import control_event
from worker.message.controls import Control, Note
from worker.message.selector import Selector

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from tests.chaos.producers import Producers
    from tests.chaos.servers import Servers
    from tests.chaos.steering import Steer
    from worker.broker.control_moves import Action as Move
    from worker.broker.script_calls import Command
    from worker.message.control_event import What

_TRAIL = Trail(CONTROL, 10_000_000)
_LOOK_SECONDS = 0.05
_DAY_MS = 86_400_000


class Moves:
    """Does what an operator does, and undoes it. All raise what redis-py and Celery raise while Redis is away.

    Args:
        client: sends commands to Redis.
        servers: where Celery's revoke goes, and how a command is sure to be kept.
        producers: know whose a message is.
        stopped: nothing is waited for any more.
    """

    def __init__(self, client: Any, servers: Servers, producers: Producers, stopped: threading.Event) -> None:
        self._client = client
        self._servers = servers
        self._producers = producers
        self._stopped = stopped
        self._keys = Keys(QUEUE)

    def begin(self, steer: Steer) -> int | None:
        """Do it, and return the version that workers are to obey; None: that is not known."""
        if steer.action is Action.REVOKE:
            return self._revoke(steer)
        if steer.action is Action.CANCEL_IDS:
            return self._cancel(steer)
        if steer.action.is_pause:
            return self._pause(steer)
        control = control_of(steer)
        what: What = "cancelled" if control.kind == "cancel" else "held"
        return self._send_control("set", self._event(what, control.note), control=control)

    def end(self, steer: Steer) -> int:
        """Undo it, and return the version."""
        if steer.action.is_pause:
            return self._send_control("resume", self._event("resumed", note_of(steer)))
        return self._send_control("remove", self._event("released", note_of(steer)), control=control_of(steer))

    def _pause(self, steer: Steer) -> int:
        seconds, micros = self._client.time()
        until_ms = round((seconds + micros / 1e6 + steer.seconds) * 1000)
        until_ms = until_ms if steer.action is Action.PAUSE_FOR_A_TIME else 0
        note = note_of(steer)
        return self._send_control("pause", self._event("paused", note), text=note.to_json(), until_ms=until_ms)

    def _cancel(self, steer: Steer) -> int:
        note, digests = note_of(steer), [digest(job) for job in steer.jobs]
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

    def release(self, control: Control) -> None:
        """Release a rule that its limit holds."""
        self._send_control("remove", self._event("released", control.note), control=control)


def note_of(steer: Steer) -> Note:
    """Who does it, and why."""
    return Note("the chaos", steer.reason, at_ms=round(time.time() * 1000))


def control_of(steer: Steer) -> Control:
    """The hold or the cancel that it sets."""
    is_actor = steer.action is Action.HOLD_ACTOR
    selector = Selector(actor=steer.who) if is_actor else Selector(rule=steer.who)
    return Control("cancel" if steer.action.ends_jobs else "hold", selector, note_of(steer))
