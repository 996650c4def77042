"""Runs the demo: starts the servers and the worker, sends the jobs, checks the results, and stops everything."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rich.console import Console

import settings as settings_module
from sandbox.api import SandboxApi, run_in_thread
from sandbox.redis_server import RedisServer, RedisServerError
from worker.broker.connection import sync_client
from worker.cli.demo import kinds, summary
from worker.cli.demo.reconciliation import Reconciliation
from worker.cli.demo.screen import Screen
from worker.cli.demo.worker_process import CONCURRENCY, TOKEN, running_worker, use_settings
from worker.cli.exit import FAILED, INTERRUPTED, fail, redis_address
from worker.cli.producer import OutgoingJob, Producer, SendError
from worker.cli.result import read_result
from worker.cli.watch.follow import Follower
from worker.runtime.fleet_state import FleetNames, read_fleet_state_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from settings import Settings
    from worker.cli.demo.kinds import Sent
    from worker.cli.demo.worker_process import WorkerProcess
    from worker.runtime.fleet_state import FleetState

_SEND_AT_ONCE = 50
_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 20.0


class StalledError(Exception):
    """The demo makes no progress although there is work left; the message says what is known of the reason."""


def run_demo(count: int, latency_ms: float, *, keep: bool) -> None:
    """Run the demo; exits with status 0 if everything added up, and with 1 if not."""
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            redis = stack.enter_context(RedisServer())
            api = stack.enter_context(run_in_thread(SandboxApi(script=kinds.script(latency_ms), token=TOKEN)))
            use_settings(redis.url, api.url)
            settings = settings_module.load(need_token=True)
            client = stack.enter_context(sync_client(settings))
            worker = stack.enter_context(running_worker())
            console.print(f"{count:,} messages, good and bad, for one worker\n", style="bold")
            for line in (
                f"  Redis    {redis.binary.name} {redis.binary.version} at {redis_address(settings)}",
                f"  API      sandbox at {api.url}, {latency_ms:g} ms an answer, with faults",
                f"  worker   celery -A worker worker, process {worker.pid}, {CONCURRENCY} jobs at once\n",
            ):
                console.print(line, soft_wrap=True)

            reconciliation = Reconciliation(kinds.make_messages(count))
            try:
                _send(reconciliation.sent, settings, client)
                state = _watch(reconciliation, settings, client, worker, console)
            except (StalledError, SendError, RedisError) as error:
                what = f"Redis at {redis_address(settings)}{error}" if isinstance(error, SendError) else str(error)
                fail(f"{what}\nThe last lines of the worker's log:\n{worker.log()}", FAILED)
            problems = summary.summarize(console, reconciliation, state, api.calls())
            if problems:
                fail("\n  - ".join(["it does not add up:", *problems]) + f"\nThe worker's log:\n{worker.log()}", FAILED)
            console.print(f"\nEverything adds up, after {time.monotonic() - started:.1f} s.", style="bold green")
            if keep:
                _keep(console, redis.url)
            else:
                summary.next_steps(console)
    except RedisServerError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted; all that was started is stopped", INTERRUPTED)


def _send(messages: Sequence[Sent], settings: Settings, client: Redis) -> None:
    with Producer(settings) as producer:
        for start in range(0, len(messages), _SEND_AT_ONCE):
            some = [sent.message for sent in messages[start : start + _SEND_AT_ONCE]]
            producer.send([message for message in some if isinstance(message, OutgoingJob)])
            raw = [message for message in some if isinstance(message, bytes)]
            if raw:
                client.lpush(settings.LOCK_QUEUE, *raw)


def _watch(
    reconciliation: Reconciliation, settings: Settings, client: Redis, worker: WorkerProcess, console: Console
) -> FleetState:
    """Collect result events until the queue is empty."""
    follower = Follower(client, settings.RESULTS_CHANNEL)
    patient_until = time.monotonic() + _PATIENCE_SECONDS
    names = FleetNames.of(settings)
    with Screen(console, reconciliation) as screen:
        while True:
            state = read_fleet_state_now(client, names)
            queue = state.queue
            entries = follower.wait(_LOOK_SECONDS)
            for entry in entries:
                result = read_result(entry.event)
                if result is not None:
                    reconciliation.add(result)
            screen.show(queue)
            is_empty = not (entries or queue.ready or queue.waiting or queue.in_flight)
            if is_empty:
                return state
            if entries:
                patient_until = time.monotonic() + _PATIENCE_SECONDS
            if not worker.is_running:
                raise StalledError("the worker has ended by itself")
            if time.monotonic() > patient_until:
                raise StalledError(
                    f"nothing came for {_PATIENCE_SECONDS:g} s, with {queue.ready} jobs ready, "
                    f"{queue.waiting} delayed and {queue.in_flight} in flight"
                )


def _keep(console: Console, redis_url: str) -> None:
    console.print("\nAll of it is left running until Ctrl-C. In another terminal:")
    console.print(f"  export REDIS_URL={redis_url}", soft_wrap=True)
    console.print("  lock-worker watch\n  lock-worker enqueue hello flaky-1 missing-1\n  lock-worker status")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
