"""The limit of open files (``ulimit -n``), and how many jobs at once and queues a worker has room for under it."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

from worker.observe.page_server import MAX_CONNECTIONS

#: What is open beside the calls, the queues and the health port: standard streams, event loops, Celery's connections to
#: Redis, files that are read now and then. An idle worker with one queue has about 25.
_OTHER_FILES = 44
#: Connections to Redis of one queue: its blocking wait, and the moves under way. A worker with 50 queues has about 150.
_FILES_OF_A_QUEUE = 4


def most_jobs(wanted: int, queues: int) -> int:
    """Return how many jobs, at most ``wanted``, may run at once; below 1 where the limit is not enough for one.

    Raises the soft limit to the hard one where ``wanted`` needs it. A worker without a descriptor for a call would
    report that as the API's failure, and one without a descriptor for Redis would come to a halt.
    """
    return min(wanted, _limit(_needed(wanted, queues)) - _needed(0, queues))


def shortage(jobs: int, queues: int) -> str | None:
    """Return why so many jobs from so many queues cannot run at once, with the fix; None where they can.

    Raises the soft limit as :func:`most_jobs` does.
    """
    most = most_jobs(jobs, queues)
    if most >= jobs:
        return None
    needed = _needed(jobs, queues)
    fix = f"raise it to {needed} (ulimit -n {needed}, LimitNOFILE= of systemd, --ulimit nofile={needed} of docker)"
    if most >= 1:
        fix += f", or run {most} jobs at once at most"
    of_queues = "" if queues == 1 else f" from {queues} queues"
    return (
        f"{jobs} jobs at once{of_queues} need up to {needed} open files, and this process may have {_limit(needed)} "
        f"(ulimit -n): {fix}"
    )


def _needed(jobs: int, queues: int) -> int:
    return jobs + MAX_CONNECTIONS + _OTHER_FILES + _FILES_OF_A_QUEUE * queues


def _limit(needed: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _is_enough(soft, needed):
        raised = needed if hard == resource.RLIM_INFINITY else hard
        with suppress(OSError, ValueError):  # some systems take no "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _is_enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
