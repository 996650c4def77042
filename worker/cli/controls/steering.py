"""Writes to the operators' controls of a fleet, and says how far it came if it cannot go on.

Each action is one script in Redis, which notes it in CONTROL_STREAM in the same step.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import NoScriptError, RedisError

from worker.broker.connection import sync_client
from worker.broker.control_moves import Trail, cancel_command, control_command
from worker.broker.keys import Keys
from worker.broker.move_limits import MAX_CONTROLS
from worker.broker.refusals import was_refused
from worker.cli.controls.actor import actor
from worker.cli.exit import fail, redis_address, report_if_interrupted
from worker.cli.refusals import described
from worker.message.control_event import What, control_event
from worker.message.controls import Control, Controls, Note, read_controls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis import Redis

    from settings import Settings
    from worker.broker.control_moves import Action
    from worker.broker.script_calls import Command

_NOTHING = "Nothing was changed."
_UNKNOWN = "Whether it was done is not known; {shown_by}."
_SHOWN_BY_HOLDS = "lock-worker holds shows what is in force"


class Done(NamedTuple):
    """What a script answered: the version of the controls, and whether it changed them."""

    version: int
    is_changed: bool


class Steering:
    """Changes the controls of one fleet.

    ``account`` is what to say of the changes if the command ends early; :meth:`report` also says what is not known.
    """

    def __init__(self, client: Redis, settings: Settings, shown_by: str = _SHOWN_BY_HOLDS) -> None:
        self.client = client
        self.settings = settings
        self.keys = Keys(settings.LOCK_QUEUE)
        self.account = _NOTHING
        self._unknown = _UNKNOWN.format(shown_by=shown_by)
        self._is_unsure = False
        self._trail = Trail(settings.CONTROL_STREAM, settings.CONTROL_MAXLEN)

    def note(self, reason: str, seconds: int | None = None) -> Note:
        """Return who acts and why, from now on and for so many seconds (None: until it is ended), by Redis's clock."""
        now_ms = self.now_ms()
        return Note(actor(self.settings), reason, now_ms, 0 if seconds is None else now_ms + seconds * 1000)

    def now_ms(self) -> int:
        """Return the server's time in milliseconds."""
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds // 1000

    def read(self) -> Controls:
        """Return what is in Redis now."""
        found: Any = self.client.hgetall(self.keys.controls)
        return read_controls(found)

    def read_text(self, control: Control) -> bytes:
        """Return what the field of a hold or a cancel says now; empty: it is not there."""
        found: Any = self.client.hget(self.keys.controls, control.field)
        return b"" if found is None else bytes(found)

    def event(self, what: What, note: Note, **facts: object) -> str:
        """Return an event for CONTROL_STREAM."""
        return control_event(what, note, source=self.settings.EVENT_SOURCE, queue=self.settings.LOCK_QUEUE, **facts)

    def pause(self, note: Note) -> Done:
        """Pause the fleet."""
        event = self.event("paused", note)
        return self._control("pause", event, text=note.to_json(), until_ms=note.until_ms)

    def resume(self, note: Note) -> Done:
        """End the pause, an operator's or the API's."""
        return self._control("resume", self.event("resumed", note))

    def set(self, control: Control, event: str, *, expected: str | bytes = "*") -> Done:
        """Set a hold or a cancel. ``expected`` is as for :func:`control_command`."""
        return self._control("set", event, field=control.field, text=control.to_json(), expected=expected)

    def remove(self, control: Control, event: str, *, expected: str | bytes = "*") -> Done:
        """End a hold or a cancel."""
        return self._control("remove", event, field=control.field, expected=expected)

    def cancel_ids(self, digests: Sequence[str], note: Note, *, ttl_ms: int, event: str = "") -> int:
        """Remember job ids as cancelled, by their digests; return the version of the controls."""

        def call(whole_text: bool) -> Command:
            return cancel_command(
                self.keys, self._trail, digests, text=note.to_json(), ttl_ms=ttl_ms, event=event, whole_text=whole_text
            )

        return int(self.send(call))

    def send(self, call: Callable[[bool], Command]) -> Any:
        """Call a script, by its digest, or with its whole text if the server does not know it."""
        self._is_unsure = True
        try:
            try:
                answer = self.client.execute_command(*call(False))  # type: ignore[no-untyped-call]  # redis-py has no types for it
            except NoScriptError:
                answer = self.client.execute_command(*call(True))  # type: ignore[no-untyped-call]  # as above
        except RedisError as error:
            self._is_unsure = not was_refused(error)  # the scripts are all or nothing
            raise
        self._is_unsure = False
        return answer

    def send_together(self, *commands: Command) -> None:
        """Send commands that the server runs in one step (MULTI). On a cluster their keys must share a slot.

        Raises:
            RedisError: of the connection, or of the first command that the server refused.
        """
        self._is_unsure = True
        with self.client.pipeline(transaction=True) as step:
            for command in commands:
                step.execute_command(*command)  # type: ignore[no-untyped-call]  # as above
            try:
                answers = step.execute(raise_on_error=False)
            except RedisError as error:
                self._is_unsure = not was_refused(error)  # before the server ran any of them
                raise
        for answer in answers:
            if isinstance(answer, RedisError):  # the server ran the others: it undoes nothing
                raise answer
        self._is_unsure = False

    def report(self) -> str:
        """Return what was done, as far as it is known."""
        if not self._is_unsure:
            return self.account
        return self._unknown if self.account == _NOTHING else f"{self.account} Of the last step: {self._unknown}"

    def _control(
        self,
        action: Action,
        event: str,
        *,
        field: str = "",
        text: str = "",
        until_ms: int = 0,
        expected: str | bytes = "*",
    ) -> Done:
        def call(whole_text: bool) -> Command:
            return control_command(
                self.keys, self._trail, action, event,
                field=field, text=text, until_ms=until_ms, expected=expected, whole_text=whole_text,
            )  # fmt: skip

        version, done = self.send(call)
        if done < 0:
            fail(f"there are {MAX_CONTROLS:,} holds and cancels: end some with lock-worker release\n{self.account}")
        return Done(int(version), done == 1)


@contextmanager
def steering(settings: Settings, *, shown_by: str = _SHOWN_BY_HOLDS) -> Iterator[Steering]:
    """Connect to Redis, and end the command with what was done until then if it is interrupted or Redis refuses.

    ``shown_by`` says what shows whether the last step was done, as the end of a sentence.
    """
    with sync_client(settings) as client:
        fleet = Steering(client, settings, shown_by)
        with report_if_interrupted(fleet.report):
            try:
                yield fleet
            except RedisError as error:
                fail(f"Redis at {redis_address(settings)}{described(error)}\n{fleet.report()}")
