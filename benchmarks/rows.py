"""The rows: what runs, with which settings, and why these."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from benchmarks import environments


@dataclass(frozen=True, slots=True)
class Row:
    """One worker with its settings.

    Attributes:
        name: as it is shown.
        family: the queue it belongs to; ``bare`` for none.
        command: what follows the interpreter.
        environment: whose interpreter; None for this project's.
        producer: the module that enqueues; None where there is no queue.
        variables: environment variables of the worker.
        settings: what was chosen, in words.
        at_most: jobs per second that it will surely not pass; decides how many jobs are enqueued.
        has_throughput: False: only its latency is measured, because another row has the same worker.
    """

    name: str
    family: str
    command: tuple[str, ...]
    environment: str | None
    producer: str | None
    settings: str
    at_most: int
    variables: dict[str, str] = field(default_factory=dict)
    has_throughput: bool = True

    @property
    def python(self) -> str:
        """The interpreter; its environment is made in the first use."""
        return sys.executable if self.environment is None else environments.python(self.environment)


_CELERY = ("-m", "celery", "-A", "benchmarks.peers.celery_app", "worker", "-l", "WARNING", "--without-mingle",
           "--without-gossip", "--without-heartbeat")  # fmt: skip
_TASKIQ = ("-m", "taskiq", "worker", "benchmarks.peers.taskiq_app:broker", "--workers", "1", "--max-async-tasks", "200",
           "--max-prefetch", "200", "--log-level", "WARNING")  # fmt: skip
_HUEY = ("-m", "huey.bin.huey_consumer", "benchmarks.peers.huey_app.huey", "-q", "-n")
_ASYNC = (("stock httpx", "httpx", 1_000), ("our HTTP transport", "tuned", 3_000))


def _both(family: str, command: tuple[str, ...], module: str, settings: str) -> list[Row]:
    """An asyncio queue, with stock httpx and with the worker's own transport."""
    return [
        Row(
            name=f"{family}, {label}",
            family=family,
            command=command,
            environment=family,
            producer=module,
            settings=settings,
            at_most=at_most,
            variables={"BENCH_CLIENT": client},
        )
        for label, client, at_most in _ASYNC
    ]


def _celery(pool: str, concurrency: int, prefetch: int, settings: str) -> Row:
    return Row(
        name=f"Celery {pool}",
        family="celery",
        command=(*_CELERY, "-P", pool, "-c", str(concurrency)),
        environment="celery",
        producer="benchmarks.peers.celery_app",
        settings=f"{settings}; acks_late, prefetch multiplier {prefetch}, no results, events, remote control, mingle, "
        "gossip or heartbeat",
        at_most=1_500,
        variables={"BENCH_PREFETCH": str(prefetch)},
    )


_LOCK_WORKER = ("-m", "celery", "-A", "worker", "worker", "-c", "200", "-l", "INFO")

ROWS: tuple[Row, ...] = (
    Row(
        name="lock-worker",
        family="lock-worker",
        command=_LOCK_WORKER,
        environment=None,
        producer="benchmarks.peers.lock_worker",
        settings="1 process, 200 coroutines; as in production: leases, deduplication, health and metrics server, a "
        "JSON log line for each job; jobs come from a stock Celery client",
        at_most=9_000,
        variables={"LOG_FORMAT": "json"},
    ),
    Row(
        name="lock-worker, LPUSH",
        family="lock-worker",
        command=_LOCK_WORKER,
        environment=None,
        producer="benchmarks.peers.lock_worker_lpush",
        settings="as lock-worker; jobs come by LPUSH from an asyncio Redis client, as the asyncio peers' jobs do",
        at_most=9_000,
        variables={"LOG_FORMAT": "json"},
        has_throughput=False,
    ),
    Row(
        name="bare loop",
        family="bare",
        command=("-m", "benchmarks.bare"),
        environment=None,
        producer=None,
        settings="no queue: 1 process, 200 coroutines, our HTTP transport, the worker's own packages",
        at_most=0,
        variables={"BENCH_CLIENT": "tuned"},
    ),
    Row(
        name="bare loop on uvloop",
        family="bare",
        command=("-m", "benchmarks.bare"),
        environment="job",
        producer=None,
        settings="as the bare loop, on uvloop",
        at_most=0,
        variables={"BENCH_CLIENT": "tuned", "BENCH_UVLOOP": "1"},
    ),
    _celery("prefork", 32, 4, "32 processes"),
    _celery("threads", 64, 4, "1 process, 64 threads"),
    _celery("gevent", 200, 4, "1 process, 200 greenlets"),
    Row(
        name="Dramatiq",
        family="dramatiq",
        command=("-m", "dramatiq", "benchmarks.peers.dramatiq_app", "--processes", "1", "--threads", "64"),
        environment="dramatiq",
        producer="benchmarks.peers.dramatiq_app",
        settings="1 worker process, 64 threads, no results",
        at_most=1_500,
    ),
    *_both(
        "taskiq",
        _TASKIQ,
        "benchmarks.peers.taskiq_app",
        "1 worker process, 200 coroutines, prefetch 200, Redis stream broker (acknowledges), uvloop, hiredis",
    ),
    *_both(
        "saq",
        ("-m", "saq", "benchmarks.peers.saq_app.settings"),
        "benchmarks.peers.saq_app",
        "1 process, 200 coroutines, ttl -1 (no results), uvloop, hiredis",
    ),
    *_both(
        "arq",
        ("-m", "arq", "benchmarks.peers.arq_app.Worker"),
        "benchmarks.peers.arq_app",
        "1 process, 200 coroutines, polls every 10 ms (default 500), no results, uvloop, hiredis",
    ),
    *_both(
        "streaq",
        ("-m", "streaq", "run", "benchmarks.peers.streaq_app:worker"),
        "benchmarks.peers.streaq_app",
        "1 process, 200 coroutines, ttl 0 (no results), uvloop",
    ),
    *_both(
        "docket",
        ("-m", "benchmarks.peers.docket_app"),
        "benchmarks.peers.docket_app",
        "1 process, 200 coroutines, execution_ttl 0 (no results), uvloop, hiredis",
    ),
    Row(
        name="RQ",
        family="rq",
        command=("-m", "benchmarks.peers.rq_app", "16"),
        environment="rq",
        producer="benchmarks.peers.rq_app",
        settings="worker pool of 16 processes of SimpleWorker (no fork for each job), result_ttl 0",
        at_most=500,
    ),
    Row(
        name="huey threads",
        family="huey",
        command=(*_HUEY, "-w", "64", "-k", "thread"),
        environment="huey",
        producer="benchmarks.peers.huey_app",
        settings="1 process, 64 threads, no results, no periodic tasks; takes jobs without acknowledging them",
        at_most=1_500,
    ),
    Row(
        name="huey greenlets",
        family="huey",
        command=(*_HUEY, "-w", "200", "-k", "greenlet"),
        environment="huey",
        producer="benchmarks.peers.huey_app",
        settings="1 process, 200 greenlets, no results, no periodic tasks; takes jobs without acknowledging them",
        at_most=1_500,
        variables={"BENCH_GREENLETS": "1"},
    ),
)
