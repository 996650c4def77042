"""Whether this process may open as many files as the jobs need that it works on at once: a connection is one."""

from __future__ import annotations

import resource
from contextlib import suppress

from worker.observe.page_server import MAX_CONNECTIONS

#: What is open beside the calls and the health port: standard streams, event loops, connections to Redis, files that
#: are read now and then. An idle worker has about 25.
_OTHER_FILES = 48


def shortage(concurrency: int) -> str | None:
    """Why so many jobs at once cannot be worked on, with the fix; None where they can.

    Raises the soft limit to the hard limit where that is enough. A worker without a descriptor for a call would tell
    that as the API's failure, and one without a descriptor for Redis would come to a stand.
    """
    needed = concurrency + MAX_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_enough(soft, needed):
        return None
    if _is_enough(hard, needed):
        with suppress(OSError, ValueError):  # some systems take no "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else hard, hard))
            return None
    most = hard - (needed - concurrency)
    fix = f"raise it to {needed} (ulimit -n {needed}, LimitNOFILE= of systemd, --ulimit nofile={needed} of docker)"
    if most >= 1:
        fix += f", or set CONCURRENCY to {most} at most"
    return (
        f"lock-worker does not start: CONCURRENCY: {concurrency} jobs at once need up to {needed} open files, and this "
        f"process may have {hard} (ulimit -n): {fix}"
    )


def _is_enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
