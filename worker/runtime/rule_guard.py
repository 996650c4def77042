"""Holds a rule that asks for more locks than its limit over the whole fleet: a runaway rule stops by itself.

Each job is counted in Redis before its first call, once: its record says so, also if its worker dies. So a rule gets at
most its limit. Its other jobs are set aside by a hold, as if an operator had set it, until somebody releases it. Then
those go on without being counted, and the rule is counted anew.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import NoScriptError

from tasks import history, progress
from worker.broker.control_moves import RuleCount, count_rules_command
from worker.broker.keys import Keys, digest
from worker.message.control_event import control_event
from worker.message.controls import Control, Note
from worker.message.selector import Selector
from worker.observe import metrics
from worker.runtime.in_flight import Held
from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tasks.rule_limits import RuleLimit
    from worker.broker.control_moves import Trail
    from worker.broker.records import Delivery
    from worker.broker.script_calls import Client
    from worker.runtime.clock import ServerClock
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.in_flight import Assignment

logger = logging.getLogger(__name__)

#: Who holds a rule beyond its limit.
_BY = "RULE_LIMIT"
_HELD_BEFORE, _HELD_BY_THIS_CALL, _NO_ROOM = 1, 2, 3


class Guard(Protocol):
    """Holds jobs before they run."""

    async def apply(self, assignments: Sequence[Assignment]) -> None:
        """Decide to hold those jobs whose rule is beyond its limit."""


class NoGuard:
    """No rule has a limit."""

    async def apply(self, assignments: Sequence[Assignment]) -> None:
        """Do nothing."""


class RuleGuard:
    """Counts the jobs of rules.

    Args:
        client: sends commands to Redis.
        fleet: the keys of LOCK_QUEUE.
        trail: where a hold is noted.
        default: the limit of a rule that has none of its own; None: such rules have none.
        limits: the limits of single rules.
        source: EVENT_SOURCE.
        controls: told when a rule is held.
        clock: the server's clock.
    """

    def __init__(
        self,
        client: Client,
        fleet: Keys,
        trail: Trail,
        *,
        default: RuleLimit | None,
        limits: Mapping[str, RuleLimit],
        source: str,
        controls: ControlWatch,
        clock: ServerClock,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._trail = trail
        self._default = default
        self._limits = limits
        self._source = source
        self._controls = controls
        self._clock = clock

    async def apply(self, assignments: Sequence[Assignment]) -> None:
        """Count the jobs that are about to run for the first time, and decide to hold those beyond a limit.

        The jobs are of one queue.
        """
        counted: dict[str, list[str]] = defaultdict(list)
        for rule, delivery in self._to_count(assignments):
            counted[rule] += delivery.ref, delivery.lease_token
        if not counted:
            return
        rules, keys = list(counted), Keys(assignments[0].delivery.queue)
        answers = await retry_forever("count_rules", partial(self._count, counted, keys))
        for rule, answer in zip(rules, answers, strict=True):
            if answer == _HELD_BY_THIS_CALL:
                metrics.RULES_HELD.inc()
                logger.error("rule_held", extra={"rule": rule, "limit": str(self._limit(rule))})
            elif answer == _NO_ROOM:
                logger.error("rule_not_held", extra={"rule": rule, "limit": str(self._limit(rule))})
        if _HELD_BEFORE in answers or _HELD_BY_THIS_CALL in answers:
            await self._controls.reload()
            for assignment in assignments:
                control = None if assignment.decision is not None else self._controls.of(assignment.accepted.job)
                if control is not None and control.kind == "hold":
                    assignment.decision = Held(control.selector.digest)

    def _to_count(self, assignments: Sequence[Assignment]) -> Iterator[tuple[str, Delivery]]:
        for assignment in assignments:
            if assignment.decision is None and _may_begin(assignment.delivery):
                job = assignment.accepted
                rule = job.job.rule_id
                if rule is not None and not job.is_dry_run and self._limit(rule) is not None:
                    yield rule, assignment.delivery

    def _limit(self, rule: str) -> RuleLimit | None:
        return self._limits.get(rule, self._default)

    async def _count(self, counted: Mapping[str, Sequence[str]], keys: Keys) -> list[int]:
        counts = [self._rule_count(rule, jobs) for rule, jobs in counted.items()]
        call = partial(count_rules_command, self._fleet, self._trail, counts, keys=keys)
        try:
            answer = await self._client.execute_command(*call())
        except NoScriptError:
            answer = await self._client.execute_command(*call(whole_text=True))
        return list(answer)

    def _rule_count(self, rule: str, jobs: Sequence[str]) -> RuleCount:
        limit = self._limit(rule)
        assert limit is not None  # noqa: S101 - see `_to_count`
        note = Note(_BY, f"the rule asked for more than {limit}", at_ms=round(self._clock.now_ms()))
        hold = Control("hold", Selector(rule=rule), note)
        event = control_event(
            "rule_held", note, source=self._source, queue=self._fleet.queue, selector=hold.selector.fields
        )
        return RuleCount(
            digest=digest(rule),
            limit=limit.locks,
            window_ms=limit.seconds * 1000,
            hold=hold.selector.digest,
            text=hold.to_json(),
            event=event,
            jobs=json.dumps(jobs),
        )


def _may_begin(delivery: Delivery) -> bool:
    """Return whether a job may be about to run for the first time. Redis knows whether it was counted before.

    A job that was on hold is not counted: somebody has let it go on.
    """
    if delivery.attempts:
        return False
    return all(entry.reason != history.HOLD for entry in progress.from_bytes(delivery.progress).history)
