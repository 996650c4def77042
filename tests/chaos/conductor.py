"""Does the faults of a plan, at their times, and notes what they may have cost."""

from __future__ import annotations

import heapq
import signal
import time
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from redis.exceptions import RedisError

from tests.chaos import weather
from tests.chaos.history import Failover, Loss
from tests.chaos.plan import Act
from tests.chaos.servers import everywhere

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis import Redis

    from tests.chaos.api_host import ApiHost
    from tests.chaos.fleet import Fleet, Process
    from tests.chaos.plan import Fault, Plan
    from tests.chaos.producers import Producers
    from tests.chaos.servers import Servers
    from tests.chaos.targets import Target

_TICK_SECONDS = 0.01

#: A primary that lives is replaced, and replicas that have not left it yet acknowledge what it takes. Those of one that
#: is cut off do not.
_REPLICAS_STAY = {Act.FAILOVER, Act.REDIS_PAUSE, Act.REDIS_STALL}

Step: TypeAlias = "Callable[[Fault], None]"


class Conductor:
    """Does faults to a round's parts.

    Args:
        client: a client of the server, with short timeouts.
        token_file: where the workers read the API's token.

    Attributes:
        losses: what was lost on the way.
        failovers: when the queue went to another server.
    """

    def __init__(
        self,
        plan: Plan,
        target: Target,
        *,
        servers: Servers,
        client: Redis,
        api: ApiHost,
        token_file: Path,
        producers: Producers,
    ) -> None:
        self.losses: list[Loss] = []
        self.failovers: list[Failover] = []
        self._plan = plan
        self._target = target
        self._servers = servers
        self._client = client
        self._api = api
        self._token_file = token_file
        self._producers = producers
        self._fleet: Fleet
        self._storms: set[Act] = set()
        self._stalled: dict[Fault, Process] = {}
        self._unseen: list[tuple[int, Process]] = []
        self._is_redis_up = True
        self._tokens = count(1)
        self._steps: dict[Act, tuple[Step, Step]] = {
            Act.KILL: (self._kill, self._nothing),
            Act.STALL: (self._stall, self._go_on),
            Act.BLINK: (self._stall, self._go_on),
            Act.TERM: (self._term, self._nothing),
            Act.REDIS_KILL: (self._redis_kill, self._redis_start),
            Act.REDIS_RESTART: (self._redis_stop, self._redis_start),
            Act.REDIS_PAUSE: (self._redis_pause, self._redis_resume),
            Act.REDIS_STALL: (self._redis_pause, self._redis_resume),
            Act.FAILOVER: (self._fail_over, self._nothing),
            Act.SLOT_MOVE: (self._move_slot, self._nothing),
            Act.CUT_OFF: (self._cut_off, self._heal),
            Act.SPLIT: (self._cut_off, self._heal),
            Act.CUT: (self._cut, self._nothing),
            Act.FLUSH: (self._flush, self._nothing),
            Act.API_AWAY: (self._api_gone, self._api_back),
            Act.TOKEN: (self._new_token, self._token_file_follows),
            **dict.fromkeys(weather.STORMS, (self._storm, self._storm_is_over)),
        }

    def play(self, fleet: Fleet) -> None:
        """Do all faults; returns when the last one has begun and each has ended.

        A fault that begins late, because Redis was not well before, lasts as long as it should.
        """
        self._fleet = fleet
        began = time.monotonic()
        order = count()
        steps = [(fault.at, next(order), fault, True) for fault in self._plan.faults]
        heapq.heapify(steps)
        while steps:
            at, _, fault, begins = heapq.heappop(steps)
            while (wait := began + at - time.monotonic()) > 0:
                fleet.tend()
                time.sleep(min(wait, _TICK_SECONDS))
            begin, end = self._steps[fault.act]
            if begins:
                begin(fault)
                ends_at = time.monotonic() - began + fault.seconds
                heapq.heappush(steps, (ends_at, next(order), fault, False))
            else:
                end(fault)

    def calm(self) -> None:
        """Let the API do only what it always does, beside the storms that last."""
        storms = sorted(self._storms)
        self._api.api.script = weather.script(self._plan.seed, self._plan.api_median_ms, storms, self._plan.quota)

    def ended(self, process: Process) -> None:
        """A process ended, though nobody killed it: what it left in flight comes back when the leases are over."""
        jobs = self._in_flight(process)
        if jobs is None or jobs:
            self._lost(process, "ended with jobs in flight", jobs)

    # -- how each fault begins and ends
    # ------------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> None:
        process = self._process(fault)
        process.freeze()
        self._lost(process, fault.act, self._in_flight(process))
        process.tell(signal.SIGKILL)

    def _stall(self, fault: Fault) -> None:
        process = self._stalled[fault] = self._process(fault)
        process.freeze()
        if fault.act is Act.STALL:
            self._lost(process, fault.act, self._in_flight(process), may_call_late=True)

    def _go_on(self, fault: Fault) -> None:
        self._stalled[fault].thaw()

    def _term(self, fault: Fault) -> None:
        if not self._process(fault).told:
            self._process(fault).tell(signal.SIGTERM)

    def _redis_kill(self, fault: Fault) -> None:
        self._redis_goes(fault)
        self._servers.kill()

    def _redis_stop(self, fault: Fault) -> None:
        self._redis_goes(fault)
        self._servers.stop()

    def _redis_start(self, _: Fault) -> None:
        self._servers.start()
        self._redis_is_back()

    def _redis_pause(self, fault: Fault) -> None:
        self._redis_goes(fault)
        self._servers.pause()

    def _redis_resume(self, _: Fault) -> None:
        self._servers.resume()
        self._redis_is_back()

    def _fail_over(self, fault: Fault) -> None:
        self._redis_goes(fault)
        self._servers.fail_over()
        self._redis_is_back()

    def _move_slot(self, fault: Fault) -> None:
        self._servers.wait_healthy()
        began = time.time()
        self._servers.move_slot()
        self.failovers.append(Failover(str(fault.act), began, time.time(), is_lossless=True))

    def _cut_off(self, fault: Fault) -> None:
        self._redis_goes(fault)
        self._servers.cut_off(with_clients=fault.act is Act.SPLIT)

    def _heal(self, _: Fault) -> None:
        self.failovers[-1] = replace(self.failovers[-1], published=self._servers.heal())
        self._redis_is_back()

    def _redis_goes(self, fault: Fault) -> None:
        self._servers.wait_healthy()
        self._is_redis_up = False
        if self._servers.settle_seconds:
            now = time.time()
            until = now + fault.seconds + self._servers.settle_seconds
            is_split = self._servers.has_two_primaries and fault.act in _REPLICAS_STAY
            self.failovers.append(Failover(str(fault.act), now, until, is_split=is_split))

    def _redis_is_back(self) -> None:
        """Make up for the looks that could not be taken: what a process held that is gone or stands is still noted."""
        self._is_redis_up = True
        for at, process in self._unseen:
            if process.status is not None or process.is_stopped:
                self.losses[at] = replace(self.losses[at], jobs=self._in_flight(process))
        self._unseen.clear()

    def _cut(self, _: Fault) -> None:
        everywhere(self._servers, "CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")

    def _flush(self, _: Fault) -> None:
        everywhere(self._servers, "SCRIPT FLUSH")

    def _api_gone(self, _: Fault) -> None:
        self._api.go_away()

    def _api_back(self, _: Fault) -> None:
        self._api.come_back()

    def _new_token(self, _: Fault) -> None:
        self._api.api.token = f"token-{next(self._tokens)}"

    def _token_file_follows(self, _: Fault) -> None:
        new = self._token_file.with_suffix(".new")
        new.write_text(f"{self._api.api.token}\n")
        new.replace(self._token_file)  # in one step, as a mounted secret is renewed

    def _storm(self, fault: Fault) -> None:
        self._storms.add(fault.act)
        self.calm()

    def _storm_is_over(self, fault: Fault) -> None:
        self._storms.discard(fault.act)
        self.calm()

    def _nothing(self, _: Fault) -> None:
        pass

    # -- what a fault costs
    # ------------------------------------------------------------------------------------

    def _in_flight(self, process: Process) -> tuple[str, ...] | None:
        """The jobs in flight in a process that stands or has ended; None: Redis cannot be asked, or not all of it."""
        if not self._is_redis_up or any(time.time() < each.until for each in self.failovers):
            return None
        try:
            self._client.ping()  # what the process had sent before it stopped is done by the time this is answered
            raws = self._target.in_flight(self._client, process.name) if process.name else []
        except (RedisError, OSError, NotImplementedError):
            return None
        return tuple(self._producers.key_of[raw] for raw in raws if raw in self._producers.key_of)

    def _process(self, fault: Fault) -> Process:
        return self._fleet.process(fault.pod)

    def _lost(self, process: Process, how: str, jobs: tuple[str, ...] | None, *, may_call_late: bool = False) -> None:
        if jobs is None:
            self._unseen.append((len(self.losses), process))
        self.losses.append(Loss(time.time(), process.log.stem, how, jobs, may_call_late))
