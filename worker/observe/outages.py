"""What the log tells of trouble with Redis: when it begins, then each minute with a count, and when it is over.

What is to be done about it is told as soon as it is known: a lost connection says less than the refusal that follows.
All parts of a worker tell what failed and what worked; one outage makes one line, however many parts meet it. Trouble
with the server as a whole is one outage. A refusal that concerns one kind of call, such as a key of the wrong type, is
an outage of that part alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from worker.broker.refusals import connection_is_useless, meaning

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.refusals import Meaning

logger = logging.getLogger(__name__)

#: Seconds between two lines on one outage.
REPEAT_SECONDS = 60.0
#: An outage is over when each part that failed has worked again, and for each queue; or when nothing has failed for so
#: many seconds: some parts make no call for a while. One that begins within that time after another is the same one,
#: but for a refusal in other words.
QUIET_SECONDS = 10.0

_THE_SERVER = ""


@dataclass(slots=True)
class _Outage:
    began_at: float
    told_at: float
    failed_at: float
    failures: Counter[str] = field(default_factory=Counter)
    #: What has not worked since: parts; where it is the outage of one part, queues.
    failing: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)
    error: str = ""
    meanings: set[Meaning] = field(default_factory=set)
    over_at: float | None = None
    is_flapping: bool = False

    def is_news_of(self, queue: str, error: str) -> bool:
        """Whether a queue meets it for the first time, and in other words than the one before, such as another key."""
        is_known = queue in self.queues
        self.queues.add(queue)
        return not is_known and error != self.error


class Outages:
    """Shared by the threads of a worker.

    Args:
        now: gives the seconds of a monotonic clock.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}
        self._are_open = False

    def failed(self, part: str, error: BaseException, *, queue: str = "", **facts: Any) -> None:
        """A call failed, and will be made again.

        Args:
            part: what made the call; one of a few words.
            error: what was raised.
            queue: the queue that the call was for, where the part makes it for several.
            facts: what else helps whoever reads the line; only of the first failure.
        """
        is_of_one_part = isinstance(error, ResponseError) and not connection_is_useless(error)
        scope = part if is_of_one_part else _THE_SERVER
        means = meaning(error)
        now = self._now()
        with self._lock:
            outage = self._outages.get(scope)
            if outage is not None and outage.over_at is not None:
                is_another = is_of_one_part and str(error) != outage.error
                if is_another or now - outage.over_at > QUIET_SECONDS:
                    outage = None
            is_new = outage is None
            if outage is None:
                outage = self._outages[scope] = _Outage(now, now, now)
            is_told = is_new or now - outage.told_at >= REPEAT_SECONDS
            if means is not None and means not in outage.meanings:
                outage.meanings.add(means)
                is_told = True
            if is_of_one_part:
                is_told |= outage.is_news_of(queue, str(error))
            if outage.over_at is not None:
                outage.over_at, outage.is_flapping = None, True
            outage.failed_at, outage.error = now, str(error)
            outage.failures[part] += 1
            outage.failing.add(queue if is_of_one_part else part)
            if is_told:
                outage.told_at = now
            counts = dict(outage.failures)
            seconds = round(now - outage.began_at, 1)
            self._are_open = True
        where = {"queue": queue} if queue and (is_new or is_of_one_part) else {}
        if is_new:
            logger.error(
                "redis_refuses" if is_of_one_part else "redis_unavailable",
                extra={"part": part, "error": str(error), **_explained(means), **where, **facts},
            )
        elif is_told:
            logger.error(
                "redis_still_refuses" if is_of_one_part else "redis_still_unavailable",
                extra={"seconds": seconds, "failures": counts, "error": str(error), **_explained(means), **where},
            )

    def worked(self, part: str, queue: str = "") -> None:
        """A call was answered."""
        if self._are_open:
            self._look(part, queue)

    def _look(self, part: str, queue: str) -> None:
        now = self._now()
        over: list[tuple[str, _Outage]] = []
        with self._lock:
            for scope in {_THE_SERVER, part} & self._outages.keys():
                outage = self._outages[scope]
                outage.failing.discard(part if scope == _THE_SERVER else queue)
                has_passed = not (outage.failing or outage.is_flapping) or now - outage.failed_at > QUIET_SECONDS
                if outage.over_at is None and has_passed:
                    outage.over_at = now
                    over.append((scope, outage))
            self._are_open = any(outage.over_at is None for outage in self._outages.values())
        for scope, outage in over:
            # A warning, so that whoever heard of the trouble hears of its end at the same level.
            logger.warning(
                "redis_refuses_no_more" if scope else "redis_available",
                extra={"seconds": round(now - outage.began_at, 1), "failures": dict(outage.failures)},
            )


def _explained(means: Meaning | None) -> dict[str, str]:
    return {} if means is None else {"problem": means.problem, "advice": means.advice}


#: Those of this process.
outages = Outages()
