"""The moves of the jobs that a worker takes and settles.

They run over a client that repeats no command by itself (``worker.broker.client``). Their arguments and answers are
in ``worker.broker.records``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import NoScriptError

from worker.broker import scripts
from worker.broker.follow_up import FollowUp
from worker.broker.keys import ledger_of
from worker.broker.move_limits import KEPT_BYTES, LOST_TAKE_MS
from worker.broker.records import ClaimAnswer, CompleteAnswer, Duplicate
from worker.broker.script_calls import call_script, command
from worker.broker.take import read_take, take_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.broker_options import BrokerOptions
    from worker.broker.keys import Keys
    from worker.broker.records import Claim, Completion, Delay, Delivery, Taken, TakeRequest
    from worker.broker.script_calls import Argument, Client, Command
    from worker.broker.scripts import Script

#: The members by their number: to look a member up by its value would take longer than to read the rest of an answer.
_CLAIM_ANSWERS = tuple(ClaimAnswer)
_COMPLETE_ANSWERS = tuple(CompleteAnswer)


class JobMoves:
    """Takes, claims, completes, delays and releases the jobs of one queue.

    All raise what the client raises (:class:`redis.exceptions.RedisError`, :class:`OSError`). After an error the move
    may have been made or not. All may be repeated, but for :meth:`take` and :meth:`restore_attempts`.
    """

    def __init__(self, client: Client, keys: Keys, broker_options: BrokerOptions) -> None:
        self._client = client
        self.keys = keys
        self.broker_options = broker_options

    async def take(
        self, request: TakeRequest, *, token: str, worker: str, sent_at: float, follow_up: FollowUp | None = None
    ) -> Taken:
        """Take jobs. ``sent_at`` is the present monotonic time.

        Do not repeat it blindly: the jobs of a lost answer are leased until they are recovered.
        """
        call = partial(take_command, self.keys, self.broker_options, token=token, worker=worker, request=request)
        try:
            answer = await (
                self._client.execute_command(*call()) if follow_up is None else follow_up.send_behind(call())
            )
        except NoScriptError:
            answer = await self._client.execute_command(*call(whole_text=True))
        return read_take(answer, self.keys, self.broker_options, token=token, sent_at=sent_at, wanted=request.wanted)

    async def wait(self, seconds: float) -> bytes | None:
        """Wait for a message on the producers' first list, and move it to ``arrived``, where the next take finds it.

        Returns the message, or None if none came in time.
        """
        message: bytes | None = await self._client.execute_command(*self._wait_command(seconds))
        return message

    def follow_up(self, claim: Claim | None, *, wait_seconds: float) -> FollowUp:
        """Return the claim of an id and the next wait, to be sent behind a take."""
        claiming = None if claim is None else (claim, command(*self._claiming([claim])))
        return FollowUp(self._client, claiming, self._wait_command(wait_seconds))

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimAnswer]:
        """Claim job ids before the first call; returns one answer for each."""
        return [_CLAIM_ANSWERS[code] for code in await call_script(self._client, *self._claiming(claims))]

    async def complete(self, completions: Sequence[Completion]) -> list[CompleteAnswer | Duplicate]:
        """Complete jobs: publish events, keep dead letters and job ids, and delete the records, in one step."""
        arguments: list[Argument] = [
            self.keys.record_prefix, self.keys.id_prefix, self.broker_options.results,
            self.broker_options.results_maxlen, self.broker_options.dead_maxlen, self.broker_options.dedup_ttl_ms,
            self.broker_options.bounds.results_bytes, self.broker_options.bounds.dead_bytes, self.keys.queue,
            KEPT_BYTES,
        ]  # fmt: skip
        for end in completions:
            arguments += [
                end.ref,
                end.lease_token,
                end.event,
                end.outcome,
                int(end.is_dead_letter),
                end.id_digest,
                end.fingerprint,
                int(end.is_dry_run),
                int(end.has_own_id),
            ]
        keys = [
            self.keys.leases, self.keys.counters, self.broker_options.results, self.broker_options.dead,
            ledger_of(self.broker_options.results), ledger_of(self.broker_options.dead), self.keys.absent,
        ]  # fmt: skip
        answers = await call_script(self._client, scripts.COMPLETE, keys, arguments)
        return [
            _COMPLETE_ANSWERS[answer]
            if isinstance(answer, int)
            else Duplicate(answer.decode("utf-8", "replace") or None)
            for answer in answers
        ]

    async def delay(self, delays: Sequence[Delay]) -> list[bool]:
        """Delay jobs; True for each that this worker still had."""
        arguments: list[Argument] = [self.keys.record_prefix]
        for delay in delays:
            job = delay.delivery
            arguments += [
                job.ref, job.lease_token, math.ceil(delay.seconds * 1000), job.attempts, "1" if delay.is_retry else "",
                delay.deadline_ms, delay.progress,
            ]  # fmt: skip
        keys = [
            self.keys.leases, self.keys.delayed, self.keys.counters, self.broker_options.fleet.controls,
            self.keys.absent,
        ]  # fmt: skip
        return [code == 1 for code in await call_script(self._client, scripts.DELAY, keys, arguments)]

    async def hold(self, holds: Sequence[tuple[Delivery, str]]) -> list[bool]:
        """Set jobs aside, each with the digest of its hold; True for each that this worker still had."""
        arguments: list[Argument] = [self.keys.record_prefix]
        for job, hold in holds:
            arguments += [job.ref, job.lease_token, hold, job.attempts, job.progress]
        keys = [
            self.keys.leases, self.keys.held, self.keys.counters, self.broker_options.fleet.controls, self.keys.absent,
        ]  # fmt: skip
        return [code == 1 for code in await call_script(self._client, scripts.HOLD, keys, arguments)]

    async def release(self, jobs: Sequence[Delivery]) -> list[bool]:
        """Release jobs, to be taken again at once; True for each that this worker still had."""
        arguments: list[Argument] = [
            self.keys.record_prefix,
            self.broker_options.suspicious_crashes,
            self.broker_options.max_age_ms,
        ]
        for job in jobs:
            arguments += [job.ref, job.lease_token, job.attempts, job.progress]
        keys = [
            self.keys.leases, self.keys.requeued, self.keys.suspects, self.keys.counters, self.keys.retries,
            self.keys.deadlines, self.keys.absent,
        ]  # fmt: skip
        return [code == 1 for code in await call_script(self._client, scripts.RELEASE, keys, arguments)]

    async def note_lost_takes(self, tokens: Sequence[str]) -> None:
        """Note takes whose answers were lost: their jobs are recovered without a crash, as no worker died on them."""
        keys = [self.keys.lost_takes, self.keys.absent]
        await call_script(self._client, scripts.LOST_TAKES, keys, [LOST_TAKE_MS, *tokens])

    async def restore_attempts(self, jobs: Sequence[tuple[str, int]]) -> None:
        """Lower the attempts of waiting jobs, each a ref and a number. Do not repeat it: each call lowers them."""
        arguments: list[Argument] = [self.keys.record_prefix]
        for ref, attempts in jobs:
            arguments += [ref, attempts]
        keys = [self.keys.delayed, self.keys.absent]
        await call_script(self._client, scripts.RESTORE_ATTEMPTS, keys, arguments)

    def _wait_command(self, seconds: float) -> Command:
        return ["BLMOVE", self.keys.priority_lists[0], self.keys.arrived, "RIGHT", "LEFT", str(seconds)]

    def _claiming(self, claims: Sequence[Claim]) -> tuple[Script, list[str], list[Argument]]:
        arguments = [part for claim in claims for part in (claim.id_digest, claim.fingerprint, int(claim.is_dry_run))]
        fleet = self.broker_options.fleet
        return (
            scripts.CLAIM,
            [fleet.cancelled, fleet.absent],
            [self.keys.id_prefix, self.broker_options.dedup_ttl_ms, fleet.cancelled_prefix, *arguments],
        )
