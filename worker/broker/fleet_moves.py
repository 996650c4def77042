"""The moves of the whole fleet, which change its notes in Redis and no job: workers and flow control."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from worker.broker import scripts
from worker.broker.move_limits import MAX_OTHERS, QUEUES_KEPT, WORKER_MS
from worker.broker.script_answers import read_fleet
from worker.broker.script_calls import call_script

if TYPE_CHECKING:
    from worker.broker.broker_options import BrokerOptions
    from worker.broker.records import Change, FleetNews
    from worker.broker.script_calls import Argument, Client


class FleetMoves:
    """Registers a worker and changes the flow control of its fleet.

    All raise what the client raises (:class:`redis.exceptions.RedisError`, :class:`OSError`). After an error the move
    may have been made or not. All may be repeated.
    """

    def __init__(self, client: Client, broker_options: BrokerOptions) -> None:
        self._client = client
        self.broker_options = broker_options

    async def register(self, worker: str, digest: str, description: str) -> list[tuple[str, bytes]]:
        """Register a worker and its settings for a while; with an empty digest, remove it.

        ``description`` is a JSON object with its ``queues``. Returns the workers that have another digest, each with
        its description.
        """
        arguments: list[Argument] = [worker, digest, description, WORKER_MS, MAX_OTHERS, QUEUES_KEPT]
        fleet = self.broker_options.fleet
        keys = [fleet.workers, fleet.queues, fleet.absent]
        answer = iter(await call_script(self._client, scripts.REGISTER, keys, arguments))
        return [(other.decode("utf-8", "replace"), text) for other, text in zip(answer, answer, strict=True)]

    async def throttle(self, change: Change) -> tuple[bool, FleetNews]:
        """Change the fleet's flow control; False if another worker changed it since that version."""
        arguments: list[Argument] = [
            change.version, change.epoch, f"{change.rate:.6f}", change.state,
            math.ceil(change.pause_seconds * 1000), change.why,
        ]  # fmt: skip
        fleet = self.broker_options.fleet
        keys = [fleet.limit, fleet.pause, fleet.controls, fleet.absent]
        done, news = await call_script(self._client, scripts.THROTTLE, keys, arguments)
        return done == 1, read_fleet(news)
