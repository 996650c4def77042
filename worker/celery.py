"""The composition root, where ``celery -A worker`` finds the app: the only place that puts the parts together."""

from __future__ import annotations

import worker.runtime.gc_tuning  # isort: skip  # first, or the loading of the rest takes longer
import worker.celery_bridge.startup_output  # isort: skip  # noqa: F401 - next, or an error in loading the rest is told in no format

import os
import re
import secrets
import socket
import sys
from functools import cached_property
from importlib.metadata import version
from socket import gaierror
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.concurrency import get_implementation

import settings
import tasks.lock_conversation  # noqa: F401 - registers the task
from tasks.handler import LockConversation
from tasks.managem.client import ManagemApi
from tasks.managem.token import token_source
from tasks.retry import RetryPolicy
from tasks.task_name import TASK_NAME
from worker.broker import connection
from worker.broker.backoff import MAX_SECONDS, ConnectBackoff
from worker.broker.keys import Keys
from worker.broker.moves import MIN_DELIVERIES, BrokerOptions
from worker.broker.stream_bounds import StreamBounds
from worker.celery_bridge import transport
from worker.celery_bridge.monitoring import Monitoring
from worker.celery_bridge.pool import TaskPool
from worker.celery_bridge.transport import JobConsumer
from worker.celery_bridge.unsupported_options import queue_count, unsupported
from worker.flow_control.flow_control import FlowControl
from worker.message.decode import ReadAhead, decoder
from worker.observe import logs, output
from worker.observe.health import HealthServer
from worker.observe.page_server import listen
from worker.runtime.admission import Admission
from worker.runtime.clock import ServerClock
from worker.runtime.in_flight import InFlight
from worker.runtime.leftovers import look_in_the_background
from worker.runtime.open_files import shortage
from worker.runtime.readiness import Readiness
from worker.runtime.registry import Registry
from worker.runtime.runtime import Runtime
from worker.runtime.stream_monitor import StreamMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from settings import Settings


#: Of the host's name in the worker's: its end, where the names of pods differ. Each job that a worker took and that
#: waits in Redis has the worker's name in its own, so it is no longer than it has to be.
_HOST_CHARACTERS = 20
#: Connections to the API at most: more than a worker runs jobs at once, whatever --concurrency and pool_grow say.
_CONNECTIONS = 100_000


class Messaging(AMQP):
    """Celery's way to its broker, with connections that try nothing without end."""

    Connection = transport.Connection


class WorkerApp(Celery):
    """The Celery app, with what its pool and its consumer need."""

    control_cls = "worker.celery_bridge.monitoring:Control"
    amqp_cls: Any = Messaging

    runtime: Runtime
    monitoring: Monitoring
    readiness: Readiness
    shutdown_seconds: float
    redis_url: str
    look_for_leftovers: Callable[[], None]
    allow_eviction: bool
    logs_json: bool
    backoff: ConnectBackoff
    keys_together: list[str]

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The worker program of this app."""
        subclass: Any = self.subclass_with_self  # its type hints know of no names
        return subclass("worker.celery_bridge.program:Program")

    def connection_for_read(self, url: str | None = None, **kwargs: Any) -> Any:
        """A connection to REDIS_URL, whatever Celery's own variables (CELERY_BROKER_URL) say."""
        return super().connection_for_read(url or self.redis_url, **kwargs)

    def connection_for_write(self, url: str | None = None, **kwargs: Any) -> Any:
        """As :meth:`connection_for_read`."""
        return super().connection_for_write(url or self.redis_url, **kwargs)


def build(found: Settings) -> WorkerApp:
    """Put a worker together; nothing is connected or started yet."""
    app = WorkerApp("lock-worker")

    def job_queues() -> list[str]:
        return [queue.name for queue in app.amqp.queues.consume_from.values()]

    api = ManagemApi(
        base_url=found.API_URL,
        token=token_source(found.API_TOKEN, found.API_TOKEN_FILE),
        timeout_seconds=found.ATTEMPT_TIMEOUT_SECONDS,
        concurrency=_CONNECTIONS,
        user_agent=f"lock-worker/{version('lock-worker')}",
    )
    in_flight = InFlight(found.CONCURRENCY)
    clock = ServerClock()
    name = _name()
    flow = FlowControl(
        in_flight,
        name=name,
        failures=found.BREAKER_FAILURES,
        is_rate_limited=found.RATE_LIMIT_PER_SECOND is not None,
        max_pause=found.RETRY_MAX_DELAY_SECONDS,
        changes=lambda: app.runtime.flow_changed(),  # noqa: PLW0108 - the runtime is made below
        restore_attempts=lambda jobs: app.runtime.restore_attempts(jobs),  # noqa: PLW0108 - as above
        server_ms=clock.now_ms,
        token_is_new=api.token_is_new,
    )
    handler = LockConversation(
        api=api,
        flow=flow,
        policy=RetryPolicy(
            max_attempts=found.MAX_ATTEMPTS,
            base_seconds=found.RETRY_BASE_SECONDS,
            max_delay_seconds=found.RETRY_MAX_DELAY_SECONDS,
        ),
        shown=found.RESULT_CONVERSATION,
        max_event_bytes=found.RESULT_MAX_BYTES,
        source=found.EVENT_SOURCE,
    )
    read = ReadAhead(decoder(TASK_NAME))
    app.redis_url = connection.public_url(found)
    app.look_for_leftovers = lambda: look_in_the_background(lambda: connection.sync_client(found), job_queues)
    app.shutdown_seconds = found.SHUTDOWN_SECONDS
    app.allow_eviction = found.REDIS_ALLOW_EVICTION
    app.logs_json = found.LOG_FORMAT == "json"
    # Once the server is back, a worker has a lease's time at most to renew its leases (`grace_ms`).
    app.backoff = ConnectBackoff(max_seconds=min(MAX_SECONDS, found.LEASE_SECONDS / 3))
    keys = Keys(found.LOCK_QUEUE)
    app.keys_together = [
        *keys.priority_lists,
        keys.arrived,
        keys.leases,
        keys.limit,
        found.RESULTS_CHANNEL,
        found.DEAD_STREAM,
    ]
    app.monitoring = Monitoring(
        app.tasks[TASK_NAME], in_flight, (found.RESULTS_CHANNEL, found.DEAD_STREAM), runtime=lambda: app.runtime
    )
    client = connection.async_client(found, app.backoff, on_useless=app.monitoring.reconnect)
    bounds = StreamBounds(found.RESULTS_MAX_BYTES, found.DEAD_MAX_BYTES)
    app.runtime = Runtime(
        admission=Admission(
            read=read,
            look_ahead=read.look,
            handler=handler,
            clock=clock,
            max_age_seconds=found.JOB_MAX_AGE_SECONDS,
        ),
        handler=handler,
        client=client,
        broker_options=_broker_options(found, bounds),
        in_flight=in_flight,
        clock=clock,
        flow=flow,
        name=name,
        registry=Registry(name, version("lock-worker"), found.to_agree_on()),
        celery=app.monitoring,
        job_queues=job_queues,
        close_api=api.aclose,
    )
    fetcher = app.runtime.fetcher
    app.runtime.services.append(
        StreamMonitor(
            client,
            results=found.RESULTS_CHANNEL,
            maxlen=found.RESULTS_MAXLEN,
            bounds=bounds,
            clock=clock,
            has_begun=lambda: fetcher.last_fetch_at is not None,
        )
    )
    app.readiness = Readiness(in_flight=in_flight, fetcher=fetcher, clock=clock, flow=flow)
    app.conf.update(_celery_settings(found, app.runtime))
    return app


def _broker_options(found: Settings, bounds: StreamBounds) -> BrokerOptions:
    return BrokerOptions(
        fleet=Keys(found.LOCK_QUEUE),
        rate=found.RATE_LIMIT_PER_SECOND,
        results=found.RESULTS_CHANNEL,
        results_maxlen=found.RESULTS_MAXLEN,
        dead=found.DEAD_STREAM,
        dead_maxlen=found.DEAD_MAXLEN,
        lease_ms=round(found.LEASE_SECONDS * 1000),
        dedup_ttl_ms=found.DEDUPLICATE_SECONDS * 1000,
        max_deliveries=max(found.MAX_DELIVERIES, MIN_DELIVERIES),
        max_age_ms=round(found.JOB_MAX_AGE_SECONDS * 1000),
        bounds=bounds,
    )


def _name() -> str:
    """A name in Redis that no other process ever had, and that tells people whose it is: host, process id, chance."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().partition(".")[0])
    return f"{host[-_HOST_CHARACTERS:]}-{os.getpid()}-{secrets.token_hex(6)}"


def _celery_settings(found: Settings, runtime: Runtime) -> dict[str, Any]:
    return {
        "broker_url": connection.public_url(found),
        "broker_use_ssl": connection.tls_options(found) or None,
        "broker_transport": "worker.celery_bridge.transport:Transport",
        "broker_transport_options": {
            "job_consumer": JobConsumer(runtime.is_job_queue, runtime.consume, runtime.cancel),
            "credentials": connection.credentials(found),
            # Seconds after which a silent connection is asked for a sign of life; kombu's default of 25 is too long.
            "health_check_interval": 2,
        },
        "broker_connection_retry_on_startup": True,
        "broker_channel_error_retry": True,
        "task_default_queue": found.LOCK_QUEUE,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "worker_pool": "worker.celery_bridge.pool:TaskPool",
        "worker_consumer": "worker.celery_bridge.consumer:Consumer",
        "worker_concurrency": found.CONCURRENCY,
        "worker_prefetch_multiplier": 1,
        "worker_disable_rate_limits": True,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_detect_quorum_queues": False,
    }


def _check_the_options(options: dict[str, Any], found: Settings) -> None:
    # The command hands a pool over as ``pool``; what raises here would be swallowed, and the worker would start.
    pool = options.get("pool") or options.get("pool_cls") or TaskPool
    reason = unsupported(
        options, get_implementation(pool), TaskPool, streams=(found.RESULTS_CHANNEL, found.DEAD_STREAM)
    )
    if reason:
        sys.exit(reason)
    reason = shortage(int(options.get("concurrency") or found.CONCURRENCY), queue_count(options))
    if reason:
        sys.exit(f"lock-worker does not start: CONCURRENCY: {reason}")


def _health(found: Settings, readiness: Readiness) -> HealthServer:
    try:
        listening = listen(found.HEALTH_HOST, found.HEALTH_PORT)
    except OSError as error:
        name = "HEALTH_HOST" if isinstance(error, gaierror) else "HEALTH_PORT"
        where = f"{found.HEALTH_HOST} port {found.HEALTH_PORT}"
        why = f"cannot listen on {where} ({error.strerror}); HEALTH_PORT=0 is for none"
        sys.exit(f"lock-worker does not start: {name}: {why}")
    return HealthServer(
        listening,
        reasons=readiness.reasons_not_ready,
        held_back_by=readiness.fleet_held_back_by,
        refresh=readiness.refresh_gauges,
    )


def _start() -> WorkerApp:
    try:
        found = settings.load(need_token=True)
    except settings.SettingsError as error:
        sys.exit(f"lock-worker does not start: {error}")

    def set_up_logging(loglevel: int, **_: Any) -> None:
        logs.configure(found.LOG_FORMAT, loglevel, output.log_stream())

    def before_the_worker_starts(sender: str, options: dict[str, Any], **_: Any) -> None:
        output.take_over(found.LOG_FORMAT)
        _check_the_options(options, found)
        built.runtime.registry.node = sender
        if found.HEALTH_PORT:
            built.runtime.services.append(_health(found, built.readiness))

    def before_a_heartbeat(**_: Any) -> None:
        built.monitoring.sync()

    def when_told_to_stop(**_: Any) -> None:
        built.runtime.flush_monitoring()

    built = build(found)
    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.celeryd_init.connect(before_the_worker_starts, weak=False)
    signals.worker_shutting_down.connect(when_told_to_stop, weak=False)
    signals.heartbeat_sent.connect(before_a_heartbeat, weak=False)
    return built


app = _start()
