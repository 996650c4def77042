"""One queue on a real server, from all sides: what producers push, what a worker does, what then stands in Redis."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.asyncio import Connection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from tests.broker import glossary
from worker.broker.backoff import ConnectBackoff
from worker.broker.broker_options import BrokerOptions
from worker.broker.client import RedisClient
from worker.broker.command_line_moves import adopt_command, discard_command, replay_command
from worker.broker.control_moves import (
    RuleCount,
    Trail,
    cancel_command,
    control_command,
    count_rules_command,
    wake_command,
)
from worker.broker.fleet_moves import FleetMoves
from worker.broker.job_moves import JobMoves
from worker.broker.keys import Keys, digest
from worker.broker.layout import note_layout_command
from worker.broker.maintenance_moves import MaintenanceMoves
from worker.broker.records import Change, Completion, Delay, TakeRequest
from worker.broker.state import parse_state, sample_command, state_command
from worker.broker.take import read_take, take_command
from worker.message.controls import Control, Note
from worker.message.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from redis import Redis

    from worker.broker.control_moves import Action
    from worker.broker.records import Delivery, FleetNews, Promoted, Recovered, Taken
    from worker.broker.script_calls import Client
    from worker.broker.state import State

#: No test waits for one of these to pass: where time must have passed, the moment in Redis is set back.
RULES = BrokerOptions(
    fleet=Keys("moderation.lock"), rate=None,
    results="moderation.results", results_maxlen=1000, dead="moderation.dead", dead_maxlen=1000,
    lease_ms=30_000, dedup_ttl_ms=900_000, max_deliveries=5, max_age_ms=86_400_000,
)  # fmt: skip
#: Where the actions of operators are noted.
TRAIL = Trail("moderation.control", 1000)
LONG_AGO_MS = 3_600_000
#: What PTTL answers of a key that is not there.
_GONE = -2


def link_to(url: str, *, timeout_seconds: float) -> RedisClient:
    """The asyncio side's way to a server, as a worker has it."""
    where = parse_url(url)
    return RedisClient(
        lambda: Connection(**where, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0)),
        timeout_seconds=timeout_seconds,
        backoff=ConnectBackoff(),
    )


class Workbench:
    """Real moves on a real server, with short names for what the tests do and look at."""

    def __init__(
        self,
        client: Redis,
        async_client: Client,
        broker_options: BrokerOptions = RULES,
        queue: str = "moderation.lock",
        trail: Trail = TRAIL,
    ) -> None:
        self.client: Any = client  # redis-py types its answers for all its modes at once
        self.keys = Keys(queue)
        self.broker_options = broker_options
        self.trail = trail
        self.async_client = async_client
        self.moves = JobMoves(async_client, self.keys, broker_options)
        self.maintenance = MaintenanceMoves(async_client, self.keys, broker_options)
        self.fleet = FleetMoves(async_client, broker_options)
        self._tokens = (f"take{number}" for number in itertools.count(1))

    def under(self, **changes: Any) -> Workbench:
        """The same queue under other rules."""
        other = Workbench(
            self.client, self.async_client, replace(self.broker_options, **changes), self.keys.queue, self.trail
        )
        other._tokens = self._tokens
        return other

    def beside(self, queue: str) -> Workbench:
        """Another queue of the same fleet."""
        other = Workbench(self.client, self.async_client, self.broker_options, queue, self.trail)
        other._tokens = self._tokens
        return other

    def run(self, *command: Any) -> Any:
        """Any command, as bytes, beside all of our code."""
        return self.client.execute_command(*command)

    async def control(self, action: Action, control: Control | None = None, *, until_ms: int = 0) -> list[int]:
        """What an operator does: pause, resume, or set or remove a hold or a cancel."""
        field, text = (
            ("", '{"by": "an operator", "reason": "a reason"}')
            if control is None
            else (control.field, control.to_json())
        )
        call = partial(
            control_command, trail=self.trail, action=action, event="{}", field=field, text=text, until_ms=until_ms
        )
        answer = await self._script(call, self.broker_options.fleet)
        return [int(each) for each in answer]

    async def cancel(self, *digests: str, ttl_ms: int = 60_000, is_new_only: bool = False) -> int:
        """Remember job ids as cancelled."""
        text = '{"by": "an operator", "reason": "a reason"}'
        call = partial(
            cancel_command,
            trail=self.trail,
            digests=digests,
            text=text,
            ttl_ms=ttl_ms,
            event="{}",
            is_new_only=is_new_only,
        )
        return int(await self._script(call, self.broker_options.fleet))

    async def wake(self, *members: tuple[str, str, str]) -> int:
        """Make delayed and held jobs ready."""
        options = self.broker_options
        call = partial(wake_command, fleet=options.fleet, members=members, max_age_ms=options.max_age_ms)
        return int(await self._script(call))

    async def count_rules(
        self, jobs: Mapping[str, Sequence[Delivery]], *, limit: int, window_ms: int = 60_000
    ) -> list[int]:
        """Count the jobs of rules, and hold those that have too many."""
        counts = []
        for rule, some in jobs.items():
            hold = Control("hold", Selector(rule=rule), Note("a limit", "too many"))
            names = json.dumps([name for job in some for name in (job.ref, job.lease_token)])
            selector = hold.selector.digest
            counts.append(RuleCount(digest(rule), limit, window_ms, selector, hold.to_json(), "{}", names))
        call = partial(count_rules_command, trail=self.trail, counts=counts, keys=self.keys)
        return list(await self._script(call, self.broker_options.fleet))

    async def sample(self) -> bool:
        """Keep a sample of the totals; False: it is too early for one."""
        return bool(await self._script(sample_command) == 1)

    async def note_layout(self, version: str) -> bool:
        """Note the layout that a worker of this version writes; False: a newer one is noted."""
        return bool(await self._script(partial(note_layout_command, version=version)) == 1)

    async def state(self) -> State:
        """The whole state of the queue and its fleet."""
        call = partial(state_command, fleet=self.broker_options.fleet)
        return parse_state(await self._script(call))

    async def _script(self, call: Callable[..., Any], keys: Keys | None = None) -> Any:
        keys = keys or self.keys
        try:
            return await self.async_client.execute_command(*call(keys))
        except NoScriptError:
            return await self.async_client.execute_command(*call(keys, whole_text=True))

    # What producers and workers do

    def push(self, *messages: bytes, priority: int = 0) -> None:
        """Jobs, the first one first, as any Celery client sends them."""
        for message in messages:
            self.run("LPUSH", self.keys.priority_lists[priority // 3], message)

    def arrive(self, *messages: bytes) -> None:
        """Jobs that a waiting worker's BLMOVE put aside for the next take."""
        for message in messages:
            self.run("LPUSH", self.keys.arrived, message)

    def new_token(self) -> str:
        return next(self._tokens)

    def take(
        self, wanted: int = 10, *, held: int = 0, worker: str = "worker-1", token: str = "", **fields: Any
    ) -> Taken:
        """Take jobs: by digest, and by the whole text where the server asks for it."""
        token, sent_at = token or self.new_token(), time.monotonic()
        request = TakeRequest(wanted, held, **fields)

        def call(*, whole_text: bool) -> Any:
            return self.run(
                *take_command(
                    self.keys, self.broker_options, token=token, worker=worker, request=request, whole_text=whole_text
                )
            )

        try:
            answer = call(whole_text=False)
        except NoScriptError:
            answer = call(whole_text=True)
        return read_take(answer, self.keys, self.broker_options, token=token, sent_at=sent_at, wanted=wanted)

    def replay(self, letters: Sequence[tuple[str, bytes]], *, priority: int = 0) -> list[int]:
        """Dead letters become new jobs, as the command line makes them."""
        answers = self.run(*replay_command(self.keys, self.broker_options.dead, letters, priority=priority))
        return [int(answer) for answer in answers]

    def discard(self, entries: Sequence[str]) -> int:
        """Dead letters are deleted, as the command line does it."""
        return int(
            self.run(*discard_command(self.keys, self.broker_options.dead, self.trail, entries, event="an event"))
        )

    def adopt(self, jobs: Sequence[tuple[bytes, bytes]], *, priority: int = 0) -> list[int]:
        """Jobs of a stock worker become messages again, as the command line makes them."""
        return [int(answer) for answer in self.run(*adopt_command(self.keys, jobs, priority=priority))]

    def take_one(self, message: bytes = b"a job") -> Delivery:
        """One new job, in flight."""
        self.push(message)
        (job,) = self.take(1, held=1).jobs
        return job

    def completion(self, job: Delivery, *, event: bytes = b"an event", job_id: str = "", **changes: Any) -> Completion:
        """A good end of a job; without a ``job_id`` it is not remembered."""
        end = Completion(
            ref=job.ref, lease_token=job.lease_token, event=event, outcome="locked", is_dead_letter=False,
            id_digest=digest(job_id) if job_id else "", fingerprint=digest("a conversation") if job_id else "",
        )  # fmt: skip
        return replace(end, **changes)

    async def delay(self, *jobs: Delivery, seconds: float = 60, **how: Any) -> list[bool]:
        """Put jobs aside, all alike."""
        return await self.moves.delay([Delay(job, seconds, **how) for job in jobs])

    async def retry(self, *messages: bytes, deadline_ms: int = 0) -> list[Delivery]:
        """New jobs whose call failed, and which are ready again."""
        jobs = [self.take_one(message) for message in messages]
        await self.delay(*jobs, is_retry=True, deadline_ms=deadline_ms)
        for job in jobs:
            self.make_due(job)
            await self.promote()
        return jobs

    async def promote(self, *, between_ms: int = 0, version: int = -1) -> Promoted:
        return await self.maintenance.promote(between_ms=between_ms, version=version)

    async def expire(self) -> list[Delivery]:
        return await self.maintenance.expire(token=self.new_token(), sent_at=time.monotonic())

    async def throttle(
        self, rate: float = 0.0, *, version: int = 0, epoch: int = 0, state: str = "a state", pause: float = 0.0
    ) -> tuple[bool, FleetNews]:
        return await self.fleet.throttle(Change(version, epoch, rate, state, pause, "a test"))

    async def pause(self, seconds: float) -> None:
        """The fleet takes no job for so long, at the least."""
        assert (await self.throttle(state="", pause=seconds))[0]

    async def recover(self, *, between_ms: int = 0) -> Recovered:
        return await self.maintenance.recover(token=self.new_token(), sent_at=time.monotonic(), between_ms=between_ms)

    async def crash(self, *jobs: Delivery) -> Recovered:
        """The workers of these jobs died, a lease went by, and the fleet comes to look."""
        self.lapse(*jobs)
        self.fleet_was_awake()
        return await self.recover()

    # Time

    def now_ms(self) -> int:
        """The server's clock."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def lapse(self, *jobs: Delivery) -> None:
        """The leases of these jobs were over long ago."""
        for job in jobs:
            self.run("ZADD", self.keys.leases, self.now_ms() - LONG_AGO_MS, job.ref)

    def make_due(self, *jobs: Delivery) -> None:
        """The moment these delayed jobs wait for has come."""
        for job in jobs:
            self.run("ZADD", self.keys.delayed, "XX", self.now_ms() - 1, job.ref)

    def make_too_old(self, *jobs: Delivery) -> None:
        """These jobs, which are ready again, have been on their way for too long."""
        for job in jobs:
            assert self.run("ZADD", self.keys.deadlines, "XX", "CH", self.now_ms() - LONG_AGO_MS, job.ref) == 1

    def fleet_was_awake(self) -> None:
        """Some worker looked for lapsed jobs just now, and so it went on for hours."""
        now = self.now_ms()
        self.run("HSET", self.keys.maintenance, "recovered_at", now, "awake_since", now - LONG_AGO_MS)

    # What stands in Redis

    def counters(self) -> dict[str, int]:
        return {name.decode(): int(value) for name, value in self.client.hgetall(self.keys.counters).items()}

    def record_key(self, job: Delivery) -> str:
        return self.keys.record_prefix + job.ref

    def record(self, job: Delivery) -> dict[str, bytes]:
        return {name.decode(): value for name, value in self.client.hgetall(self.record_key(job)).items()}

    def lease_end(self, job: Delivery) -> float | None:
        score = self.run("ZSCORE", self.keys.leases, job.ref)
        return None if score is None else float(score)

    def in_flight(self) -> list[str]:
        return [ref.decode() for ref in self.run("ZRANGE", self.keys.leases, 0, -1)]

    def delayed(self) -> list[str]:
        return [ref.decode() for ref in self.run("ZRANGE", self.keys.delayed, 0, -1)]

    def again(self) -> list[str]:
        return [ref.decode() for ref in self.run("LRANGE", self.keys.requeued, 0, -1)]

    def retries(self) -> list[str]:
        return [ref.decode() for ref in self.run("LRANGE", self.keys.retries, 0, -1)]

    def deadlines(self) -> dict[str, float]:
        """When each job that is ready again is too old."""
        scores = self.client.zrange(self.keys.deadlines, 0, -1, withscores=True)
        return {ref.decode(): score for ref, score in scores}

    def limit(self) -> dict[str, bytes]:
        """What stands in Redis of the fleet's flow control."""
        return {name.decode(): value for name, value in self.client.hgetall(self.broker_options.fleet.limit).items()}

    def suspects(self) -> list[str]:
        return [ref.decode() for ref in self.run("LRANGE", self.keys.suspects, 0, -1)]

    def events(self) -> list[bytes]:
        """The stream of results."""
        return [fields[b"event"] for fields in self._stream(self.broker_options.results)]

    def dead_letters(self) -> list[tuple[bytes, bytes]]:
        """Event and message of each."""
        return [(fields[b"event"], fields[b"message"]) for fields in self._stream(self.broker_options.dead)]

    def _stream(self, name: str) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.client.xrange(name)]

    def snapshot(self) -> dict[bytes, tuple[bytes, int]]:
        """All that stands in Redis, byte for byte, with the moment each key expires (-1: never)."""
        keys = sorted(self.client.keys())
        return dict(zip(keys, zip(self._each("DUMP", keys), self._each("PEXPIRETIME", keys), strict=True), strict=True))

    def _each(self, command: str, keys: list[bytes]) -> list[Any]:
        """One command for every key, in one go."""
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.execute_command(command, key)
            answers: list[Any] = pipe.execute()
        return answers

    def put_back(self, before: Mapping[bytes, tuple[bytes, int]], key: str) -> None:
        """One key as it was in a snapshot, where a test put something else in its place."""
        self.run("DEL", key)
        if key.encode() in before:
            dump, expires_at = before[key.encode()]
            self.run("RESTORE", key, max(expires_at, 0), dump, "ABSTTL")

    # What must hold at any time

    def held(self) -> list[str]:
        """The refs of the jobs that are set aside."""
        return [member.decode().partition(":")[2] for member in self.client.zrange(self.keys.held, 0, -1)]

    def troubles(self) -> Iterator[str]:
        """Every broken promise that can be seen in Redis, a sentence each."""
        settings = {
            "RESULTS_CHANNEL": self.broker_options.results,
            "DEAD_STREAM": self.broker_options.dead,
            "CONTROL_STREAM": self.trail.stream,
        }
        table = glossary.rows(self.keys.queue, {**settings, "LOCK_QUEUE": self.broker_options.fleet.queue})
        keys = self.client.keys()
        names = [key.decode() for key in keys]
        for name, kind, ttl_ms in zip(names, self._each("TYPE", keys), self._each("PTTL", keys), strict=True):
            is_gone = ttl_ms == _GONE  # its time was up while we looked
            if not is_gone and (found := glossary.trouble(table, name, kind.decode(), ttl_ms)) is not None:
                yield found

        held = {
            "in flight": self.in_flight(),
            "delayed": self.delayed(),
            "again": self.again(),
            "retries": self.retries(),
            "suspects": self.suspects(),
            "held": self.held(),
        }
        refs = [ref for where in held.values() for ref in where]
        if len(refs) != len(set(refs)):
            yield f"a job stands in two places: {held}"
        records = {
            name.removeprefix(self.keys.record_prefix) for name in names if name.startswith(self.keys.record_prefix)
        }
        if lost := records - set(refs):
            yield f"records that no list or set leads to: {lost}"
        ready = {*held["again"], *held["retries"], *held["suspects"]}
        if self.broker_options.max_age_ms and set(self.deadlines()) != ready:
            yield f"{ready} are ready again, but {set(self.deadlines())} have a deadline"

        totals = self.counters()
        ends = {name: totals.get(name, 0) for name in ("finished", "deduplicated", "vanished")}
        if totals.get("taken", 0) != sum(ends.values()) + len(refs):
            yield f"{totals.get('taken', 0)} jobs were taken, but {ends} ended and {held} are left"
        outcomes = sum(times for name, times in totals.items() if name.startswith("outcome:"))
        if outcomes != ends["finished"]:
            yield f"{ends['finished']} jobs finished, with {outcomes} outcomes"


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Until it holds; ``what`` tells the reader of a failure what never came."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.001)
