"""What ``state.lua`` tells of a queue and its fleet, and ``sample.lua``, which keeps what rates are made of.

One script reads what operators ask for, so all of it is of one moment. The script writes nothing; so it also works on a
full server, on one that cannot write to disk, and on a replica. A key of the wrong type is reported by name and counts
as empty.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.broker import scripts
from worker.broker.keys import PRIORITY_STEPS
from worker.broker.script_calls import command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from worker.broker.keys import Keys
    from worker.broker.script_calls import Command

#: The least time between two samples of the whole fleet, how many are kept, and for how long after the last one.
SAMPLE_MS = 10_000
_SAMPLES_KEPT = 32
_SAMPLES_TTL_MS = 600_000
#: The marks of one list in ``sample.lua``: the older ones are thinned out.
_MARKS_KEPT = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """The totals of a queue at an earlier time, in milliseconds of the server's clock."""

    at_ms: int
    totals: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class State:
    """A queue and its fleet at one moment. Times are in milliseconds of the server's clock.

    Attributes:
        server_ms: the moment.
        wrong_keys: keys that hold another type than the worker keeps there, with that type.
        priorities: the messages in each of the producers' lists, by its first priority.
        arrived: messages that woke a worker and are not taken yet.
        requeued: jobs that are ready again after a delay, a release or a recovery.
        retries: the same for jobs whose call failed.
        suspects: jobs that workers died on, ready to be run alone.
        oldest_ready_ms: the oldest new message arrived at this time or later; None: there is none, or it is unknown.
        delayed: jobs that wait for their time.
        due: jobs whose time has come and that no worker has made ready yet.
        first_due_ms: the time of the first delayed job; None: there is none, or its time is infinite.
        in_flight: jobs that workers have.
        totals: counts since the queue was first used, by name.
        maintained_ms: when a worker last maintained the queue; None: never.
        samples: earlier totals, the oldest first.
        paused_ms: what is left of a pause; 0: no pause.
        paused_why: who paused, and why.
        permits_until_us: until when permits of the rate limit are given, in microseconds; 0: no rate limit in use.
        rate: the limit in calls a second that follows from the API's refusals; 0: none.
        rate_state: the state of that limit, see ``worker.flow_control.limit``.
        controls: the operators' controls, see ``worker.message.controls``.
        operators_pause_ms: what is left of an operator's pause; an hour where it has no end; 0: there is none.
        held: jobs that are set aside by holds.
        held_by: the same for each hold, by the digest of its selector.
        workers: the description of each worker that registered, by its name in Redis.
    """

    server_ms: int = 0
    wrong_keys: Mapping[str, str] = field(default_factory=dict)
    priorities: Mapping[int, int] = field(default_factory=dict)
    arrived: int = 0
    requeued: int = 0
    retries: int = 0
    suspects: int = 0
    oldest_ready_ms: int | None = None
    delayed: int = 0
    due: int = 0
    first_due_ms: float | None = None
    in_flight: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    maintained_ms: int | None = None
    samples: tuple[Sample, ...] = ()
    paused_ms: int = 0
    paused_why: str = ""
    permits_until_us: int = 0
    rate: float = 0.0
    rate_state: bytes = b""
    controls: Mapping[bytes, bytes] = field(default_factory=dict)
    operators_pause_ms: int = 0
    held: int = 0
    held_by: Mapping[str, int] = field(default_factory=dict)
    workers: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def ready(self) -> int:
        """Jobs that a worker could take now."""
        return sum(self.priorities.values()) + self.arrived + self.requeued + self.retries + self.suspects

    @property
    def waiting(self) -> int:
        """Jobs that wait for their time, or whose time has just come."""
        return self.delayed + self.due


def state_command(keys: Keys, fleet: Keys, *, whole_text: bool = False) -> Command:
    """Return the call of ``state.lua`` for one queue of a fleet."""
    names = [
        keys.arrived, keys.requeued, keys.retries, keys.suspects, keys.delayed, keys.leases, keys.counters,
        keys.maintenance, keys.samples, keys.arrivals, fleet.pause, fleet.rate, fleet.limit, fleet.workers,
        fleet.controls, keys.held,
        *keys.priority_lists, keys.absent,
    ]  # fmt: skip
    return command(scripts.STATE, names, [], whole_text=whole_text)


def parse_state(answer: Sequence[Any]) -> State:
    """Return the answer of ``state.lua`` as a state. No content of the keys makes it fail."""
    (
        server_ms, others, lengths, delayed, due, first_due, in_flight, counters, maintenance, samples, arrivals,
        paused_ms, why, permits_until, rate, rate_state, workers, controls, operators_ms, held, held_by,
    ) = answer  # fmt: skip
    priorities = dict(zip(PRIORITY_STEPS, lengths, strict=False))
    arrived, requeued, retries, suspects = lengths[len(priorities) :]
    kept = dict(_pairs(maintenance))
    waiting = [*priorities.values()]
    waiting[0] += arrived
    return State(
        server_ms=int(server_ms),
        wrong_keys={_text(key): _text(kind) for key, kind in _pairs(others)},
        priorities=priorities,
        arrived=arrived,
        requeued=requeued,
        retries=retries,
        suspects=suspects,
        oldest_ready_ms=_oldest(waiting, dict(_pairs(arrivals)), _natural(kept.get(b"empty_at"))),
        delayed=delayed,
        due=due,
        first_due_ms=_finite(first_due),
        in_flight=in_flight,
        totals={_text(name): _natural(count) or 0 for name, count in sorted(_pairs(counters))},
        maintained_ms=_natural(kept.get(b"promoted_at")),
        samples=tuple(_samples(samples)),
        paused_ms=max(0, paused_ms),
        paused_why=_text(why),
        permits_until_us=_natural(permits_until) or 0,
        rate=_rate(rate),
        rate_state=rate_state,
        controls=dict(_pairs(controls)),
        operators_pause_ms=int(operators_ms),
        held=held,
        held_by={_text(hold): count for hold, count in zip(held_by[::2], held_by[1::2], strict=True)},
        workers=dict(_pairs(workers)),
    )


def sample_command(keys: Keys, *, whole_text: bool = False) -> Command:
    """Return the call of ``sample.lua`` for one queue."""
    names = [
        keys.samples, keys.arrivals, keys.counters, keys.maintenance, keys.arrived, *keys.priority_lists, keys.absent,
    ]  # fmt: skip
    arguments = [SAMPLE_MS, _SAMPLES_KEPT, _SAMPLES_TTL_MS, _MARKS_KEPT]
    return command(scripts.SAMPLE, names, arguments, whole_text=whole_text)


def _oldest(waiting: Sequence[int], arrivals: dict[bytes, bytes], empty_ms: int | None) -> int | None:
    """Return from when on the oldest message of all lists can be; None: there is none, or it is unknown."""
    found = []
    for number, count in enumerate(waiting):
        if count:
            since = _natural(arrivals.get(b"%d" % number, b"").partition(b" ")[0])
            times = [at for at in (since, empty_ms) if at is not None]
            if not times:
                return None
            found.append(max(times))
    return min(found, default=None)


def _samples(texts: Iterable[bytes]) -> Iterator[Sample]:
    for text in texts:
        at_ms, _, totals = text.partition(b" ")
        moment = _natural(at_ms)
        try:
            counts = json.loads(totals)
        except (ValueError, RecursionError):
            continue
        if moment is not None and isinstance(counts, dict):
            yield Sample(moment, {name: _natural(str(count).encode()) or 0 for name, count in counts.items()})


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _natural(text: bytes | None) -> int | None:
    """Return a number as a script wrote it, at most a time in microseconds; None for any other text."""
    return int(text) if text and re.fullmatch(rb"\d{1,17}", text) else None


def _rate(text: bytes) -> float:
    """Return the limit as takes read it: any text that is no number means none."""
    return float(text) if re.fullmatch(rb"\d{1,15}(\.\d*)?", text) else 0.0


def _finite(text: bytes) -> float | None:
    try:
        at_ms = float(text)
    except ValueError:
        return None
    return at_ms if math.isfinite(at_ms) else None
