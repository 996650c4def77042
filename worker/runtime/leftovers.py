"""Jobs that no worker will take: what an earlier worker left in Redis.

A stock Celery worker that is killed leaves the jobs that it had in kombu's ``unacked``, and only another stock worker
would ever push them back. When LOCK_QUEUE names another queue than before, what waits on the old one waits for good.
"""

from __future__ import annotations

import json
import logging
import shlex
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from tasks.message import Rejection
from tasks.outcome import ProblemType
from tasks.task_name import TASK_NAME
from worker.broker.keys import MAX_PRIORITY, PREFIX, PRIORITY_SEPARATOR, UNACKED, Keys, is_celerys_own, is_in_slot
from worker.message.decode import decoder
from worker.runtime.members import read_members

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from redis import Redis

logger = logging.getLogger(__name__)

_NAMES_A_SCAN = 1000
#: So many calls of a scan a starting worker makes at most: a fleet that starts must not hold the server up.
_SCANS_AT_START = 200
#: Few entries a call: each may have a MiB.
_ENTRIES_A_SCAN = 20
_ENTRIES_AT_START = 1000
_PAUSE_SECONDS = 0.002
_MESSAGES_A_PAGE = 100
#: When a worker looks: at its start, once the workers before it are forgotten, and then each hour.
_FIRST_LOOKS = (0.0, 45.0)
_LOOK_AGAIN_SECONDS = 3600.0

_read_message = decoder(TASK_NAME)


@dataclass(frozen=True, slots=True)
class Unacked:
    """A job in kombu's ``unacked``: its tag there, its id, and its message as kombu would push it back."""

    tag: bytes
    job_id: str
    message: bytes = field(repr=False)
    priority: int


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A queue with jobs that no worker takes from. ``is_ours``: workers of this product took from it before."""

    queue: str
    jobs: int
    is_ours: bool


def unacked_jobs(client: Redis, queues: Collection[str]) -> Iterator[Unacked | None]:
    """Yield what stock workers took and did not acknowledge; None for each entry that is no job of ours.

    ``queues`` are ours: what lies there ends in an event, even where it cannot be read as a job.
    """
    for tag, entry in client.hscan_iter(UNACKED, count=_ENTRIES_A_SCAN):
        yield _unacked(tag, entry, queues)


def _unacked(tag: bytes, entry: bytes, queues: Collection[str]) -> Unacked | None:
    try:
        message, _, routing_key = json.loads(entry)
        raw = json.dumps(message).encode()
        priority = message["properties"].get("priority") if isinstance(message["properties"], dict) else 0
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_ours, job_id = _is_ours(raw)
    if not is_ours and not (isinstance(routing_key, str) and routing_key in queues):
        return None
    if not isinstance(priority, int) or not 0 <= priority <= MAX_PRIORITY:
        priority = 0
    return Unacked(tag, job_id, raw, priority)


def _is_ours(raw: bytes) -> tuple[bool, str]:
    """Return whether a message asks for our task, as far as it can be read, and its id."""
    intake = _read_message(raw, size=len(raw), now=datetime.now(UTC))
    is_foreign = isinstance(intake, Rejection) and intake.problem.type in {
        ProblemType.UNKNOWN_TASK,
        ProblemType.UNDECODABLE,
    }
    return not is_foreign, intake.id


def abandoned_queues(
    client: Redis, own: Collection[str], *, scans: int | None = None, tag: str = ""
) -> list[Abandoned]:
    """Return the queues with jobs of ours that no registered worker takes from.

    Args:
        client: a client of the server.
        own: queues that jobs are taken from for sure.
        scans: calls of each scan at most; None: to the end.
        tag: the hash tag of a cluster: jobs of queues without it are in another slot.
    """
    taken, known = set(own), set()
    seconds, microseconds = client.time()
    for key in _scan(client, scans, match=f"{PREFIX}:*:[mw][ao]*"):
        queue = key.removeprefix(f"{PREFIX}:")
        if queue.endswith(":maintenance"):
            known.add(queue.removesuffix(":maintenance"))
        elif queue.endswith(":workers"):
            workers: Any = client.hgetall(key)
            for member in read_members(workers, seconds * 1000 + microseconds / 1000):
                taken.update(member.queues)
    others = set()
    for key in _scan(client, scans, _type="list"):
        queue = key.partition(PRIORITY_SEPARATOR)[0]
        is_candidate = queue not in taken and queue not in known and not queue.startswith(f"{PREFIX}:")
        if is_candidate and not is_celerys_own(queue) and _has_a_job_of_ours(client, key):
            others.add(queue)
    found = [(queue, queue in known) for queue in sorted((known | others) - taken) if is_in_slot(queue, tag)]
    counted = (Abandoned(queue, count_jobs(client, Keys(queue)), is_ours) for queue, is_ours in found)
    return [each for each in counted if each.jobs]


def count_jobs(client: Redis, keys: Keys) -> int:
    """Return how many jobs a queue has: ready, delayed, on hold and in flight."""
    with client.pipeline(transaction=False) as look:
        for name in keys.ready:
            look.llen(name)
        for name in (keys.delayed, keys.held, keys.leases):
            look.zcard(name)
        return sum(look.execute())


def count_foreign(client: Redis, keys: Keys) -> int:
    """Return how many messages on a queue's lists do not ask for our task."""
    foreign = 0
    for name in keys.priority_lists:
        start = 0
        while page := _page(client, name, start):
            foreign += sum(not _is_ours(raw)[0] for raw in page)
            start += len(page)
    return foreign


def _page(client: Redis, name: str, start: int) -> list[bytes]:
    page: Any = client.lrange(name, start, start + _MESSAGES_A_PAGE - 1)
    return list(page)


def _has_a_job_of_ours(client: Redis, key: str) -> bool:
    try:
        oldest: Any = client.lindex(key, -1)
    except ResponseError:  # the access control list does not let us look at it, so it is none of ours
        return False
    return oldest is not None and _is_ours(oldest)[0]


def _scan(client: Redis, scans: int | None, **which: Any) -> Iterator[str]:
    cursor, calls = 0, 0
    while scans is None or calls < scans:
        answer: Any = client.scan(cursor, count=_NAMES_A_SCAN, **which)
        cursor, names = answer
        for name in names:
            yield name.decode(errors="replace")
        calls += 1
        if not cursor:
            return
        time.sleep(_PAUSE_SECONDS)


def look_in_the_background(
    connect: Callable[[], Redis], queues: Callable[[], Collection[str]], *, tag: str = ""
) -> None:
    """Log what was left, and again whenever there is more; in a thread of its own, because nothing waits for that.

    ``tag`` is the hash tag of a cluster.
    """

    def look() -> None:
        reported: dict[str, int] = {}
        for wait in chain(_FIRST_LOOKS, repeat(_LOOK_AGAIN_SECONDS)):
            time.sleep(wait)
            try:
                with connect() as client:
                    _report(client, queues(), reported, tag=tag)
            except (RedisError, OSError) as error:  # only advice is lost; other parts log what is wrong
                logger.info("leftovers_not_looked_for", extra={"error": str(error)})
            except Exception:  # what others left there must not end the looks
                logger.exception("leftovers_not_looked_for")

    threading.Thread(target=look, name="leftovers", daemon=True).start()


def _report(client: Redis, queues: Collection[str], reported: dict[str, int], *, tag: str = "") -> None:
    unacked = 0 if tag else _count_unacked(client, queues)  # no stock Celery worker runs on a cluster
    if unacked > reported.get("", 0):
        logger.warning(
            "unacked_jobs_found",
            extra={
                "jobs": unacked,
                "advice": "Stock Celery workers took them and did not acknowledge them. Where such a worker still "
                "runs, it ends them itself; what a dead one left is nobody's until `lock-worker adopt` brings it in.",
            },
        )
    abandoned = abandoned_queues(client, queues, scans=_SCANS_AT_START, tag=tag)
    for left in abandoned:
        if left.jobs > reported.get(left.queue, 0):
            logger.warning(
                "queue_abandoned",
                extra={
                    "queue": left.queue,
                    "jobs": left.jobs,
                    "advice": "No worker takes from it. "
                    f"`lock-worker adopt --queue {shlex.quote(left.queue)}` brings its jobs in; or let workers take "
                    "from it too (-Q), if its jobs are to stay there.",
                },
            )
    reported.clear()  # so that the next jobs on a queue that has none now are reported
    reported.update({left.queue: left.jobs for left in abandoned})
    reported[""] = unacked


def _count_unacked(client: Redis, queues: Collection[str]) -> int:
    jobs = unacked_jobs(client, queues)
    return sum(job is not None for job in islice(jobs, _ENTRIES_AT_START))
