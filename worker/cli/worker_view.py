"""Shows one worker of a fleet: to people in a few lines, and to programs as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from worker.cli.durations import duration
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.runtime.members import Member

#: A last error that is older than this is not shown to people, in seconds: the calls after it were answered.
_OLD_ERROR_SECONDS = 600.0


def worker_lines(member: Member, now: float) -> Iterator[str]:
    """Describe a worker to people; ``now`` is in seconds since 1970."""
    activity = member.activity
    facts = [f"{activity.in_flight}/{activity.slots} slots"]
    if member.since:
        facts.append(f"up {duration(now - member.since)}")
    if member.version:
        facts.append(f"version {printable(member.version)}")
    if member.host and member.host not in member.name:
        facts.append(f"on {printable(member.host)}")
    yield f"  {printable(member.title)}: {', '.join(facts)}"
    for breaker in activity.breakers:
        yield f"    holds back: {printable(breaker.reason)} for {duration(now - breaker.since)}"
    error = activity.last_error
    if error is not None and (activity.breakers or now - error.at < _OLD_ERROR_SECONDS):
        status = "" if error.status is None else f" ({error.status})"
        yield f"    last failed call {duration(now - error.at)} ago{status}: {printable(error.text)}"


def worker_json(member: Member, now: float) -> dict[str, Any]:
    """Describe a worker to programs."""
    activity, error = member.activity, member.activity.last_error
    return {
        "name": member.name,
        "worker": member.worker,
        "version": member.version,
        "host": member.host,
        "since": _time(member.since),
        "queues": member.queues,
        "slots": activity.slots,
        "in_flight": activity.in_flight,
        "open_breakers": [
            {"reason": breaker.reason, "since": _time(breaker.since), "seconds": round(now - breaker.since, 1)}
            for breaker in activity.breakers
        ],
        "last_error": None
        if error is None
        else {"time": _time(error.at), "status": error.status, "detail": error.text},
        "settings": member.settings,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
