"""The moves that maintain a queue: they renew leases, and find jobs that are due, lost or too old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker import scripts
from worker.broker.move_limits import (
    EXPIRE_ENTRIES,
    EXPIRE_JOBS,
    KEPT_BYTES,
    LOGGED_JOBS,
    MAX_CONTROLS,
    RELEASE_HELD_JOBS,
    TAKE_BYTES,
    UPKEEP_JOBS,
)
from worker.broker.records import Promoted, Recovered
from worker.broker.script_answers import read_delivery, read_fleet
from worker.broker.script_calls import call_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.broker_options import BrokerOptions
    from worker.broker.keys import Keys
    from worker.broker.records import Delivery
    from worker.broker.script_calls import Argument, Client

#: What recover answers instead of a count while the workers have time to renew their leases.
_GRACE = -2


class MaintenanceMoves:
    """Renews leases, and finds the jobs of one queue that are due, lost or too old.

    All raise what the client raises (:class:`redis.exceptions.RedisError`, :class:`OSError`). After an error the move
    may have been made or not. All may be repeated, but for :meth:`recover` and :meth:`expire`.
    """

    def __init__(self, client: Client, keys: Keys, broker_options: BrokerOptions) -> None:
        self._client = client
        self.keys = keys
        self.broker_options = broker_options

    async def renew(self, jobs: Sequence[Delivery]) -> list[bool]:
        """Renew the leases of jobs; True for each that this worker still has."""
        arguments: list[Argument] = [self.keys.record_prefix, self.broker_options.lease_ms]
        for job in jobs:
            arguments += [job.ref, job.lease_token]
        keys = [self.keys.leases, self.keys.absent]
        return [code == 1 for code in await call_script(self._client, scripts.RENEW, keys, arguments)]

    async def promote(self, *, between_ms: int, version: int = -1) -> Promoted:
        """Make due jobs ready, unless a worker of the fleet did so in the last ``between_ms``.

        ``version`` is the one of the fleet's flow control that the caller knows.
        """
        keys = [
            self.keys.delayed, self.keys.requeued, self.keys.suspects, self.keys.maintenance, self.keys.retries,
            self.keys.deadlines, self.broker_options.fleet.limit, self.broker_options.fleet.pause,
            self.broker_options.fleet.controls, self.keys.absent,
        ]  # fmt: skip
        arguments: list[Argument] = [
            self.keys.record_prefix, self.broker_options.suspicious_crashes, UPKEEP_JOBS, between_ms,
            self.broker_options.max_age_ms,
            version,
        ]  # fmt: skip
        answer = await call_script(self._client, scripts.PROMOTE, keys, arguments)
        count, next_due, next_deadline, fleet, set_aside = answer
        return Promoted(
            None if count < 0 else count,
            None if next_due < 0 else next_due,
            None if next_deadline < 0 else next_deadline,
            read_fleet(fleet),
            set_aside,
        )

    async def recover(self, *, token: str, sent_at: float, between_ms: int) -> Recovered:
        """Make the jobs of dead workers ready, unless a worker of the fleet did so in the last ``between_ms``."""
        keys = [
            self.keys.leases, self.keys.requeued, self.keys.suspects, self.keys.counters, self.keys.maintenance,
            self.keys.retries, self.keys.deadlines, self.keys.lost_takes, self.keys.absent,
        ]  # fmt: skip
        arguments: list[Argument] = [
            self.keys.record_prefix, self.broker_options.suspicious_crashes, self.broker_options.max_deliveries,
            UPKEEP_JOBS, token,
            self.broker_options.lease_ms, between_ms, self.broker_options.silence_ms, self.broker_options.grace_ms,
            TAKE_BYTES, self.broker_options.max_age_ms, LOGGED_JOBS, KEPT_BYTES,
        ]  # fmt: skip
        count, server_ms, workers, messages, *jobs = await call_script(self._client, scripts.RECOVER, keys, arguments)
        poisoned = [read_delivery(job, self.keys, self.broker_options, token, sent_at) for job in jobs]
        return Recovered(
            None if count < 0 else count, int(server_ms), poisoned, is_grace=count == _GRACE,
            workers={name.decode(): jobs for name, jobs in zip(workers[::2], workers[1::2], strict=True)},
            messages=messages,
        )  # fmt: skip

    async def expire(self, *, token: str, sent_at: float) -> list[Delivery]:
        """Take jobs that are ready again and too old, to complete them.

        Do not repeat it blindly: the jobs of a lost answer are leased until they are recovered.
        """
        keys = [
            self.keys.deadlines, self.keys.requeued, self.keys.retries, self.keys.suspects, self.keys.leases,
            self.broker_options.fleet.controls, self.keys.absent,
        ]  # fmt: skip
        arguments: list[Argument] = [
            self.keys.record_prefix, EXPIRE_JOBS, TAKE_BYTES, token, self.broker_options.lease_ms,
            self.broker_options.suspicious_crashes, EXPIRE_ENTRIES,
        ]  # fmt: skip
        _, *jobs = await call_script(self._client, scripts.EXPIRE, keys, arguments)
        return [read_delivery(job, self.keys, self.broker_options, token, sent_at) for job in jobs]

    async def release_held(self) -> int:
        """Make jobs ready whose hold is released or over; returns how many, RELEASE_HELD_JOBS at most."""
        keys = [
            self.keys.held, self.broker_options.fleet.controls, self.keys.requeued, self.keys.retries,
            self.keys.suspects, self.keys.deadlines, self.keys.absent,
        ]  # fmt: skip
        arguments: list[Argument] = [
            self.keys.record_prefix, self.broker_options.suspicious_crashes, RELEASE_HELD_JOBS,
            self.broker_options.max_age_ms, MAX_CONTROLS,
        ]  # fmt: skip
        moved = await call_script(self._client, scripts.RELEASE_HELD, keys, arguments)
        return int(str(moved))
