"""Remembers job ids that were revoked through Celery: Celery itself forgets them when its workers end.

Celery sends a revoke to all workers, and each asks for it to be remembered. Redis notes it once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import NoScriptError

from worker.broker.control_moves import cancel_command
from worker.broker.keys import digest
from worker.message.control_event import control_event
from worker.message.controls import Note
from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.control_moves import Trail
    from worker.broker.keys import Keys
    from worker.broker.script_calls import Client
    from worker.runtime.clock import ServerClock

_DAY_MS = 86_400_000
#: So many ids are remembered by one call at most.
_IDS_AT_ONCE = 500


class Revokes:
    """Remembers revoked job ids.

    Args:
        client: sends commands to Redis.
        fleet: the keys of LOCK_QUEUE.
        trail: where it is noted.
        max_age_ms: how long a job may live, in milliseconds; 0: for ever. Ids are remembered as long, a day at least.
        source: EVENT_SOURCE.
        clock: the server's clock.
    """

    def __init__(
        self, client: Client, fleet: Keys, trail: Trail, *, max_age_ms: int, source: str, clock: ServerClock
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._trail = trail
        self._ttl_ms = max(max_age_ms, _DAY_MS)
        self._source = source
        self._clock = clock

    async def remember(self, job_ids: Sequence[str]) -> None:
        """Remember that these job ids are revoked."""
        for start in range(0, len(job_ids), _IDS_AT_ONCE):
            await retry_forever("revoke", partial(self._remember, job_ids[start : start + _IDS_AT_ONCE]))

    async def _remember(self, job_ids: Sequence[str]) -> None:
        note = Note("Celery", "revoked through Celery", at_ms=round(self._clock.now_ms()), is_revoke=True)
        event = control_event("revoked", note, source=self._source, queue=self._fleet.queue, job_ids=list(job_ids))
        call = partial(
            cancel_command,
            self._fleet,
            self._trail,
            [digest(job_id) for job_id in job_ids],
            text=note.to_json(),
            ttl_ms=self._ttl_ms,
            event=event,
            is_new_only=True,
        )
        try:
            await self._client.execute_command(*call())
        except NoScriptError:
            await self._client.execute_command(*call(whole_text=True))
