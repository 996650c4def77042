"""This worker's entry in the register of its fleet: it describes itself in Redis, and learns where others differ.

Some settings mean something only where all workers of a queue have the same one. A fleet in the middle of a deployment
has two sets of them, and a typing error in one manifest has them for good. Nobody can tell which one is right, so the
workers go on and log that they differ. Where a wrong guess would cost others their jobs' leases or let duplicates
through, the longest time in the fleet counts.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import TYPE_CHECKING, Any

from worker.broker.keys import digest
from worker.runtime.members import Activity, Member, described, differences, read_member, told_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)

#: A line in the log names so many workers at most.
_NAMED_AT_MOST = 5
#: No setting of a worker is so long, in seconds: something else is written there.
_NO_SETTING = 1e9


class Registry:
    """What this worker registers, and what it has learnt of others.

    Args:
        worker: this worker's name in Redis.
        version: of this program.
        settings: those that must be the same in the whole fleet; nothing secret.
        activity: returns what this worker does at the moment.

    ``name`` is Celery's name for this worker, once it has one.
    """

    def __init__(
        self,
        worker: str,
        version: str,
        settings: Mapping[str, Any],
        *,
        activity: Callable[[], Activity] = Activity,
    ) -> None:
        self.name = worker
        self._worker = worker
        self._version = version
        self._settings = settings
        self._activity = activity
        self._since = round(time.time(), 3)
        self.digest = digest(json.dumps(settings, sort_keys=True))
        self._logged: set[tuple[str, str]] = set()
        self._others: list[Member] = []

    def entry(self, queues: Sequence[str]) -> str:
        """Describe this worker, in one line of JSON."""
        return described(
            Member(
                worker=self._worker,
                name=self.name,
                version=self._version,
                host=socket.gethostname(),
                since=self._since,
                queues=tuple(queues),
                settings=self._settings,
                activity=self._activity(),
            )
        )

    def learn_of(self, others: Sequence[tuple[str, bytes]]) -> None:
        """Learn which workers are set otherwise, and log it: each value of each setting once."""
        members = (read_member(worker, description) for worker, description in others)
        own = Member(self._worker, self.name, self._version, "", self._since, (), self._settings)
        fleet = told_apart([own, *(member for member in members if member is not None)])
        self._others = fleet[1:]
        for setting, values in differences(fleet).items():
            here = self._settings.get(setting)
            for there, names in values.items():
                if there != here and (setting, repr(there)) not in self._logged:
                    self._logged.add((setting, repr(there)))
                    extra = {"setting": setting, "here": here, "there": there, "workers": names[:_NAMED_AT_MOST]}
                    logger.warning("settings_differ", extra=extra)

    def longest(self, setting: str) -> float:
        """The largest value of a setting in the fleet, as far as this worker knows it."""
        return max(self._values(setting))

    def _values(self, setting: str) -> Iterator[float]:
        yield float(self._settings[setting])
        for member in self._others:
            value = member.settings.get(setting)
            if isinstance(value, int | float) and 0 < value < _NO_SETTING:
                yield float(value)
