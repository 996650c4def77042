"""The composition root, where ``celery -A worker`` finds the app: the only place that puts the parts together."""

from __future__ import annotations

import worker.runtime.gc_tuning  # isort: skip  # first, or the loading of the rest takes longer
import worker.celery_bridge.startup_output  # isort: skip  # noqa: F401 - next, so that an error in loading the rest is logged in the right format

import os
import re
import secrets
import socket
import sys
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.concurrency import get_implementation

import tasks.lock_conversation  # noqa: F401 - registers the task
from settings import SettingsError, load
from tasks import from_settings
from tasks.rule_limits import read_limit
from tasks.shadow import shadow_of
from tasks.task_name import TASK_NAME
from worker.broker import connection
from worker.broker.address_resolver import SentinelResolver
from worker.broker.backoff import MAX_SECONDS, ConnectBackoff
from worker.broker.broker_options import BrokerOptions
from worker.broker.control_moves import Trail
from worker.broker.keys import Keys
from worker.broker.layout import newer_layout, note_layout
from worker.broker.move_limits import MIN_DELIVERIES
from worker.broker.stream_bounds import StreamBounds
from worker.celery_bridge import transport
from worker.celery_bridge.celery_settings import celery_settings
from worker.celery_bridge.control import Commands
from worker.celery_bridge.monitoring import Monitoring
from worker.celery_bridge.pool import TaskPool
from worker.celery_bridge.transport import JobConsumer
from worker.celery_bridge.unsupported_options import queue_count, unsupported
from worker.flow_control.flow_control import FlowControl
from worker.message.decode import ReadAhead, decoder
from worker.observe import jobs, logs, output
from worker.observe.health import HealthServer, PortError, open_port
from worker.observe.lifetime import Lifetime
from worker.observe.log_limits import LogSummaries
from worker.observe.setting_names import hints
from worker.observe.systemd import SystemdNotifier
from worker.observe.tracing import switch
from worker.observe.tracing.switch import TracingOff
from worker.runtime.activity import activity_now
from worker.runtime.admission import Admission
from worker.runtime.background import Background
from worker.runtime.clock import ServerClock
from worker.runtime.control_watch import ControlWatch
from worker.runtime.fleet_watch import fleet_watch
from worker.runtime.in_flight import InFlight
from worker.runtime.leftovers import look_in_the_background
from worker.runtime.open_files import shortage
from worker.runtime.primary_watch import PrimaryWatch
from worker.runtime.readiness import Readiness
from worker.runtime.registry import Registry
from worker.runtime.revokes import Revokes
from worker.runtime.rule_guard import NoGuard, RuleGuard
from worker.runtime.runtime import Runtime
from worker.runtime.runtime_parts import RuntimeParts

if TYPE_CHECKING:
    from collections.abc import Callable

    from settings import Settings
    from tasks.handler import LockConversation
    from worker.broker.address_resolver import AddressResolver
    from worker.broker.client import RedisClient
    from worker.broker.redis_problems import Unfit
    from worker.observe.tracing.service import Tracing
    from worker.runtime.in_flight import Tracer
    from worker.runtime.members import Activity
    from worker.runtime.rule_guard import Guard


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

    control_cls = "worker.celery_bridge.control:Control"
    amqp_cls: Any = Messaging

    lifetime: Lifetime
    runtime: Runtime
    monitoring: Monitoring
    controls: ControlWatch
    commands: Commands
    readiness: Readiness
    shutdown_seconds: float
    redis_url: str
    resolver: AddressResolver | None
    look_for_leftovers: Callable[[], None]
    check_layout: Callable[[], list[Unfit]]
    allow_eviction: bool
    logs_json: bool
    backoff: ConnectBackoff
    keys_together: list[str]
    cluster_tag: str

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

    def job_queues(self) -> list[str]:
        """Return the names of the queues that this worker takes jobs from."""
        return [queue.name for queue in self.amqp.queues.consume_from.values()]


def build(settings: Settings) -> WorkerApp:
    """Put a worker together; nothing is connected or started yet."""
    app = WorkerApp("lock-worker")
    _set_up_connections(app, settings)
    _set_up_app(app, settings)
    in_flight, clock, name = InFlight(settings.CONCURRENCY), ServerClock(), _name()
    app.lifetime = Lifetime(settings, name=name, version=version("lock-worker"))
    api = from_settings.api_client(settings, concurrency=_CONNECTIONS)
    flow = _flow_control(app, settings, in_flight, name=name, server_ms=clock.now_ms, token_is_new=api.token_is_new)
    handler = from_settings.lock_conversation(
        settings, api=api, flow=flow.calls, on_retry=jobs.retried, on_call=jobs.called, on_drift=jobs.answer_drifted
    )
    tracing = _tracing(app, settings, name)
    app.monitoring = Monitoring(app.tasks[TASK_NAME], in_flight, runtime=lambda: app.runtime)
    client = connection.async_client(settings, app.backoff, app.resolver, on_useless=app.monitoring.reconnect)
    bounds = StreamBounds(settings.RESULTS_MAX_BYTES, settings.DEAD_MAX_BYTES)
    background = Background()
    controls = ControlWatch(client, Keys(settings.LOCK_QUEUE), in_flight=in_flight, clock=clock, background=background)
    parts = RuntimeParts(
        admission=_admission(settings, handler, clock, controls, None if isinstance(tracing, TracingOff) else tracing),
        handler=handler,
        client=client,
        broker_options=_broker_options(settings, bounds),
        in_flight=in_flight,
        clock=clock,
        flow=flow.gates,
        name=name,
        registry=_registry(settings, name, lambda: activity_now(in_flight, flow.gates, clock, controls)),
        controls=controls,
        revokes=_revokes(settings, client, clock),
        guard=_guard(settings, client, controls, clock),
        background=background,
        celery=app.monitoring,
        job_queues=app.job_queues,
        close_api=api.aclose,
    )
    _set_up_runtime(app, settings, parts)
    _add_services(app, settings, client, bounds, tracing)
    return app


def _set_up_app(app: WorkerApp, settings: Settings) -> None:
    app.look_for_leftovers = lambda: look_in_the_background(
        lambda: connection.sync_client(settings), app.job_queues, tag=settings.cluster_tag
    )
    app.check_layout = lambda: _check_and_note_layout(settings, app.job_queues())
    app.shutdown_seconds = settings.SHUTDOWN_SECONDS
    app.logs_json = settings.LOG_FORMAT == "json"


def _set_up_runtime(app: WorkerApp, settings: Settings, parts: RuntimeParts) -> None:
    app.controls = parts.controls
    app.runtime = runtime = Runtime(parts)
    app.commands = Commands(
        runtime.queues.looked_after,
        settings.streams,
        remember_revoked=runtime.remember_revoked,
        cluster_tag=settings.cluster_tag,
    )
    app.readiness = Readiness(
        in_flight=parts.in_flight,
        fetcher=runtime.fetcher,
        clock=parts.clock,
        gates=parts.flow,
        controls=parts.controls,
        has_queues=lambda: bool(app.amqp.queues.consume_from),
    )
    job_consumer = JobConsumer(runtime.queues.is_job_queue, runtime.queues.consume, runtime.queues.cancel)
    app.conf.update(celery_settings(settings, job_consumer, app.resolver))


def _set_up_connections(app: WorkerApp, settings: Settings) -> None:
    app.redis_url = connection.broker_url(settings)
    app.resolver = connection.address_resolver(settings)
    app.allow_eviction = settings.REDIS_ALLOW_EVICTION
    # Once the server is back, a worker has a lease's time at most to renew its leases (`grace_ms`).
    app.backoff = ConnectBackoff(max_seconds=min(MAX_SECONDS, settings.LEASE_SECONDS / 3))
    app.cluster_tag = settings.cluster_tag
    keys = Keys(settings.LOCK_QUEUE)
    app.keys_together = [*keys.priority_lists, keys.arrived, keys.leases, keys.limit, *settings.streams]


def _check_and_note_layout(settings: Settings, queues: list[str]) -> list[Unfit]:
    """Return the problem if jobs need a newer version; else note that workers of this one are at the queues."""
    with connection.sync_client(settings) as client:  # on a cluster kombu's own puts the hash tag before our keys
        found = newer_layout(client, queues, version("lock-worker"))
        if found is not None:
            return [found]
        note_layout(client, queues, version("lock-worker"))
    return []


def _add_services(
    app: WorkerApp,
    settings: Settings,
    client: RedisClient,
    bounds: StreamBounds,
    tracing: Tracing | TracingOff | None,
) -> None:
    runtime = app.runtime
    # Not before the server was found fit.
    has_begun = lambda: runtime.fetcher.last_fetch_at is not None  # noqa: E731 - short
    runtime.add_service(fleet_watch(settings, client, bounds, has_begun=has_begun, on_read=app.readiness.note_read))
    if isinstance(app.resolver, SentinelResolver):  # a node of a cluster that was demoted says so at once
        runtime.add_service(PrimaryWatch(app.resolver, client))
    if tracing is not None:
        runtime.add_service(tracing)
    runtime.add_service(LogSummaries())


def _registry(settings: Settings, name: str, activity: Callable[[], Activity]) -> Registry:
    return Registry(name, version("lock-worker"), settings.to_agree_on(), activity=activity)


def _revokes(settings: Settings, client: RedisClient, clock: ServerClock) -> Revokes:
    return Revokes(
        client,
        Keys(settings.LOCK_QUEUE),
        _trail(settings),
        max_age_ms=round(settings.JOB_MAX_AGE_SECONDS * 1000),
        source=settings.EVENT_SOURCE,
        clock=clock,
    )


def _flow_control(
    app: WorkerApp,
    settings: Settings,
    in_flight: InFlight,
    *,
    name: str,
    server_ms: Callable[[], float],
    token_is_new: Callable[[], bool],
) -> FlowControl:
    return FlowControl(
        in_flight,
        name=name,
        failures=settings.BREAKER_FAILURES,
        is_rate_limited=settings.RATE_LIMIT_PER_SECOND is not None,
        max_pause=settings.RETRY_MAX_DELAY_SECONDS,
        changes=lambda: app.runtime.flow_changed(),  # noqa: PLW0108 - the runtime is made later
        restore_attempts=lambda jobs: app.runtime.restore_attempts(jobs),  # noqa: PLW0108 - as above
        server_ms=server_ms,
        token_is_new=token_is_new,
        on_news=lambda news: app.controls.saw(news),  # noqa: PLW0108 - as above
    )


def _admission(
    settings: Settings,
    handler: LockConversation,
    clock: ServerClock,
    controls: ControlWatch,
    tracer: Tracer | None,
) -> Admission:
    read = ReadAhead(decoder(TASK_NAME, shadow_of(settings)))
    return Admission(
        read=read,
        look_ahead=read.look,
        handler=handler,
        clock=clock,
        max_age_seconds=settings.JOB_MAX_AGE_SECONDS,
        tracer=tracer,
        controls=controls,
    )


def _tracing(app: WorkerApp, settings: Settings, name: str) -> Tracing | TracingOff | None:
    return switch.tracing(
        os.environ,
        api_url=settings.API_URL,
        results=settings.RESULTS_CHANNEL,
        version=version("lock-worker"),
        instance=name,
        seconds_left=lambda: app.runtime.seconds_left(),  # noqa: PLW0108 - the runtime is made later
    )


def _trail(settings: Settings) -> Trail:
    return Trail(settings.CONTROL_STREAM, settings.CONTROL_MAXLEN)


def _guard(settings: Settings, client: RedisClient, controls: ControlWatch, clock: ServerClock) -> Guard:
    if settings.RULE_LIMIT is None and not settings.rule_limits:
        return NoGuard()
    return RuleGuard(
        client,
        Keys(settings.LOCK_QUEUE),
        _trail(settings),
        default=None if settings.RULE_LIMIT is None else read_limit(settings.RULE_LIMIT),
        limits=settings.rule_limits,
        source=settings.EVENT_SOURCE,
        controls=controls,
        clock=clock,
    )


def _broker_options(settings: Settings, bounds: StreamBounds) -> BrokerOptions:
    return BrokerOptions(
        fleet=Keys(settings.LOCK_QUEUE),
        rate=settings.RATE_LIMIT_PER_SECOND,
        results=settings.RESULTS_CHANNEL,
        results_maxlen=settings.RESULTS_MAXLEN,
        dead=settings.DEAD_STREAM,
        dead_maxlen=settings.DEAD_MAXLEN,
        lease_ms=round(settings.LEASE_SECONDS * 1000),
        dedup_ttl_ms=settings.DEDUPLICATE_SECONDS * 1000,
        max_deliveries=max(settings.MAX_DELIVERIES, MIN_DELIVERIES),
        max_age_ms=round(settings.JOB_MAX_AGE_SECONDS * 1000),
        bounds=bounds,
    )


def _name() -> str:
    """A name in Redis that no other process ever had, and that tells people whose it is: host, process id, chance."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().partition(".")[0])
    return f"{host[-_HOST_CHARACTERS:]}-{os.getpid()}-{secrets.token_hex(6)}"


def _check_the_options(options: dict[str, Any], settings: Settings) -> None:
    # The command hands a pool over as ``pool``; what raises here would be swallowed, and the worker would start.
    pool = options.get("pool") or options.get("pool_cls") or TaskPool
    reason = unsupported(
        options, get_implementation(pool), TaskPool, streams=settings.streams, tag=settings.cluster_tag
    )
    if reason:
        sys.exit(reason)
    reason = shortage(int(options.get("concurrency") or settings.CONCURRENCY), queue_count(options))
    if reason:
        sys.exit(f"lock-worker does not start: CONCURRENCY: {reason}")


def _health(settings: Settings, readiness: Readiness) -> HealthServer:
    try:
        listening = open_port(settings.HEALTH_HOST, settings.HEALTH_PORT)
    except PortError as error:
        sys.exit(f"lock-worker does not start: {error}")
    return HealthServer(
        listening,
        reasons=readiness.reasons_not_ready,
        held_back_by=readiness.fleet_held_back_by,
        refresh=readiness.refresh_gauges,
    )


def _systemd(app: WorkerApp) -> SystemdNotifier:
    return SystemdNotifier(
        os.environ,
        is_stopping=lambda: app.runtime.in_flight.is_closed,
        reasons=app.readiness.reasons_not_ready,
        held_back_by=app.readiness.fleet_held_back_by,
    )


def _start() -> WorkerApp:
    try:
        settings = load(need_token=True)
    except SettingsError as error:
        sys.exit(f"lock-worker does not start: {error}{''.join(hints())}")

    def set_up_logging(loglevel: int, **_: Any) -> None:
        logs.configure(settings.LOG_FORMAT, loglevel, output.log_stream())

    def before_the_worker_starts(sender: str, options: dict[str, Any], **_: Any) -> None:
        output.take_over(settings.LOG_FORMAT)
        _check_the_options(options, settings)
        built.runtime.registry.name = sender
        if settings.HEALTH_PORT:
            built.runtime.add_service(_health(settings, built.readiness))
        if os.environ.get("NOTIFY_SOCKET"):
            built.runtime.add_service(_systemd(built))

    def before_a_heartbeat(**_: Any) -> None:
        built.monitoring.sync()

    def when_told_to_stop(sig: str, **_: Any) -> None:
        built.lifetime.asked_to_stop(sig)
        built.runtime.flush_monitoring()

    built = build(settings)
    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.celeryd_init.connect(before_the_worker_starts, weak=False)
    signals.worker_shutting_down.connect(when_told_to_stop, weak=False)
    signals.heartbeat_sent.connect(before_a_heartbeat, weak=False)
    return built


app = _start()
