"""The workers of a fleet as they describe themselves in Redis: read by every worker and by the command line.

Each description is one JSON object in the hash ``workers``, behind the time of its registration and a digest of the
settings that must agree.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from worker.broker.move_limits import WORKER_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_REGISTERED = re.compile(rb"(\d{1,15}) \S+ (.*)", re.DOTALL)
#: A text of a description is shown up to this many characters: somebody else may have written it.
_MAX_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A breaker of a worker that is open; ``since`` is in seconds since 1970, by the clock of Redis."""

    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class ApiError:
    """The last call of a worker that failed.

    Attributes:
        at: when, in seconds since 1970, by the clock of Redis.
        status: the HTTP status; None: there was no answer.
        text: a short text for people; never a body of the API.
    """

    at: float
    status: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Activity:
    """What a worker does at the moment.

    Attributes:
        slots: the most jobs that it runs at once.
        in_flight: the jobs that it has.
        controls: the version of the operators' controls that it obeys.
        breakers: those that are open.
        last_error: its last call that failed.
        calls: the calls of the fleet in the last half minute, as far as it knows, without those refused for load.
        failed_calls: those of them that failed.
    """

    slots: int = 0
    in_flight: int = 0
    controls: int = 0
    breakers: tuple[OpenBreaker, ...] = ()
    last_error: ApiError | None = None
    calls: int = 0
    failed_calls: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A worker of the fleet, as it describes itself.

    Attributes:
        worker: its name in Redis, new for every process.
        name: its name in Celery.
        version: of the program.
        host: where it runs.
        since: when it started, in seconds since 1970, by its host's clock.
        queues: the queues that it takes from.
        settings: those that must be the same in the whole fleet.
        activity: what it does.
        registered: when it registered last, in seconds since 1970, by the clock of Redis.
        title: its name for people; behind a name that several workers have, the name in Redis tells them apart.
    """

    worker: str
    name: str
    version: str
    host: str
    since: float
    queues: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    activity: Activity = field(default_factory=Activity)
    registered: float = 0.0
    title: str = ""


def described(member: Member) -> str:
    """Return a description as JSON, without the name in Redis, which is the field of the hash."""
    values = asdict(member)
    del values["worker"], values["registered"], values["title"]
    return json.dumps(values)


def read_member(worker: str, description: bytes) -> Member | None:
    """Parse a description; None if something else is written there.

    What is missing in one, as in that of another version, gets a default: whoever registered there takes jobs.
    """
    try:
        found = json.loads(description)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    queues, settings = found.get("queues"), found.get("settings")
    queues, settings = queues if isinstance(queues, list) else [], settings if isinstance(settings, dict) else {}
    return Member(
        worker=worker,
        name=_text(found.get("name")) or worker,
        version=_text(found.get("version")),
        host=_text(found.get("host")),
        since=_number(found.get("since")),
        queues=tuple(queue for queue in queues if isinstance(queue, str)),
        settings={name: value for name, value in settings.items() if isinstance(value, str | int | float | None)},
        activity=_activity(found.get("activity")),
    )


def read_members(workers: Mapping[bytes, bytes], now_ms: float) -> list[Member]:
    """Return the workers that registered lately, from the hash in Redis, in the order of their names."""
    return sorted(told_apart(list(_registered(workers, now_ms))), key=lambda member: (member.name, member.worker))


def told_apart(members: Sequence[Member]) -> list[Member]:
    """Return the same workers with the title of each."""
    names = Counter(member.name for member in members)
    return [
        replace(member, title=f"{member.name} ({_text(member.worker)})" if names[member.name] > 1 else member.name)
        for member in members
    ]


def _registered(workers: Mapping[bytes, bytes], now_ms: float) -> Iterator[Member]:
    for worker, value in workers.items():
        parts = _REGISTERED.fullmatch(value)
        if parts is not None and abs(now_ms - int(parts[1])) <= WORKER_MS:
            member = read_member(worker.decode(errors="replace"), parts[2])
            if member is not None:
                yield replace(member, registered=int(parts[1]) / 1000)


def differences(members: Sequence[Member]) -> dict[str, dict[Any, list[str]]]:
    """The settings in which workers differ: each value with the names of those that have it."""
    names = {name: None for member in members for name in member.settings}
    values: dict[str, dict[Any, list[str]]] = {name: {} for name in names}
    for member in members:
        for name, value in member.settings.items():
            values[name].setdefault(value, []).append(member.title)
    return {name: found for name, found in values.items() if len(found) > 1}


def _activity(found: object) -> Activity:
    if not isinstance(found, dict):
        return Activity()
    breakers, error = found.get("breakers"), found.get("last_error")
    return Activity(
        slots=_count(found.get("slots")),
        in_flight=_count(found.get("in_flight")),
        controls=_count(found.get("controls")),
        breakers=tuple(
            OpenBreaker(_text(one.get("reason")), _number(one.get("since")))
            for one in (breakers if isinstance(breakers, list) else [])
            if isinstance(one, dict)
        ),
        last_error=_error(error) if isinstance(error, dict) else None,
        calls=_count(found.get("calls")),
        failed_calls=_count(found.get("failed_calls")),
    )


def _error(found: Mapping[str, Any]) -> ApiError:
    return ApiError(_number(found.get("at")), _count(found.get("status")) or None, _text(found.get("text")))


def _text(value: object) -> str:
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 10**15 else 0


def _number(value: object) -> float:
    """Return a time that a date can be made of; 0 for anything else."""
    is_time = isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 10**11
    return float(value) if is_time and isinstance(value, int | float) else 0.0
