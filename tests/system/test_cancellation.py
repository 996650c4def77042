"""A job that is cancelled is released, in whatever moment that happens, and nothing of it goes on.

So it is with the runtime as a whole: a signal handler may stop it, whatever the thread below is about.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from sandbox.api import SandboxApi, run_in_thread
from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tasks.handler import LockConversation
from tasks.lock_call import LockCall
from tasks.managem.client import ManagemApi, Response
from tasks.reporter import Reporter
from tasks.retry import RetryPolicy
from tasks.task_name import TASK_NAME
from tests.broker.workbench import RULES, TRAIL, Workbench, link_to
from tests.system.parts import flow_of
from tests.system.stage import eventually
from worker.message.decode import ReadAhead, decoder
from worker.runtime import runtime as runtime_module
from worker.runtime.admission import Admission
from worker.runtime.background import Background
from worker.runtime.clock import ServerClock
from worker.runtime.control_watch import ControlWatch
from worker.runtime.executor import Executor
from worker.runtime.in_flight import InFlight
from worker.runtime.registry import Registry
from worker.runtime.revokes import Revokes
from worker.runtime.rule_guard import NoGuard
from worker.runtime.runtime import Runtime
from worker.runtime.runtime_parts import RuntimeParts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from types import FrameType

    from redis.exceptions import ResponseError

    from worker.broker.records import Delivery
    from worker.runtime.in_flight import Assignment
    from worker.runtime.settlement import Settlement

MESSAGE = b'{"headers": {"task": "moderation.lock_conversation", "id": "%s"}, "body": "[[\\"%s\\"], {}, {}]"}'
#: The API fails at once, twice, so that a job also waits in its slot; the third answer never comes.
SCRIPT = Script(rules=(Rule(first_calls=2, then=Respond(status=500)), Rule(nth_call=3, then=Delay(ms=60_000))))
#: From each call on, so many turns of the loop; a call takes fewer until it waits for the API.
TURNS = 40


class CountingApi(ManagemApi):
    """Tells how many calls have begun."""

    begun = 0

    async def lock(
        self, conversation_id: str, *, idempotency_key: str, traceparent: str, tracestate: str | None = None
    ) -> Response:
        self.begun += 1
        return await super().lock(
            conversation_id, idempotency_key=idempotency_key, traceparent=traceparent, tracestate=tracestate
        )


class NobodyWatches:
    """Nobody looks at these jobs."""

    def is_watched(self, job: str) -> bool:
        return not job

    def is_revoked(self, job: str) -> bool:
        return not job

    def announce(self, items: Sequence[Assignment]) -> None: ...

    def settled(self, item: Assignment, how: Settlement) -> None: ...

    def flush_soon(self) -> None: ...

    def reconnect(self, error: ResponseError) -> None: ...


class Bench:
    """A runtime as the worker has it, and a queue to take jobs from."""

    def __init__(self, queue: Workbench, runtime: Runtime, api: CountingApi) -> None:
        self.queue = queue
        self.runtime = runtime
        self.api = api

    def take(self, name: str) -> Delivery:
        """A job in flight in this runtime."""
        self.queue.push(MESSAGE % (name.encode(), name.encode()))
        (delivery,) = self.queue.take(1, token=self.runtime._loop.next_lease_token()).jobs
        self.runtime.in_flight.add(delivery)
        return delivery

    def wait_settled(self) -> None:
        eventually(lambda: not len(self.runtime.in_flight), "no job in flight", seconds=5)


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    with run_in_thread(SandboxApi(script=SCRIPT)) as api:
        yield api


def build(redis_url: str, server: SandboxApi) -> tuple[Runtime, CountingApi]:
    """A runtime that is not started, and its way to the API."""
    in_flight, clock = InFlight(100), ServerClock()
    api = CountingApi(
        base_url=server.url, token=lambda: "token", timeout_seconds=2, concurrency=100, user_agent="lock-worker/0"
    )
    flow = flow_of(in_flight)
    handler = LockConversation(
        call=LockCall(api=api, flow=flow.calls, shown="state"),
        flow=flow.calls,
        policy=RetryPolicy(max_attempts=8, base_seconds=0.002, max_delay_seconds=1),
        on_retry=lambda _: None,
        reporter=Reporter(),
    )
    read = ReadAhead(decoder(TASK_NAME))
    client, background = link_to(redis_url, timeout_seconds=5), Background()
    controls = ControlWatch(client, RULES.fleet, in_flight=in_flight, clock=clock, background=background)
    parts = RuntimeParts(
        admission=Admission(
            read=read, look_ahead=read.look, handler=handler, clock=clock, max_age_seconds=0, controls=controls
        ),
        handler=handler, client=client, broker_options=RULES, controls=controls, background=background, guard=NoGuard(),
        revokes=Revokes(client, RULES.fleet, TRAIL, max_age_ms=0, source="/test", clock=clock),
        in_flight=in_flight,
        clock=clock, flow=flow.gates, name="w",
        registry=Registry("w", "0", {"LEASE_SECONDS": 30, "DEDUPLICATE_SECONDS": 900}),
        celery=NobodyWatches(), job_queues=lambda: ["moderation.lock"], close_api=api.aclose,
    )  # fmt: skip
    return Runtime(parts), api


@pytest.fixture
def bench(redis_url: str, api: SandboxApi) -> Iterator[Bench]:
    runtime, counting = build(redis_url, api)
    runtime.start()
    with Redis.from_url(redis_url, protocol=2) as sync_client:
        yield Bench(Workbench(sync_client, runtime._parts.client), runtime, counting)
        runtime.stop(1)


def test_a_job_that_is_cancelled_before_its_run_has_begun_is_released(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cancelled before its first step never takes one: nothing in it could release the job."""
    delivery, run = bench.take("c-1"), Executor._run

    def and_cancel(executor: Executor, item: Assignment) -> Coroutine[Any, Any, None]:
        asyncio.get_running_loop().call_soon(executor.cancel, delivery)  # before the first step of the new task
        return run(executor, item)

    monkeypatch.setattr(Executor, "_run", and_cancel)
    bench.runtime._loop_thread.call(bench.runtime._loop.executor.receive, [delivery])

    bench.wait_settled()
    assert bench.queue.run("LRANGE", bench.queue.keys.requeued, 0, -1) == [delivery.ref.encode()]
    assert bench.queue.run("ZCARD", bench.queue.keys.leases) == 0


@pytest.mark.parametrize("calls", range(4))
def test_a_job_that_is_cancelled_in_any_turn_of_the_loop_is_released_and_does_not_go_on(
    bench: Bench, calls: int
) -> None:
    """No layer below loses the cancellation, be it in a claim, a connect, a call or a wait. A shutdown needs that."""
    for turns in range(TURNS):
        delivery = bench.take(f"c-{turns}")
        calls_by_then = bench.api.begun + calls

        def cancel_after(turns: int, delivery: Delivery = delivery, calls_by_then: int = calls_by_then) -> None:
            loop = asyncio.get_running_loop()
            if bench.api.begun < calls_by_then:
                loop.call_later(0.001, cancel_after, turns)  # not at once: a loop that spins would starve the API
            elif turns:
                loop.call_soon(cancel_after, turns - 1)
            else:
                bench.runtime._loop.executor.cancel(delivery)

        bench.runtime._loop_thread.call(bench.runtime._loop.executor.receive, [delivery])
        bench.runtime._loop_thread.call(cancel_after, turns)

        bench.wait_settled()
        assert bench.queue.run("LPOP", bench.queue.keys.requeued) == delivery.ref.encode()
        assert bench.queue.run("ZCARD", bench.queue.keys.leases) == 0
    assert bench.queue.run("EXISTS", RULES.results) == 0


def is_turning(runtime: Runtime) -> bool:
    """Whether the loop still runs."""
    return runtime._loop_thread.is_alive


def test_a_signal_handler_can_stop_it_at_any_line_of_the_wait_for_its_word_on_a_queue(
    redis_url: str, api: SandboxApi
) -> None:
    """Celery's handler of a second Ctrl+C does so, on top of the shutdown that the first one began."""
    for moment in count():
        runtime, _ = build(redis_url, api)
        runtime.start()
        lines, has_ended = count(), list[bool]()

        def trace(
            _frame: FrameType, event: str, _argument: object, *,
            runtime: Runtime = runtime, moment: int = moment, lines: Iterator[int] = lines,
            has_ended: list[bool] = has_ended,
        ) -> Callable[..., Any]:  # fmt: skip
            if event == "line" and next(lines) == moment:
                runtime.stop(0)
                has_ended.append(not is_turning(runtime))
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            runtime.queues.cancel("moderation.lock")
        finally:
            sys.settrace(before)
        runtime.stop(0)

        assert has_ended != [False], f"stopped before line {moment} it did not end"
        if not has_ended:
            break
    assert moment


def test_a_signal_handler_that_interrupts_who_holds_a_lock_of_the_loop_waits_for_a_bounded_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log handler has such a lock. The loop ends as soon as the thread below has gone on and freed it."""
    monkeypatch.setattr(runtime_module, "_CLOSE_SECONDS", 0.1)
    lock, is_wanted = threading.Lock(), threading.Event()

    def log() -> None:
        is_wanted.set()
        with lock:
            pass

    with lock:
        bench.runtime._loop_thread.call(log)
        is_wanted.wait()
        bench.runtime.stop(0)
        assert is_turning(bench.runtime)

    monkeypatch.undo()
    bench.runtime.stop(0)
    assert not is_turning(bench.runtime)


def test_an_error_in_learning_of_other_workers_does_not_keep_it_from_taking_jobs(
    redis_url: str, api: SandboxApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, counting = build(redis_url, api)

    def fail(_: object) -> None:
        raise ValueError("an error of ours")

    monkeypatch.setattr(runtime.registry, "learn_of", fail)
    runtime.start()
    with Redis.from_url(redis_url, protocol=2) as client:
        client.lpush("moderation.lock", MESSAGE % (b"job-1", b"c-1"))
        runtime.queues.consume("moderation.lock")
        try:
            eventually(lambda: counting.begun > 0, "the call of the job")
        finally:
            runtime.stop(1)
