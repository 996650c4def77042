"""How Celery is set, so that it is what the worker needs of it and nothing else (see docs/internals.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.broker import connection

if TYPE_CHECKING:
    from settings import Settings
    from worker.broker.address_resolver import AddressResolver
    from worker.celery_bridge.transport import JobConsumer


def celery_settings(settings: Settings, job_consumer: JobConsumer, resolver: AddressResolver | None) -> dict[str, Any]:
    """Return Celery's settings.

    Args:
        settings: the settings.
        job_consumer: takes the jobs in kombu's place.
        resolver: resolves the server's address where REDIS_URL does not name it.
    """
    return {
        "broker_url": connection.broker_url(settings),
        "broker_use_ssl": connection.tls_options(settings) or None,
        "broker_transport": "worker.celery_bridge.transport:Transport",
        "broker_transport_options": {
            "job_consumer": job_consumer,
            "credentials": connection.credentials(settings),
            "resolver": resolver,
            # On a cluster Celery's own keys are in the slot of the queue too.
            "global_keyprefix": settings.cluster_tag,
            # Seconds after which a silent connection is asked for a sign of life; kombu's default of 25 is too long.
            "health_check_interval": 2,
        },
        "broker_connection_retry_on_startup": True,
        "broker_channel_error_retry": True,
        "task_default_queue": settings.LOCK_QUEUE,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "result_backend": "worker.celery_bridge.no_results:NoResults",
        "worker_pool": "worker.celery_bridge.pool:TaskPool",
        "worker_consumer": "worker.celery_bridge.consumer:Consumer",
        "worker_concurrency": settings.CONCURRENCY,
        "worker_prefetch_multiplier": 1,
        "worker_disable_rate_limits": True,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_detect_quorum_queues": False,
    }
