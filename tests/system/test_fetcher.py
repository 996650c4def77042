"""The fetcher by itself, on a real server: whatever came in its way, the next message is found."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.broker.workbench import Workbench, link_to
from tests.system.parts import flow_of
from worker.broker.keys import digest
from worker.broker.move_limits import SUSPICIOUS_CRASHES
from worker.broker.records import Claim, ClaimAnswer, Delivery, TakeRequest
from worker.broker.refusals import NotConnectedError
from worker.flow_control.gate_answer import Wait
from worker.observe.outages import Outages
from worker.runtime.clock import ServerClock
from worker.runtime.fetcher import Fetcher, Gates
from worker.runtime.in_flight import InFlight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from worker.broker.records import Taken

QUEUE = "moderation.lock"
OTHERS = ("second", "third")
SECONDS = 10.0


def claim_of(raw: bytes) -> Claim:
    return Claim(digest(raw.decode()), "a conversation")


class Scene:
    """A fetcher that runs, the queue it takes from, and what it received."""

    def __init__(self, bench: Workbench, in_flight: InFlight) -> None:
        self.bench = bench
        self.benches = {QUEUE: bench} | {queue: bench.beside(queue) for queue in OTHERS}
        self.in_flight = in_flight
        self.received: list[Delivery] = []
        self.released: list[Delivery] = []
        self.lost_takes: list[str] = []
        gates = flow_of(in_flight).gates
        for breaker in gates.breakers:
            breaker.succeeded(0.0, in_flight.limit)  # the slow start is over
        tokens = count(1)
        self.fetcher = Fetcher(
            name="w", moves=lambda queue: self.benches[queue].moves, in_flight=in_flight, clock=ServerClock(),
            gates=gates,
            next_lease_token=lambda: f"t.{next(tokens)}",
            on_lost_take=lambda _, token: self.lost_takes.append(token), claim_of=claim_of,
        )  # fmt: skip

    async def run(self) -> None:
        try:
            while (batch := await self.fetcher.fetch()) is not None:
                (self.released if batch.is_late else self.received).extend(batch.deliveries)
        finally:
            self.fetcher.stop_waiting()

    def use(self, gates: Gates) -> None:
        """Let the fetcher ask other gates from now on."""
        self.fetcher._gates = self.fetcher._takes._observer = gates

    def drop(self, delivery: Delivery) -> None:
        """The job is in flight no more."""
        self.in_flight.remove(delivery)
        self.fetcher.slots_freed()

    async def until_received(self, number: int) -> None:
        await until(lambda: len(self.received) >= number)

    def cancel_the_queue_during_a_take(self) -> None:
        """Let each take from now on come back to a fetcher that has left its queue meanwhile."""
        take = self.bench.moves.take

        async def take_and_cancel(request: TakeRequest, **asked: object) -> object:
            taken = await take(request, **asked)  # type: ignore[arg-type]
            self.fetcher.cancel(QUEUE)
            return taken

        self.bench.moves.take = take_and_cancel  # type: ignore[method-assign, assignment]

    async def until_it_waits(self) -> None:
        await until(self.blocked)

    async def until_nobody_waits(self) -> None:
        await until(lambda: not self.blocked())

    def reads(self) -> int:
        """How often the server read from a client, to this moment."""
        return int(self.bench.client.info("stats")["total_reads_processed"])

    def blocked(self) -> int:
        return int(self.bench.client.info("clients")["blocked_clients"])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for is in Redis
            await asyncio.sleep(0.005)


@pytest.fixture
async def scene(redis_url: str) -> AsyncIterator[Scene]:
    link = link_to(redis_url, timeout_seconds=5)
    with Redis.from_url(redis_url, protocol=2) as client:
        found = Scene(Workbench(client, link), InFlight(1))
        found.fetcher.consume(QUEUE)
        running = asyncio.create_task(found.run())
        yield found
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    await link.disconnect()


async def test_a_message_that_comes_while_it_waits_is_taken(scene: Scene) -> None:
    await scene.until_it_waits()

    scene.bench.push(b"a job")

    await scene.until_received(1)


async def test_the_message_that_ended_a_wait_is_claimed_with_its_take_and_the_next_wait_begins_with_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a wait that does not end by itself meanwhile, and a server that knows the scripts
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 4.0)
    scene.in_flight.limit = 3
    await scene.bench.moves.claim([Claim(digest("another job"), "")])
    await scene.until_it_waits()
    scene.bench.push(b"the first")
    await scene.until_received(1)
    await scene.until_it_waits()
    before = scene.reads()

    scene.bench.push(b"a job")
    await scene.until_received(2)

    assert scene.reads() - before == 3  # the push, what the fetcher sent, and the question for this number
    assert scene.received[1].claimed == (claim_of(b"a job"), ClaimAnswer.GO)
    await scene.until_it_waits()


async def test_a_message_that_comes_while_the_wait_behind_a_take_is_under_way_is_taken(scene: Scene) -> None:
    scene.in_flight.limit = 10
    await scene.until_it_waits()

    for number in range(1, 6):
        scene.bench.push(b"job %d" % number)
        await scene.until_received(number)

    assert [job.raw for job in scene.received] == [b"job %d" % number for number in range(1, 6)]


async def test_a_backlog_that_came_during_a_wait_is_taken_to_the_last_job(scene: Scene) -> None:
    scene.in_flight.limit = 3
    await scene.until_it_waits()
    messages = [b"job %d" % number for number in range(20)]
    scene.bench.push(*messages)

    for number in range(len(messages)):
        await scene.until_received(number + 1)
        scene.drop(scene.received[number])

    assert {job.raw for job in scene.received} == set(messages)


async def test_a_queue_that_is_cancelled_during_a_take_is_not_waited_on_any_more(scene: Scene) -> None:
    scene.in_flight.limit = 2
    await scene.until_it_waits()
    scene.cancel_the_queue_during_a_take()
    scene.bench.push(b"a job")

    await until(lambda: scene.released)
    await scene.until_nobody_waits()


async def test_a_wait_that_ended_while_no_slot_was_free_does_not_hide_the_next_message(scene: Scene) -> None:
    await scene.until_it_waits()
    other = Delivery(
        ref="poisoned",
        lease_token="t",
        raw=b"",
        size=0,
        received_ms=0,
        attempts=0,
        crashes=5,
        lease_until=0,
        queue=QUEUE,
    )
    scene.in_flight.add(other)  # as maintenance does
    scene.fetcher.slots_freed()
    await scene.until_nobody_waits()

    scene.drop(other)
    scene.bench.push(b"a job")

    await scene.until_received(1)


async def test_jobs_that_became_ready_are_taken_though_a_wait_is_under_way(scene: Scene) -> None:
    scene.bench.push(b"a job")
    await scene.until_received(1)
    (job,) = scene.received
    scene.drop(job)
    await scene.until_it_waits()

    await scene.bench.moves.release([job])
    scene.fetcher.check_queue(QUEUE)

    await scene.until_received(2)


async def test_a_worker_that_is_held_back_waits_for_no_message_that_others_could_take(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 4.0)
    scene.in_flight.limit = 3
    await scene.until_it_waits()
    await scene.bench.pause(30)
    scene.bench.push(b"a job")
    await scene.until_nobody_waits()
    assert scene.received == []
    assert scene.bench.run("LRANGE", scene.bench.keys.arrived, 0, -1) == [b"a job"]

    scene.bench.run("DEL", scene.bench.keys.pause)
    scene.use(RecordingGates(scene.in_flight))
    scene.fetcher.gates_changed()
    await scene.until_received(1)


class RecordingGates:
    """Gates that hold nothing back while they are open, and record the calls."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self.is_open = True
        self.calls: list[str] = []

    def ask(self) -> TakeRequest | Wait:
        self.calls.append("asked")
        return TakeRequest(self._in_flight.free_slots(), len(self._in_flight)) if self.is_open else Wait(60, "closed")

    def took(self, _request: TakeRequest, _taken: Taken) -> None:
        self.calls.append("took")

    def not_taken(self) -> None:
        self.calls.append("not taken")


async def test_the_gates_are_asked_before_each_take_and_notified_of_it_once_whatever_is_sent_with_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 4.0)
    scene.in_flight.limit = 3
    await scene.until_it_waits()
    gates = RecordingGates(scene.in_flight)
    scene.use(gates)

    # when a message wakes it, and a wait behind a take fails
    scene.bench.push(b"a job")
    await scene.until_received(1)
    await scene.until_it_waits()
    assert gates.calls == ["asked", "took"]
    scene.bench.client.client_kill_filter(_type="normal")

    # then that is reported as no take
    await until(lambda: len(gates.calls) >= 4)
    assert gates.calls == ["asked", "took"] * 2


async def test_a_message_that_came_while_the_gates_were_closed_is_not_claimed_before_it_is_taken(
    scene: Scene,
) -> None:
    """It may have been taken by others, ended and forgotten by then."""
    scene.in_flight.limit = 3
    await scene.until_it_waits()
    gates = RecordingGates(scene.in_flight)
    gates.is_open = False
    scene.use(gates)
    scene.bench.push(b"a job")
    await until(lambda: gates.calls)

    gates.is_open = True
    scene.fetcher.check_queue(QUEUE)

    await scene.until_received(1)
    assert scene.received[0].claimed is None
    assert not scene.bench.run("EXISTS", scene.bench.keys.id_prefix + claim_of(b"a job").id_digest)


class OneRetryAtATime:
    """Gates that let a worker hold one retry, beside whatever is new."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    def ask(self) -> TakeRequest:
        most = 1 - self._in_flight.retries
        return TakeRequest(self._in_flight.free_slots(), len(self._in_flight), retries_first=most, max_retries=most)

    def took(self, request: TakeRequest, taken: Taken) -> None:
        pass

    def not_taken(self) -> None:
        pass


async def test_a_retry_that_there_is_no_room_for_yet_is_taken_as_soon_as_there_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that happens on its list ends the wait for a message, and waits for all of these would take too long."""
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 2.0)
    scene.in_flight.limit = 4
    scene.use(OneRetryAtATime(scene.in_flight))
    bench, retries = scene.bench, [str(number) for number in range(10)]
    for ref in retries:
        bench.run("HSET", bench.keys.record_prefix + ref, "raw", "a job", "lease_token", "", "retry", 1)
    bench.run("RPUSH", bench.keys.retries, *retries)
    scene.fetcher.check_queue(QUEUE)

    async with asyncio.timeout(SECONDS):
        for number in range(1, len(retries)):
            await scene.until_received(number)
            assert len(scene.received) == number
            scene.drop(scene.received[-1])
        await scene.until_received(len(retries))


async def test_no_job_is_taken_beyond_the_free_slots(scene: Scene) -> None:
    scene.bench.push(b"first", b"second")
    await scene.until_received(1)
    assert [job.raw for job in scene.received] == [b"first"]
    assert scene.bench.run("LLEN", QUEUE) == 1

    scene.drop(scene.received[0])
    await scene.until_received(2)


async def test_what_is_on_its_way_from_a_queue_that_was_cancelled_goes_back(scene: Scene) -> None:
    await scene.until_it_waits()
    scene.cancel_the_queue_during_a_take()
    scene.bench.push(b"a job")

    await until(lambda: scene.released)
    assert scene.received == []


async def test_a_take_whose_answer_was_lost_is_reported_by_its_lease_token(scene: Scene) -> None:
    await scene.until_it_waits()
    take = scene.bench.moves.take

    async def take_and_lose(request: TakeRequest, **asked: object) -> Taken:
        taken = await take(request, **asked)  # type: ignore[arg-type]
        if taken.jobs and not scene.lost_takes:
            raise RedisConnectionError("Connection closed by server.")
        return taken

    scene.bench.moves.take = take_and_lose  # type: ignore[method-assign]
    scene.bench.push(b"a job")
    await until(lambda: scene.lost_takes)
    (ref,) = scene.bench.in_flight()
    assert scene.bench.client.hget(scene.bench.keys.record_prefix + ref, "lease_token").decode() == scene.lost_takes[0]


async def test_a_take_that_was_never_sent_is_not_reported(scene: Scene) -> None:
    await scene.until_it_waits()
    take, failures = scene.bench.moves.take, count()

    async def fail_once(request: TakeRequest, **asked: object) -> Taken:
        if next(failures) == 0:
            raise NotConnectedError("refused")
        return await take(request, **asked)  # type: ignore[arg-type]

    scene.bench.moves.take = fail_once  # type: ignore[method-assign]
    scene.bench.push(b"a job")

    await scene.until_received(1)
    assert scene.lost_takes == []


async def test_every_queue_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 4.0)
    scene.in_flight.limit = 10
    for queue in OTHERS:
        scene.fetcher.consume(queue)
    await until(lambda: scene.blocked() == 3)

    for number, queue in enumerate([*OTHERS, QUEUE, *OTHERS], start=1):
        scene.benches[queue].push(b"job %d" % number)
        await scene.until_received(number)

    assert [job.queue for job in scene.received] == [*OTHERS, QUEUE, *OTHERS]
    await until(lambda: scene.blocked() == 3)


async def test_a_backlog_on_one_queue_does_not_hide_the_jobs_of_another(scene: Scene) -> None:
    scene.bench.push(*[b"of the backlog"] * 50)
    await scene.until_received(1)
    scene.fetcher.consume("second")
    scene.benches["second"].push(b"of the other queue")

    for number in range(5):
        await scene.until_received(number + 1)
        scene.drop(scene.received[number])

    assert b"of the other queue" in {job.raw for job in scene.received}


async def test_a_queue_that_is_cancelled_is_not_waited_on_and_the_others_are(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 4.0)
    scene.in_flight.limit = 10
    scene.fetcher.consume("second")
    await until(lambda: scene.blocked() == 2)

    scene.fetcher.cancel("second")

    await until(lambda: scene.blocked() == 1)
    scene.benches["second"].push(b"left")
    scene.bench.push(b"taken")
    await scene.until_received(1)
    assert scene.received[0].raw == b"taken"
    assert scene.benches["second"].run("LLEN", "second") == 1


async def test_a_suspect_of_one_queue_runs_however_many_jobs_wait_on_the_others(scene: Scene) -> None:
    suspect = scene.bench.take_one(b"a suspect")
    scene.bench.run("HSET", scene.bench.record_key(suspect), "crashes", SUSPICIOUS_CRASHES)
    scene.benches["second"].push(*(b"job %d" % number for number in range(100)))
    scene.in_flight.limit = 3
    scene.fetcher.consume("second")
    await scene.until_received(3)
    await scene.bench.moves.release([suspect])
    scene.fetcher.check_queue(QUEUE)

    ended = 0
    while not any(job.runs_alone for job in scene.received):
        assert ended < 20
        await scene.until_received(ended + 1)
        scene.drop(scene.received[ended])
        ended += 1
        await until(lambda: not scene.in_flight.free_slots())  # it has taken another one, or drains


async def test_a_lost_server_that_ends_many_waits_is_reported_once_and_each_queue_is_waited_for_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 4.0)
    monkeypatch.setattr("worker.runtime.take_delays.FIRST_WAIT_SECONDS", 0.5)
    monkeypatch.setattr("worker.runtime.take_delays.outages", Outages())
    scene.fetcher._delays.backoff_seconds = 0.5
    scene.in_flight.limit = 10
    for queue in OTHERS:
        scene.fetcher.consume(queue)
    await until(lambda: scene.blocked() == 3)

    scene.bench.client.client_kill_filter(_type="normal")

    await until(lambda: scene.blocked() == 3)
    assert [record.message for record in caplog.records][:1] == ["redis_unavailable"]
    assert scene.fetcher._delays.backoff_seconds <= 1.0
    scene.benches["third"].push(b"a job")
    await scene.until_received(1)


async def test_a_queue_that_redis_refuses_is_left_alone_and_the_others_are_not(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runtime.message_waits.WAIT_SECONDS", 4.0)
    scene.in_flight.limit = 10
    scene.bench.run("SET", "second", "no list")
    scene.fetcher.consume("second")

    for number in range(1, 4):
        scene.bench.push(b"a job")
        await scene.until_received(number)

    scene.bench.run("DEL", "second")
    scene.benches["second"].push(b"another")
    await scene.until_received(4)
