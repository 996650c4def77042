"""Logs outages of Redis: the beginning, then a count each minute, and the end.

All parts of a worker report here which of their calls fail and which work. One outage makes one line, however many
parts meet it. The line has advice as soon as the reason is known; often a lost connection comes first and the refusal
that explains it later. Trouble with the whole server is one outage. A refusal of one kind of call, such as for a key of
the wrong type, is an outage of that part alone.
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
#: An outage is over when each part that failed has worked again, for each queue; or when nothing has failed for so many
#: seconds, as some parts make no calls for a while. An outage that begins within that time after another is the same
#: one, unless it is a different refusal.
QUIET_SECONDS = 10.0

_THE_SERVER = ""


@dataclass(slots=True)
class _Outage:
    began_at: float
    logged_at: float
    failed_at: float
    failures: Counter[str] = field(default_factory=Counter)
    #: What has not worked since: the parts, or for the outage of one part, the queues.
    failing: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)
    error: str = ""
    meanings: set[Meaning] = field(default_factory=set)
    over_at: float | None = None
    is_flapping: bool = False

    def is_news_of(self, queue: str, error: str) -> bool:
        """Return True if a queue meets the outage for the first time, and with another error (such as another key)."""
        is_known = queue in self.queues
        self.queues.add(queue)
        return not is_known and error != self.error


class Outages:
    """The outages that a process knows of; thread-safe.

    Args:
        now: returns the seconds of a monotonic clock.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}
        self._are_open = False

    def failed(self, part: str, error: BaseException, *, queue: str = "", **facts: Any) -> None:
        """Record that a call failed and will be made again.

        Args:
            part: the part of the worker that made the call; one of a few labels.
            error: the error that the call raised.
            queue: the queue of the call, if the part makes calls for several.
            facts: further fields for the first line of the outage.
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
            is_logged = is_new or now - outage.logged_at >= REPEAT_SECONDS
            if means is not None and means not in outage.meanings:
                outage.meanings.add(means)
                is_logged = True
            if is_of_one_part:
                is_logged |= outage.is_news_of(queue, str(error))
            if outage.over_at is not None:
                outage.over_at, outage.is_flapping = None, True
            outage.failed_at, outage.error = now, str(error)
            outage.failures[part] += 1
            outage.failing.add(queue if is_of_one_part else part)
            if is_logged:
                outage.logged_at = now
            counts = dict(outage.failures)
            seconds = round(now - outage.began_at, 1)
            self._are_open = True
        where = {"queue": queue} if queue and (is_new or is_of_one_part) else {}
        if is_new:
            logger.error(
                "redis_refuses" if is_of_one_part else "redis_unavailable",
                extra={"part": part, "error": str(error), **_explained(means), **where, **facts},
            )
        elif is_logged:
            logger.error(
                "redis_still_refuses" if is_of_one_part else "redis_still_unavailable",
                extra={"seconds": seconds, "failures": counts, "error": str(error), **_explained(means), **where},
            )

    def worked(self, part: str, queue: str = "") -> None:
        """Record that a call was answered."""
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
            # A warning, so that an operator who is told of the beginning is told of the end.
            logger.warning(
                "redis_refuses_no_more" if scope else "redis_available",
                extra={"seconds": round(now - outage.began_at, 1), "failures": dict(outage.failures)},
            )


def _explained(means: Meaning | None) -> dict[str, str]:
    return {} if means is None else {"problem": means.problem, "advice": means.advice}


#: The outages of this process.
outages = Outages()
