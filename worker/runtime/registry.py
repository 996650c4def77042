"""Which workers a fleet has and how each is set: every worker registers in Redis, and learns where others differ.

Some settings mean something only where all workers of a queue have the same one. A fleet in the middle of a deployment
has two sets of them, and a typo in one manifest has them for good. No worker knows which one is right, so all go on
and log that they differ. Where a wrong guess would cost others their jobs' leases or let duplicates through, the
longest time in the fleet counts.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.broker.keys import digest
from worker.broker.move_limits import WORKER_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)

#: A line in the log names so many workers at most.
_MAX_NAMED = 5
#: A setting of so many seconds or more is none: something else is written there.
_NO_SETTING = 1e9
_REGISTERED = re.compile(rb"(\d{1,15}) \S+ (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Member:
    """A worker of the fleet, as it has registered.

    Attributes:
        worker: its name in Redis, new for every process.
        node: its name in Celery.
        queues: the queues that it takes from.
        settings: those that must be the same in the whole fleet.
    """

    worker: str
    node: str
    queues: tuple[str, ...]
    settings: Mapping[str, Any]


def read_member(worker: str, text: bytes) -> Member | None:
    """Parse what a worker registered; None if something else is written there. Never raises."""
    try:
        found = json.loads(text)
        node, queues, settings = found["node"], found["queues"], found["settings"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (isinstance(node, str) and isinstance(queues, list) and isinstance(settings, dict)):
        return None
    known = {name: value for name, value in settings.items() if isinstance(value, str | int | float | None)}
    return Member(worker, node, tuple(queue for queue in queues if isinstance(queue, str)), known)


def read_members(workers: Mapping[bytes, bytes], now_ms: float) -> Iterator[Member]:
    """Return the workers that registered lately, from the hash in Redis."""
    for worker, entry in workers.items():
        parts = _REGISTERED.fullmatch(entry)
        if parts is not None and abs(now_ms - int(parts[1])) <= WORKER_MS:
            member = read_member(worker.decode(errors="replace"), parts[2])
            if member is not None:
                yield member


def differences(members: Sequence[Member]) -> dict[str, dict[Any, list[str]]]:
    """Return the settings in which workers differ: each value with the names of those that have it."""
    names = {name: None for member in members for name in member.settings}
    values: dict[str, dict[Any, list[str]]] = {name: {} for name in names}
    for member in members:
        for name, value in member.settings.items():
            values[name].setdefault(value, []).append(member.node)
    return {name: found for name, found in values.items() if len(found) > 1}


class Registry:
    """What this worker registers about itself, and what it has learnt of others.

    Args:
        worker: this worker's name in Redis.
        version: of this program.
        settings: those that must be the same in the whole fleet; nothing secret.

    ``node`` is Celery's name for this worker, once it has one.
    """

    def __init__(self, worker: str, version: str, settings: Mapping[str, Any]) -> None:
        self.node = worker
        self._worker = worker
        self._version = version
        self._settings = settings
        self.digest = digest(json.dumps(settings, sort_keys=True))
        self._logged: set[tuple[str, str]] = set()
        self._others: list[Member] = []

    def entry(self, queues: Sequence[str]) -> str:
        """Return what this worker registers about itself, in one line."""
        return json.dumps(
            {"node": self.node, "version": self._version, "queues": list(queues), "settings": self._settings}
        )

    def learn_of(self, others: Sequence[tuple[str, bytes]]) -> None:
        """Note how the other workers are set; log each other value of each setting once."""
        members = (read_member(worker, text) for worker, text in others)
        self._others = [member for member in members if member is not None]
        own = Member(self._worker, self.node, (), self._settings)
        for setting, values in differences([own, *self._others]).items():
            here = self._settings.get(setting)
            for there, nodes in values.items():
                if there != here and (setting, repr(there)) not in self._logged:
                    self._logged.add((setting, repr(there)))
                    extra = {"setting": setting, "here": here, "there": there, "workers": nodes[:_MAX_NAMED]}
                    logger.warning("settings_differ", extra=extra)

    def longest(self, setting: str) -> float:
        """Return the largest value of a setting in the fleet, as far as this worker knows it."""
        return max(self._values(setting))

    def _values(self, setting: str) -> Iterator[float]:
        yield float(self._settings[setting])
        for member in self._others:
            value = member.settings.get(setting)
            if isinstance(value, int | float) and 0 < value < _NO_SETTING:
                yield float(value)
