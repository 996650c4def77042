"""OpenTelemetry's standard variables switch traces on; a wrong one is told of by name and never stops a worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from worker.observe.tracing.switch import TracingOff, TracingOffError, receiver, tracing

URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SERVICE_NAME": "moderation"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": " TRUE"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_recorded_unless_an_endpoint_is_given_and_opentelemetry_is_not_switched_off(
    environ: dict[str, str],
) -> None:
    assert receiver(environ) is None


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, URL),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces"}, URL),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://a.b/t"}, "https://a.b"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:secret@otel.example:4318/?key=secret"},
            "https://otel.example:4318",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, URL),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, URL),
    ],
)
def test_an_endpoint_switches_traces_on_and_is_shown_without_secrets(environ: dict[str, str], shown: str) -> None:
    assert receiver(environ) == shown


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:port"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
    ],
)
def test_a_wrong_variable_is_named_with_what_it_must_be(environ: dict[str, str], named: str) -> None:
    with pytest.raises(TracingOffError, match=rf"^{named}: must be "):
        receiver(environ)


def test_a_wrong_variable_is_no_error_of_the_worker() -> None:
    found = tracing(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
        api_url="https://api.example",
        results="moderation.results",
        version="1",
        instance="worker-1",
        seconds_left=lambda: 1.0,
    )
    assert isinstance(found, TracingOff)


def test_the_switch_itself_imports_nothing_of_opentelemetry() -> None:
    script = (
        "import sys, worker.observe.tracing.switch; print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
