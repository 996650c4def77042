"""What operators asked of the fleet, as this worker knows and obeys it.

Each answer of a take and of a promote has the version of the operators' controls. When it is another one than this
worker knows, the worker reads the controls anew, looks which of its jobs in flight were cancelled by their ids, and
tells in the register of the fleet which version it obeys. From then on it begins no call for a job that is held or
cancelled. ``lock-worker`` waits for that before it says that an action is done.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from worker.broker.keys import digest
from worker.message.controls import NO_CONTROLS, read_controls, read_note
from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.job import Job
    from worker.broker.keys import Keys
    from worker.broker.records import FleetNews
    from worker.broker.script_calls import Client
    from worker.message.controls import Control, Note
    from worker.runtime.background import Background
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import Assignment, InFlight


class ControlWatch:
    """Knows the controls, and which jobs they are for. All methods are for the asyncio loop.

    Args:
        client: sends commands to Redis.
        fleet: the keys of LOCK_QUEUE.
        in_flight: the jobs in flight.
        clock: the server's clock; told how far the clock of ages is behind.
        background: runs tasks that no caller waits for.
    """

    def __init__(
        self, client: Client, fleet: Keys, *, in_flight: InFlight, clock: ServerClock, background: Background
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._in_flight = in_flight
        self._clock = clock
        self._background = background
        self._controls = NO_CONTROLS
        self._seen = 0
        #: One read at a time: a late answer would bring back what is over by now.
        self._one_read = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        #: Some job ids are remembered as cancelled, as far as the controls tell that this worker obeys.
        self.are_ids_cancelled = False

    @property
    def version(self) -> int:
        """The version that this worker obeys; 0: there were no controls yet."""
        return self._controls.version

    def saw(self, news: FleetNews) -> None:
        """Note the version that is in Redis, and read the controls if it is a new one."""
        self._clock.ages_behind_ms = news.ages_behind_ms
        self._seen = news.controls
        if self._seen != self.version and (self._reading is None or self._reading.done()):
            self._reading = self._background.spawn(self.fresh())

    async def fresh(self) -> None:
        """Return when this worker obeys the version that was seen last."""
        while self._seen != self.version:
            await retry_forever("controls", self._read_if_new)

    async def reload(self) -> None:
        """Read the controls now: this worker has changed them."""
        await retry_forever("controls", self._read)

    def of(self, job: Job) -> Control | None:
        """Return what is in force for a job: a cancel, or else a hold; None: nothing is."""
        return self._controls.of(job, self._clock.now_ms()) if self._controls.controls else None

    @property
    def is_hold_in_force(self) -> bool:
        """True while an operator, or the limit of a rule, holds some jobs."""
        now_ms = self._clock.now_ms()
        controls = self._controls.controls
        return any(control.kind == "hold" and control.note.is_in_force(now_ms) for control in controls)

    async def notes_of(self, job_ids: Sequence[str]) -> Mapping[str, Note]:
        """Return who cancelled these job ids, and why. An id that is not remembered as cancelled is left out."""
        return await retry_forever("controls", partial(self._read_notes, job_ids))

    async def _read_if_new(self) -> None:
        async with self._one_read:
            if self._seen != self.version:
                await self._read_now()

    async def _read(self) -> None:
        async with self._one_read:
            await self._read_now()

    async def _read_now(self) -> None:
        """Read the controls, and mark the jobs in flight whose ids are cancelled."""
        seen = self._seen
        flat = await self._client.execute_command("HGETALL", self._fleet.controls)
        controls = read_controls(dict(zip(flat[::2], flat[1::2], strict=True)))
        # Before the ids: whoever cancels an id writes it first, and the version with it.
        are_ids_cancelled = bool(await self._client.execute_command("EXISTS", self._fleet.cancelled))
        await self._mark_cancelled()
        self._controls = controls
        self.are_ids_cancelled = are_ids_cancelled
        if self._seen == seen:  # else a newer one was seen meanwhile, and is to be read
            self._seen = controls.version

    async def _mark_cancelled(self) -> None:
        """Note in each job in flight who cancelled its id; of jobs that are taken meanwhile, too.

        A job that was not read yet has no id yet. Its claim may have been answered before the id was cancelled, so it
        is to be claimed again.
        """
        marked: set[Assignment] = set()
        while new := [assignment for assignment in self._in_flight.assignments() if assignment not in marked]:
            marked.update(new)
            read = [assignment for assignment in new if assignment.read is not None]
            for assignment in new:
                if assignment.read is None:
                    assignment.delivery.claimed = None
            notes = await self._read_notes([assignment.parsed.id for assignment in read])
            for assignment in read:
                assignment.cancel_note = notes.get(assignment.parsed.id)

    async def _read_notes(self, job_ids: Sequence[str]) -> dict[str, Note]:
        if not job_ids or not await self._client.execute_command("EXISTS", self._fleet.cancelled):
            return {}
        keys = [f"{self._fleet.cancelled_prefix}{digest(job_id)}" for job_id in job_ids]
        texts = await self._client.execute_command("MGET", *keys)
        notes = {job_id: read_note(text) for job_id, text in zip(job_ids, texts, strict=True) if text is not None}
        return {job_id: note for job_id, note in notes.items() if note is not None}
