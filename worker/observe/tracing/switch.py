"""Decides from OpenTelemetry's standard variables whether spans are recorded, without importing it.

With none of them set, nothing is imported, and a job costs no more than the question whether it is traced.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.observe.tracing.service import Tracing

logger = logging.getLogger(__name__)

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_DISABLED: Final = "OTEL_SDK_DISABLED"
_MISSING: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, but OpenTelemetry is not installed: install lock-worker[otel], or "
    "unset the variable"
)


class TracingOffError(ValueError):
    """Traces are asked for and cannot be recorded; the error names the variable and the fix."""


class TracingOff:
    """Says in the log, when the worker starts, why it records nothing although it was asked to."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    async def start(self) -> None:
        """Log it."""
        logger.warning("tracing_off", extra={"problem": self._problem})

    async def stop(self) -> None:
        """Nothing was begun."""


def receiver(environ: Mapping[str, str]) -> str | None:
    """Return the endpoint that spans are to go to, for people; None: no spans are asked for.

    Raises:
        TracingOffError: they are, and a variable is wrong.
    """
    name = _TRACES_ENDPOINT if environ.get(_TRACES_ENDPOINT) else _ENDPOINT
    endpoint = environ.get(name, "")
    exporter = environ.get(_EXPORTER) or "otlp"
    if not endpoint or environ.get(_DISABLED, "").strip().lower() == "true" or exporter == "none":
        return None
    if exporter != "otlp":
        raise TracingOffError(f"{_EXPORTER}: must be otlp or none; the worker has no other exporter")
    for variable in _PROTOCOLS:
        if (environ.get(variable) or _PROTOCOL) != _PROTOCOL:
            raise TracingOffError(
                f"{variable}: must be {_PROTOCOL}, the only protocol of the worker; its usual port is 4318"
            )
    try:
        url = urlsplit(endpoint)
        where = f"{url.scheme}://{url.hostname}:{url.port}" if url.port else f"{url.scheme}://{url.hostname}"
    except ValueError:
        url, where = None, ""
    if url is None or url.scheme not in {"http", "https"} or not url.hostname:
        raise TracingOffError(f"{name}: must be a URL such as http://127.0.0.1:4318")
    return where


def tracing(
    environ: Mapping[str, str],
    *,
    api_url: str,
    results: str,
    version: str,
    instance: str,
    seconds_left: Callable[[], float],
) -> Tracing | TracingOff | None:
    """Return what records spans, or what tells why nothing does; None: nothing is to be recorded.

    Args:
        environ: the environment.
        api_url: the API, for the spans of calls.
        results: the stream that events are published to.
        version: the worker's.
        instance: the worker's name.
        seconds_left: returns the seconds that a shutdown may still take.
    """
    try:
        endpoint = receiver(environ)
        if endpoint is None:
            return None
        # Here, because nobody who is not traced has to have OpenTelemetry.
        from worker.observe.tracing.service import Tracing  # noqa: PLC0415
        from worker.observe.tracing.spans import span_names  # noqa: PLC0415
    except TracingOffError as error:
        return TracingOff(str(error))
    except ImportError:
        return TracingOff(_MISSING)
    names = span_names(api_url, results)
    return Tracing(names, endpoint=endpoint, version=version, instance=instance, seconds_left=seconds_left)
