"""A whole system for a test: a real Redis, a sandbox API, and worker processes as an operator starts them.

A test says what goes in and waits for what comes out; nothing in here sleeps for "long enough".
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import redis
from celery import Celery

from sandbox.api import SandboxApi, run_in_thread
from sandbox.script import Script
from tests.cli.terminal import Terminal
from tests.loaded_programs import CELERY, ForkedProcess, can_run
from worker.broker.keys import Keys, ledger_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

#: Where workers are started, so that they can include the modules of tests.
ROOT = Path(__file__).parents[2]
QUEUE = "moderation.lock"
RESULTS = "moderation.results"
DEAD = "moderation.dead"
CONTROL = "moderation.control"
TASK = "moderation.lock_conversation"
TOKEN = "sandbox-token"
DEADLINE_SECONDS = 20.0


def eventually(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait until a condition is true, and give what it returned.

    A condition that takes long is looked at less often, so that those whom it waits for have the machine meanwhile.
    """
    deadline = time.monotonic() + seconds
    while (began := time.monotonic()) < deadline:
        found = condition()
        if found:
            return found
        time.sleep(min(max(0.01, 2 * (time.monotonic() - began)), 0.5))
    raise AssertionError(f"waited {seconds:g} s in vain: {what}")


@contextmanager
def monitor(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """What a monitor such as Flower hears, from when it does."""
    heard: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        thread = threading.Thread(target=lambda: receiver.capture(limit=None, wakeup=False))
        thread.start()
        try:
            eventually(lambda: heard, "a heartbeat")
            yield heard
        finally:
            receiver.should_stop = True
            thread.join()


def _execute(
    through: tuple[str, ...], options: list[str], environment: dict[str, str], out: IO[bytes]
) -> ForkedProcess | subprocess.Popen[bytes]:
    """Start a worker in a new Python, by another program if one is given."""
    return subprocess.Popen(
        [*through, sys.executable, "-m", "celery", *options],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
    )


class WorkerProcess:
    """A worker, started by the command that an operator uses, with its log in a file.

    It is forked from a process that has loaded the program, unless another program is to start it, or only a new Python
    can show what the test asks for.
    """

    def __init__(
        self, environment: Mapping[str, str], arguments: tuple[str, ...], log: Path, through: tuple[str, ...] = ()
    ) -> None:
        self.log_file = log
        whole = {**os.environ, **environment}
        options = ["-A", "worker", "worker", "-l", "INFO", *arguments]
        with log.open("wb") as out:
            self.process = (
                _execute(through, options, whole, out)
                if through or not can_run(whole)
                else ForkedProcess(
                    CELERY, options, environment=whole, directory=ROOT, output=out.fileno(), errors=out.fileno()
                )
            )

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text("utf-8", "replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one event."""
        found = []
        for line in self.log.splitlines():
            with suppress(ValueError):
                fields = json.loads(line)
                if isinstance(fields, dict) and fields.get("event") == event:
                    found.append(fields)
        return found

    def wait_ready(self) -> Self:
        """Wait until it takes jobs."""
        eventually(lambda: self.process.poll() is not None or " ready." in self.log, "a worker that is ready")
        assert self.process.poll() is None, self.log
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = DEADLINE_SECONDS) -> int:
        """Send a signal, and give the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it without warning (SIGKILL), as an OOM kill or a lost node does."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


class Stage:
    """Redis, the sandbox API and workers; everything it started ends with it."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.redis_url = redis_url
        self.keys = Keys(QUEUE)
        self.folder = folder
        self._stack = ExitStack()
        self.workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        self.redis = self._stack.enter_context(redis.Redis.from_url(self.redis_url))
        self._listening = self._stack.enter_context(ExitStack())
        self.api = self._listening.enter_context(run_in_thread(SandboxApi(token=TOKEN)))
        self.producer = Celery("producer", broker=self.redis_url)
        self._stack.callback(self.producer.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def api_away(self) -> Iterator[None]:
        """Meanwhile the API's port refuses connections."""
        self._listening.close()
        try:
            yield
        finally:
            self._listening.enter_context(run_in_thread(self.api))

    def environment(self, **settings: object) -> dict[str, str]:
        """The environment of a worker: quick to retry and quick to stop, unless a test says otherwise."""
        return {
            "REDIS_URL": self.redis_url,
            "API_URL": self.api.url,
            "API_TOKEN": TOKEN,
            "HEALTH_PORT": "0",
            "RETRY_BASE_SECONDS": "0.01",
            "ATTEMPT_TIMEOUT_SECONDS": "2",
            "LEASE_SECONDS": "5",
            "SHUTDOWN_SECONDS": "5",
            # The sandbox speaks no TLS, and a worker that starts would read the machine's authorities twice.
            "SSL_CERT_FILE": "",
            **{name: str(value) for name, value in settings.items()},
        }

    def start(self, *arguments: str, **settings: object) -> WorkerProcess:
        """Start a worker, without waiting for it."""
        return self.start_through((), *arguments, **settings)

    def start_through(self, through: tuple[str, ...], *arguments: str, **settings: object) -> WorkerProcess:
        """Start a worker as :meth:`start` does, by another program that becomes it."""
        log = self.folder / f"worker-{len(self.workers) + 1}.log"
        worker = WorkerProcess(self.environment(**settings), arguments, log, through)
        self.workers.append(worker)
        self._stack.callback(worker.close)
        return worker

    def worker(self, *arguments: str, **settings: object) -> WorkerProcess:
        """Start a worker that takes jobs."""
        return self.start(*arguments, **settings).wait_ready()

    def warm_up(self, worker: WorkerProcess, jobs: int = 100) -> WorkerProcess:
        """Let the only worker come to the end of its slow start; nothing of that is left in Redis or the API's log."""
        script, self.api.script = self.api.script, Script()
        before = int(self.redis.xlen(RESULTS))
        for number in range(jobs):
            self.send(f"warm-up-{number}")
        eventually(lambda: self.redis.xlen(RESULTS) == before + jobs, "a worker that is warm")
        self.wait_idle()
        self.redis.delete(RESULTS, self.keys.counters)
        self.api.reset()
        self.api.script = script
        return worker

    def send(self, conversation_id: object = "c-1", *, task: str = TASK, **options: Any) -> str:
        """Enqueue a job as a stock Celery producer does; keyword ``fields`` are further fields of the job."""
        kwargs = {"conversation_id": conversation_id, **options.pop("fields", {})}
        sent = self.producer.send_task(task, kwargs=kwargs, **{"queue": QUEUE, **options})
        return str(sent.id)

    def push(self, message: bytes | str) -> None:
        """Enqueue raw bytes, as any client could."""
        self.redis.lpush(QUEUE, message)

    def events(self) -> list[dict[str, Any]]:
        """All result events so far."""
        return [json.loads(fields[b"event"]) for _, fields in self._stream(RESULTS)]

    def dead_letters(self) -> list[tuple[dict[str, Any], bytes]]:
        """All dead letters so far: event and raw message."""
        return [(json.loads(fields[b"event"]), fields[b"message"]) for _, fields in self._stream(DEAD)]

    def wait_events(self, count: int, seconds: float = DEADLINE_SECONDS) -> list[dict[str, Any]]:
        """Wait for so many events; more than that is an error."""
        eventually(lambda: self.redis.xlen(RESULTS) >= count, f"{count} events", seconds)
        events = self.events()
        assert len(events) == count, events
        return events

    def event_of(self, job: str, seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
        """Wait for the event of one job."""
        return dict(
            eventually(lambda: [event for event in self.events() if event["data"]["job_id"] == job], job, seconds)[0]
        )

    def outcome_of(self, job: str) -> str:
        """Wait for the event of one job, and give its outcome."""
        return str(self.event_of(job)["data"]["outcome"])

    def lock_worker(self, *arguments: str) -> str:
        """Run the command ``lock-worker`` to its end, and give what it printed."""
        ended = Terminal({"REDIS_URL": self.redis_url}, self.folder).run(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def wait_idle(self) -> None:
        """Wait until no job is waiting or held anywhere."""
        eventually(lambda: self.jobs_left() == 0, "no job left in Redis")

    def jobs_left(self) -> int:
        """Jobs that are not over, wherever they are."""
        keys = self.keys
        with self.redis.pipeline(transaction=True) as at_once:  # or a job that moves meanwhile could be overlooked
            for name in (*keys.priority_lists, keys.arrived, keys.requeued, keys.retries, keys.suspects):
                at_once.llen(name)
            at_once.zcard(keys.leases).zcard(keys.delayed).zcard(keys.held)
            return sum(at_once.execute())

    def leftovers(self) -> list[str]:
        """The keys that stay in Redis for ever and are not those that may."""
        permanent = {
            RESULTS,
            DEAD,
            ledger_of(RESULTS),
            ledger_of(DEAD),
            self.keys.counters,
            self.keys.maintenance,
            self.keys.arrivals,
            self.keys.limit,
            self.keys.queues,
            self.keys.controls,
            CONTROL,
        }
        names = [key.decode() for key in self.redis.scan_iter()]
        forever = [name for name in names if name not in permanent and not name.startswith("_kombu.binding")]
        return [name for name in forever if self.redis.ttl(name) == -1]

    def counters(self) -> dict[str, int]:
        """The queue's totals."""
        return {name.decode(): int(value) for name, value in self.redis.hgetall(self.keys.counters).items()}

    def _stream(self, name: str) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        yield from self.redis.xrange(name)
