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

    from worker.broker.redis_problems import Meaning

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
    is_of_one_part: bool
    began_at: float
    failed_at: float
    #: None until the first line, which is logged when it begins.
    logged_at: float | None = None
    failures: Counter[str] = field(default_factory=Counter)
    #: What has not worked since: the parts, or for the outage of one part, the queues.
    failing: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)
    error: str = ""
    meanings: set[Meaning] = field(default_factory=set)
    over_at: float | None = None
    is_flapping: bool = False

    def note_failure(self, part: str, queue: str, error: str, means: Meaning | None, now: float) -> bool:
        """Record a failed call; return True if a line is to be logged for it."""
        is_due = self.logged_at is None or now - self.logged_at >= REPEAT_SECONDS
        is_explained_now = means is not None and means not in self.meanings
        # Another queue meets the outage of one part with another error, which may name another key.
        is_another_queue = self.is_of_one_part and queue not in self.queues and error != self.error
        if means is not None:
            self.meanings.add(means)
        if self.is_of_one_part:
            self.queues.add(queue)
        if self.over_at is not None:
            self.over_at, self.is_flapping = None, True
        self.failed_at, self.error = now, error
        self.failures[part] += 1
        self.failing.add(queue if self.is_of_one_part else part)
        is_logged = is_due or is_explained_now or is_another_queue
        if is_logged:
            self.logged_at = now
        return is_logged


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
        means = meaning(error)
        now = self._now()
        with self._lock:
            outage, is_new = self._outage_of(part, error, now, is_of_one_part=is_of_one_part)
            is_logged = outage.note_failure(part, queue, str(error), means, now)
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

    def _outage_of(self, part: str, error: BaseException, now: float, *, is_of_one_part: bool) -> tuple[_Outage, bool]:
        """Return the outage that an error belongs to, and True if it begins with this error."""
        scope = part if is_of_one_part else _THE_SERVER
        outage = self._outages.get(scope)
        if outage is not None and outage.over_at is not None:
            is_another = is_of_one_part and str(error) != outage.error
            if is_another or now - outage.over_at > QUIET_SECONDS:
                outage = None
        if outage is not None:
            return outage, False
        outage = self._outages[scope] = _Outage(is_of_one_part, began_at=now, failed_at=now)
        return outage, True

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
            # A warning, so that an operator who filters out lower levels sees the end as well as the beginning.
            logger.warning(
                "redis_refuses_no_more" if scope else "redis_available",
                extra={"seconds": round(now - outage.began_at, 1), "failures": dict(outage.failures)},
            )


def _explained(means: Meaning | None) -> dict[str, str]:
    return {} if means is None else {"problem": means.problem, "advice": means.advice}


#: The outages of this process.
outages = Outages()
