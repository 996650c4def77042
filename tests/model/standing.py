"""What stands in Redis at one moment, and the laws that hold at every moment.

The laws know nothing of the model: they speak of what was sent and of what stands in Redis, so they would find a
mistake that the scripts and the model have in common.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.model.reference import LONG_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.model.reference import Message
    from worker.broker.keys import Keys

#: The outcome of a job that was cancelled before any call; after one, which is a failure, it is another.
CANCELLED = "cancelled"
CANCELLED_AFTER_A_CALL = "cancelled_after_a_call"
#: The moves that take jobs from hold.
_ENDS_OF_HOLD = {"release_held", "wake"}
#: Scores below this many milliseconds before now were written by the machine: leases that lapsed, moments that came.
PAST_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A job's record."""

    raw: bytes
    size: int
    first: int
    token: str
    calls: int
    crashes: int
    is_retry: bool
    progress: bytes
    has_deadline: bool
    offset_ms: int
    held_at: int
    is_counted: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """All that stands in Redis of one queue; read while nobody else moves anything."""

    stock: dict[int, list[bytes]]
    arrived: list[bytes]
    requeued: list[str]
    retries: list[str]
    suspects: list[str]
    deadlines: dict[str, float]
    limit: dict[str, bytes]
    leases: dict[str, float]
    delayed: dict[str, float]
    on_hold: set[tuple[str, str]]
    controls: dict[str, bytes]
    cancelled: set[str]
    records: dict[str, StoredRecord]
    ids: dict[str, str]
    events: list[tuple[int, str, str]]
    dead: list[tuple[int, str, str]]
    dead_messages: list[bytes]
    counters: dict[str, int]
    draining: str | None
    forever: list[str]
    now_ms: int

    def view(self) -> Mapping[str, object]:
        """All but the moments, to be compared with :meth:`tests.model.reference.Queue.view`."""
        return {
            "stock": self.stock,
            "arrived": self.arrived,
            "again": self.requeued,
            "retries": self.retries,
            "suspects": self.suspects,
            "deadlines": {ref for ref, score in self.deadlines.items() if not self._is_past(score + self.behind_ms)},
            "too old": [ref for ref, score in self.deadlines.items() if self._is_past(score + self.behind_ms)],
            "fleet": (
                int(self.limit.get("version", 0)),
                int(self.limit.get("epoch", 0)),
                float(self.limit.get("rate", 0)),
                self.limit.get("state", b""),
                int(self.limit.get("answered", 0)),
                int(self.limit.get("failed", 0)),
            ),
            "leases": {ref for ref, score in self.leases.items() if not self._is_past(score)},
            "lapsed": [ref for ref, score in self.leases.items() if self._is_past(score)],
            "delayed": {ref for ref, score in self.delayed.items() if not self._is_past(score)},
            "due": [ref for ref, score in self.delayed.items() if self._is_past(score)],
            "on hold": self.on_hold,
            "controls": (
                int(self.controls.get("version", 0)),
                "pause" in self.controls,
                round(self.behind_ms / LONG_MS),
                {name.removeprefix("hold ") for name in self.controls if name.startswith("hold ")},
            ),
            "cancelled": self.cancelled,
            "records": {
                ref: (
                    record.raw,
                    record.size,
                    record.token,
                    record.calls,
                    record.crashes,
                    record.is_retry,
                    record.progress,
                    record.has_deadline,
                    round(record.offset_ms / LONG_MS),
                    record.is_counted,
                )
                for ref, record in self.records.items()
            },
            "ids": self.ids,
            "events": self.events,
            "dead": self.dead,
            "counters": {name: count for name, count in self.counters.items() if count},
            "draining": self.draining,
        }

    def _is_past(self, score: float) -> bool:
        return score < self.now_ms - PAST_MS

    @property
    def behind_ms(self) -> int:
        """How far the clock of ages is behind the server's: as long as operators have paused the fleet."""
        since, till = (int(self.controls.get(name, 0)) for name in ("paused_at", "paused_until"))
        now = min(self.now_ms, till or self.now_ms)
        return int(self.controls.get("paused_total", 0)) + (max(0, now - since) if since else 0)

    @property
    def in_indexes(self) -> list[str]:
        """Every ref, as often as it stands in an index."""
        return [*self.ready, *self.leases, *self.delayed, *(ref for _, ref in self.on_hold)]

    @property
    def ready(self) -> list[str]:
        """The refs of all jobs that are ready again."""
        return [*self.requeued, *self.retries, *self.suspects]

    @property
    def waiting(self) -> int:
        """Messages that nobody has taken yet."""
        return len(self.arrived) + sum(map(len, self.stock.values()))


#: All of a queue in one answer; by single commands it would take most of the test's time.
_READ = """
local again, suspects, arrived, leases, delayed, counters, draining, results, dead =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local retries, deadlines, limit, held, controls, mark = KEYS[10], KEYS[11], KEYS[12], KEYS[17], KEYS[18], KEYS[19]

local function list(key)
  return redis.call('LRANGE', key, 0, -1)
end

local function index(key)
  return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
end

local function stream(key)
  local found = {}
  for at, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
    found[at] = entry[2]
  end
  return found
end

local function each(prefix, command)
  local found = {}
  for _, key in ipairs(redis.call('KEYS', prefix .. '*')) do
    found[#found + 1] = string.sub(key, #prefix + 1)
    found[#found + 1] = redis.call(command, key)
  end
  return found
end

return {
  redis.call('TIME'), {list(KEYS[13]), list(KEYS[14]), list(KEYS[15]), list(KEYS[16])},
  list(arrived), list(again), list(retries), list(suspects), index(leases), index(delayed), index(deadlines),
  redis.call('HGETALL', limit),
  each(ARGV[1], 'HGETALL'), each(ARGV[2], 'GET'), each(ARGV[2], 'PTTL'),
  stream(results), stream(dead), redis.call('HGETALL', counters),
  redis.call('GET', draining), redis.call('PTTL', draining),
  redis.call('ZRANGE', held, 0, -1), redis.call('HGETALL', controls), each(ARGV[3], 'PTTL'), redis.call('PTTL', mark),
}
"""


def read(client: Any, keys: Keys, *, results: str, dead: str, ids: Mapping[str, str]) -> Standing:
    """Read it all; ``ids`` gives the job id behind each digest."""
    names = [keys.requeued, keys.suspects, keys.arrived, keys.leases, keys.delayed, keys.counters, keys.draining]
    names += [results, dead, keys.retries, keys.deadlines, keys.limit, *keys.priority_lists]
    names += [keys.held, keys.controls, keys.cancelled]
    (
        (seconds, micros), stock, arrived, requeued, retries, suspects, leases, delayed, deadlines, limit,
        records, meanings, lifetimes, events, letters, counters, draining, draining_ms, held, controls,
        cancelled, mark_ms,
    ) = client.eval(_READ, len(names), *names, keys.record_prefix, keys.id_prefix, keys.cancelled_prefix)  # fmt: skip
    dead_letters = [_pairs(letter) for letter in letters]
    return Standing(
        stock={step: messages[::-1] for step, messages in zip((0, 3, 6, 9), stock, strict=True)},
        arrived=arrived[::-1],
        requeued=[ref.decode() for ref in requeued],
        retries=[ref.decode() for ref in retries],
        suspects=[ref.decode() for ref in suspects],
        deadlines={ref: float(score) for ref, score in _pairs(deadlines).items()},
        limit=_pairs(limit),
        leases={ref: float(score) for ref, score in _pairs(leases).items()},
        delayed={ref: float(score) for ref, score in _pairs(delayed).items()},
        on_hold={_member(member) for member in held},
        controls=_pairs(controls),
        cancelled={ids[name] for name in _pairs(cancelled)},
        records={ref: _record(_pairs(fields)) for ref, fields in _pairs(records).items()},
        ids={_name(key, ids): meaning.decode() for key, meaning in _pairs(meanings).items()},
        events=[read_event(_pairs(fields)["event"]) for fields in events],
        dead=[read_event(letter["event"]) for letter in dead_letters],
        dead_messages=[letter["message"] for letter in dead_letters],
        counters={name: int(count) for name, count in _pairs(counters).items()},
        draining=None if draining is None else draining.decode(),
        forever=[_name(key, ids) for key, ttl in _pairs(lifetimes).items() if ttl == -1]
        + ["draining"] * (draining_ms == -1)
        + [f"cancelled {ids[name]}" for name, ttl in _pairs(cancelled).items() if not 0 <= ttl <= mark_ms + 1000],
        now_ms=int(seconds) * 1000 + int(micros) // 1000,
    )


def _pairs(flat: list[Any]) -> dict[str, Any]:
    """A hash or a sorted set as a script gives it: names and values in turn."""
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _member(member: bytes) -> tuple[str, str]:
    hold, _, ref = member.decode().partition(":")
    return hold, ref


def _name(key: str, ids: Mapping[str, str]) -> str:
    """A digest as the job id behind it; what follows it stays."""
    digest, colon, rest = key.partition(":")
    return ids[digest] + colon + rest


def write_event(number: int, outcome: str, event_id: str) -> bytes:
    """A result event, as far as Redis is concerned: the number of the message, the outcome, and the event's id."""
    return f"{number} {outcome} {event_id}".encode()


def read_event(event: bytes) -> tuple[int, str, str]:
    """What :func:`write_event` wrote."""
    number, outcome, event_id = event.decode().split(" ", 2)
    return int(number), outcome, event_id


def number_of(raw: bytes) -> int:
    """The number that a message begins with, which is kept of every message."""
    return int(raw.split(b" ")[0])


def _record(fields: Mapping[str, bytes]) -> StoredRecord:
    return StoredRecord(
        raw=fields["raw"], size=int(fields.get("size", len(fields["raw"]))), first=int(fields["first"]),
        token=fields["lease_token"].decode(), calls=int(fields.get("attempts", 0)), crashes=int(fields.get("crashes",
        0)),
        is_retry=fields.get("retry") == b"1", progress=fields.get("progress", b""), has_deadline="deadline" in fields,
        offset_ms=int(fields.get("offset", 0)), held_at=int(fields.get("held_at") or 0),
        is_counted="counted" in fields,
    )  # fmt: skip


def broken_laws(now: Standing, before: Standing | None, sent: Sequence[Message], move: str) -> Iterator[str]:
    """Every law that does not hold, a sentence each; ``move`` is what was made since ``before``."""
    by_number = {message.number: message for message in sent}
    yield from _every_job_is_in_one_place(now, by_number)
    yield from _a_job_on_hold_knows_since_when(now)
    yield from _a_token_names_who_holds_a_job(now)
    yield from _one_event_a_job(now, by_number)
    yield from _an_event_id_names_one_event(now, by_number)
    yield from _dead_letters_are_the_failures(now, by_number)
    yield from _counters_tell_the_truth(now)
    if before is not None:
        yield from _what_is_past_stays(now, before, move)
    if now.forever:
        yield f"these keys would stay for ever: {now.forever}"


def _every_job_is_in_one_place(now: Standing, sent: Mapping[int, Message]) -> Iterator[str]:
    refs = now.in_indexes
    ended = now.counters.get("finished", 0) + now.counters.get("deduplicated", 0)
    if len(sent) != ended + now.waiting + len(refs):
        yield f"{len(sent)} messages were sent, but {ended} have ended, {now.waiting} wait and {len(refs)} were taken"
    if without := set(now.ready) - now.deadlines.keys():
        yield f"these jobs are ready again and have no deadline: {without}"
    if sorted(refs) != sorted(now.records):
        yield f"the indexes hold {sorted(refs)}, and there are records of {sorted(now.records)}"
    raws = [*now.arrived, *(record.raw for record in now.records.values())]
    raws += [raw for messages in now.stock.values() for raw in messages]
    places = Counter([*(number for number, *_ in now.events), *map(number_of, raws)])
    if twice := [number for number, times in places.items() if times > 1]:
        yield f"these messages stand in two places, or have two events: {twice}"


def _a_token_names_who_holds_a_job(now: Standing) -> Iterator[str]:
    for ref, record in now.records.items():
        if (record.token != "") != (ref in now.leases):
            yield f"{ref} has the token {record.token!r} and is{' ' if ref in now.leases else ' not '}in flight"


def _a_job_on_hold_knows_since_when(now: Standing) -> Iterator[str]:
    on_hold = {ref for _, ref in now.on_hold}
    if wrong := {ref for ref, record in now.records.items() if (record.held_at > 0) != (ref in on_hold)}:
        yield f"these jobs have a time on hold, and are not on hold, or the other way round: {wrong}"


def _one_event_a_job(now: Standing, sent: Mapping[int, Message]) -> Iterator[str]:
    if strangers := [number for number, *_ in now.events if number not in sent]:
        yield f"these events have no message: {strangers}"
    ended = [sent[number] for number, *_ in now.events]
    jobs = Counter((each.id, each.conversation, each.is_dry_run) for each in ended if each.id and each.conversation)
    if twice := [job for job, times in jobs.items() if times > 1]:
        yield f"there are two events for the same id and conversation: {twice}"


def _an_event_id_names_one_event(now: Standing, sent: Mapping[int, Message]) -> Iterator[str]:
    # An id that was forgotten has another name since (QueueMachine.an_id_is_remembered_no_longer): its time is over.
    ids = Counter((event_id, (sent[number].id or "").partition(",")[2]) for number, _, event_id in now.events)
    if twice := [event_id for event_id, times in ids.items() if times > 1]:
        yield f"two events have the same id: {twice}"


def _dead_letters_are_the_failures(now: Standing, sent: Mapping[int, Message]) -> Iterator[str]:
    failures = [event for event in now.events if event[1] not in {"locked", "would_lock", CANCELLED}]
    if now.dead != failures:
        yield f"the dead letters are {now.dead}, the failures {failures}"
    if now.dead_messages != [sent[number].in_dead_letter(outcome) for number, outcome, _ in now.dead]:
        yield "a dead letter's message is not what was sent, or its beginning"


def _counters_tell_the_truth(now: Standing) -> Iterator[str]:
    counters = now.counters
    outcomes = Counter(f"outcome:{outcome}" for _, outcome, _ in now.events)
    if {name: count for name, count in counters.items() if name.startswith("outcome:")} != outcomes:
        yield f"the outcomes are {dict(outcomes)}, the counters {counters}"
    if counters.get("finished", 0) != len(now.events):
        yield f"there are {len(now.events)} events, the counters are {counters}"
    ended = counters.get("finished", 0) + counters.get("deduplicated", 0)
    if counters.get("taken", 0) != ended + len(now.records):
        yield f"{len(now.records)} jobs that were taken are left, the counters are {counters}"


def _what_is_past_stays(now: Standing, before: Standing, move: str) -> Iterator[str]:
    for ref, record in now.records.items():
        was = before.records.get(ref)
        if was is None:
            continue
        if record.first != was.first:
            yield f"{ref} was first taken at {was.first}, and now at {record.first}"
        if record.calls < was.calls and move != "restore_attempts":
            yield f"the calls of {ref} went from {was.calls} to {record.calls} in {move}"
        if record.offset_ms != was.offset_ms and (move not in _ENDS_OF_HOLD or record.offset_ms < was.offset_ms):
            yield f"the age of {ref} began at {was.offset_ms}, and now at {record.offset_ms} in {move}"
        if record.is_retry < was.is_retry:
            yield f"{ref} is no retry any more"
        if record.is_counted < was.is_counted:
            yield f"{ref} is not counted for its rule any more"
        if record.crashes != was.crashes and (move, record.crashes) != ("recover", was.crashes + 1):
            yield f"the crashes of {ref} went from {was.crashes} to {record.crashes} in {move}"
    if now.events[: len(before.events)] != before.events:
        yield "an event has vanished"
