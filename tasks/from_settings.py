"""Makes what a job's life needs from the settings: for the worker, and for a job that runs in-process."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from tasks import drift
from tasks.handler import LockConversation
from tasks.lock_call import LockCall
from tasks.managem.client import ManagemApi
from tasks.managem.token import token_source
from tasks.reporter import Reporter
from tasks.retry import RetryPolicy

if TYPE_CHECKING:
    from settings import Settings
    from tasks.drift import DriftObserver
    from tasks.flow import Flow
    from tasks.lock_call import CallObserver
    from tasks.retry import RetryObserver


def api_client(settings: Settings, *, concurrency: int) -> ManagemApi:
    """Return the API's client; nothing is connected yet.

    Args:
        settings: the settings, with a token.
        concurrency: how many calls may run at once.
    """
    return ManagemApi(
        base_url=settings.API_URL,
        token=token_source(settings.API_TOKEN, settings.API_TOKEN_FILE),
        timeout_seconds=settings.ATTEMPT_TIMEOUT_SECONDS,
        concurrency=concurrency,
        user_agent=f"lock-worker/{version('lock-worker')}",
    )


def retry_policy(settings: Settings) -> RetryPolicy:
    """Return the policy that says when a failed call is repeated."""
    return RetryPolicy(
        max_attempts=settings.MAX_ATTEMPTS,
        base_seconds=settings.RETRY_BASE_SECONDS,
        max_delay_seconds=settings.RETRY_MAX_DELAY_SECONDS,
    )


def lock_conversation(
    settings: Settings,
    *,
    api: ManagemApi,
    flow: Flow,
    on_retry: RetryObserver,
    on_call: CallObserver = lambda *_: None,
    on_drift: DriftObserver = drift.log,
) -> LockConversation:
    """Return the handler of jobs.

    Args:
        settings: the settings.
        api: the API's client.
        flow: flow control.
        on_retry: called with each retry.
        on_call: called after each call.
        on_drift: called with each answer that deviates from the documented shape.
    """
    return LockConversation(
        call=LockCall(api=api, flow=flow, shown=settings.RESULT_CONVERSATION, on_call=on_call, on_drift=on_drift),
        flow=flow,
        policy=retry_policy(settings),
        on_retry=on_retry,
        reporter=Reporter(max_event_bytes=settings.RESULT_MAX_BYTES, source=settings.EVENT_SOURCE),
    )
