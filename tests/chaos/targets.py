"""What is put under test: the lock-worker, or a stock Celery worker that does the same job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.chaos.names import CONTROL, DEAD, QUEUE, RESULTS
from tests.chaos.plan import LEASE_SECONDS
from worker.broker.keys import Keys, ledger_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from redis import Redis

    from tests.chaos.plan import Plan

#: Two calls in one slot can take longer than a lease: only a worker that renews its leases keeps such a job.
ATTEMPT_TIMEOUT_SECONDS = 3.0

_KEYS = Keys(QUEUE)
#: The tokens and messages of all jobs in flight, in one step.
_IN_FLIGHT = """
local found = {}
for _, ref in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local record = redis.call('HMGET', ARGV[1] .. ref, 'lease_token', 'raw')
  found[#found + 1] = {record[1] or '', record[2] or ''}
end
return found
"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a worker finds what it needs."""

    redis_url: str
    api_url: str
    token_file: Path


class Target(Protocol):
    """A kind of worker."""

    #: How long nothing may move, once everything is well again, before what is left counts as left, in seconds.
    drain_seconds: float

    def arguments(self, plan: Plan) -> list[str]:
        """What follows ``python -m celery``."""

    def environment(self, plan: Plan, around: Surroundings) -> dict[str, str]:
        """Its environment variables."""

    def in_flight(self, client: Redis, name: str) -> list[bytes]:
        """The messages in flight in the worker of that name."""

    def left(self, client: Redis) -> dict[str, int]:
        """What is left of jobs: the place, and how many."""

    def strays(self, client: Redis) -> list[str]:
        """Keys that stay for ever and are not meant to."""

    def counters(self, client: Redis) -> dict[str, int] | None:
        """Its totals, if it keeps some."""


class LockWorker:
    """Our worker, with a short lease, and so patient that no healthy job runs out of tries."""

    drain_seconds = 60.0

    def arguments(self, plan: Plan) -> list[str]:
        """Start it as an operator does, with the plugin that tells its name."""
        return [
            "-A",
            "worker",
            "worker",
            "-l",
            "INFO",
            "-c",
            str(plan.concurrency),
            "--include",
            "tests.chaos.name_tag",
        ]

    def environment(self, plan: Plan, around: Surroundings) -> dict[str, str]:
        """Nothing is ever trimmed or forgotten, so that the history is whole."""
        return {
            "REDIS_URL": around.redis_url,
            "LOCK_QUEUE": QUEUE,
            "RESULTS_CHANNEL": RESULTS,
            "DEAD_STREAM": DEAD,
            "CONTROL_STREAM": CONTROL,
            "API_URL": around.api_url,
            "API_TOKEN_FILE": str(around.token_file),
            "HEALTH_PORT": "0",
            "SSL_CERT_FILE": "",  # no authorities, which each start would read, and the sandbox speaks no TLS
            "LOG_FORMAT": "json",
            "RESULTS_MAXLEN": "10000000",
            "DEAD_MAXLEN": "10000000",
            "RESULT_CONVERSATION": "state",
            "DEDUPLICATE_SECONDS": "86400",
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "SHUTDOWN_SECONDS": str(plan.shutdown_seconds),
            "ATTEMPT_TIMEOUT_SECONDS": str(ATTEMPT_TIMEOUT_SECONDS),
            "RETRY_BASE_SECONDS": "0.05",
            "RETRY_MAX_DELAY_SECONDS": "3",
            "MAX_ATTEMPTS": "10",
            "MAX_DELIVERIES": "100",
            "RULE_LIMIT": "" if plan.rule_limit is None else f"{plan.rule_limit}/1h",
            "RATE_LIMIT_PER_SECOND": "" if plan.rate_limit is None else str(plan.rate_limit),
        }

    def in_flight(self, client: Redis, name: str) -> list[bytes]:
        """Those whose lease token is of this worker."""
        found: Any = client.eval(_IN_FLIGHT, 1, _KEYS.leases, _KEYS.record_prefix)
        return [raw for token, raw in found if token.startswith(name.encode() + b".")]

    def left(self, client: Redis) -> dict[str, int]:
        """All places at one moment, or a job that moves meanwhile could be overlooked."""
        lists = (*_KEYS.priority_lists, _KEYS.arrived, _KEYS.requeued, _KEYS.retries, _KEYS.suspects)
        sets = (_KEYS.leases, _KEYS.delayed, _KEYS.held)
        with client.pipeline(transaction=True) as at_once:
            for name in lists:
                at_once.llen(name)
            for name in sets:
                at_once.zcard(name)
            found = dict(zip((*lists, *sets), at_once.execute(), strict=True))
        if not any(found.values()):
            found["records"] = sum(1 for _ in client.scan_iter(f"{_KEYS.record_prefix}*", count=1000))
        return found

    def strays(self, client: Redis) -> list[str]:
        """All that has no TTL and is not there for good."""
        streams = {RESULTS, DEAD, ledger_of(RESULTS), ledger_of(DEAD)}
        permanent = streams | {_KEYS.counters, _KEYS.maintenance, _KEYS.limit, _KEYS.queues, _KEYS.arrivals}
        permanent |= {_KEYS.controls, CONTROL}
        names = [name.decode() for name in client.scan_iter(count=1000)]
        remembered = [name for name in names if name.startswith(_KEYS.id_prefix)]
        forever = [name for name in remembered[:100] if client.ttl(name) == -1]
        others = set(names) - permanent - set(remembered)
        return forever + [name for name in others if "_kombu.binding" not in name and client.ttl(name) == -1]

    def counters(self, client: Redis) -> dict[str, int] | None:
        """The queue's totals."""
        found: Mapping[Any, Any] = client.hgetall(_KEYS.counters)
        return {name.decode(): int(count) for name, count in found.items()}


class StockCelery:
    """A stock Celery worker with late acknowledgement, the setting that is meant to survive the loss of a worker."""

    #: A lost worker's jobs come back after the visibility timeout and a sweep, which comes about every 100 s; when a
    #: worker dies in a sweep, nobody sweeps for 300 s.
    drain_seconds = 700.0

    def arguments(self, plan: Plan) -> list[str]:
        """The threads pool: one process a worker, as ours."""
        app = "tests.chaos.stock_celery"
        return ["-A", app, "worker", "-l", "INFO", "--pool", "threads", "-c", str(plan.concurrency), "-Q", QUEUE]

    def environment(self, plan: Plan, around: Surroundings) -> dict[str, str]:  # noqa: ARG002 - as the protocol
        """Its module reads these."""
        return {
            "REDIS_URL": around.redis_url,
            "API_URL": around.api_url,
            "API_TOKEN": around.token_file.read_text("utf-8").strip(),
        }

    def in_flight(self, client: Redis, name: str) -> list[bytes]:
        """Nobody can tell: what is unacknowledged names no worker."""
        raise NotImplementedError

    def left(self, client: Redis) -> dict[str, int]:
        """The queue with its priorities, and what is unacknowledged."""
        with client.pipeline(transaction=True) as at_once:
            for name in _KEYS.priority_lists:
                at_once.llen(name)
            at_once.hlen("unacked")
            at_once.zcard("unacked_index")
            return dict(zip((*_KEYS.priority_lists, "unacked", "unacked_index"), at_once.execute(), strict=True))

    def strays(self, client: Redis) -> list[str]:  # noqa: ARG002 - as the protocol
        """Not looked at."""
        return []

    def counters(self, client: Redis) -> dict[str, int] | None:  # noqa: ARG002 - as the protocol
        """It keeps none."""
        return None


TARGETS: dict[str, Target] = {"lock-worker": LockWorker(), "stock-celery": StockCelery()}
