"""Which variables are told as a slip: those close to a setting's name, and none of other programs; never a value."""

from __future__ import annotations

import pytest

from settings import Settings
from worker.observe.setting_names import misspelt, odd_values

MEANT = {
    "REDIS_PASSWORD": "REDIS_PASSWORD_FILE",
    "API_TOKN": "API_TOKEN", "APITOKEN": "API_TOKEN", "API-TOKEN": "API_TOKEN", "api_token": "API_TOKEN",
    "Api_Url": "API_URL", "AIP_URL": "API_URL", "API_TOKEN_PATH": "API_TOKEN_FILE",
    "API_TIMEOUT_SECONDS": "ATTEMPT_TIMEOUT_SECONDS", "REDIS_URI": "REDIS_URL", "REDIS_CAFILE": "REDIS_CA_FILE",
    "CONCURENCY": "CONCURRENCY", "concurrency": "CONCURRENCY", "WORKER_CONCURRENCY": "CONCURRENCY",
    "LOCK_WORKER_API_URL": "API_URL", "RESULT_CHANNEL": "RESULTS_CHANNEL", "RATE_LIMIT": "RATE_LIMIT_PER_SECOND",
    "RETRY_MAX_SECONDS": "RETRY_MAX_DELAY_SECONDS", "LEASE_SECS": "LEASE_SECONDS", "LOG_FROMAT": "LOG_FORMAT",
    "DEDUP_SECONDS": "DEDUPLICATE_SECONDS", "HELTH_PORT": "HEALTH_PORT", "SHUTDOWN_TIMEOUT": "SHUTDOWN_SECONDS",
    "RESULTS_STREAM": "RESULTS_CHANNEL or RESULTS_MAXLEN", "ATTEMPTS_MAX": "MAX_ATTEMPTS",
}  # fmt: skip
OF_OTHERS = (
    "PATH", "HOME", "LANG", "LC_ALL", "HOSTNAME", "PORT", "HOST", "TERM", "http_proxy", "no_proxy", "_",
    "REDIS_VERSION", "REDIS_DOWNLOAD_URL", "REDIS_DOWNLOAD_SHA", "REDIS_HOST", "REDIS_TLS_CA_FILE",
    "REDIS_PORT_6379_TCP", "REDIS_PORT_6379_TCP_ADDR", "REDIS_SERVICE_HOST", "REDIS_SERVICE_PORT",
    "REDIS_SERVICE_PORT_REDIS", "HEALTH_SERVICE_HOST", "KUBERNETES_PORT", "KUBERNETES_SERVICE_PORT_HTTPS",
    "OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "APP_URL",
    "APP_TOKEN", "PYTHONUNBUFFERED", "PYTHON_VERSION", "SSL_CERT_FILE", "SSL_CERT_DIR", "REMAP_SIGTERM",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "VAULT_TOKEN_FILE", "GITHUB_API_URL", "CI_JOB_TOKEN", "DATABASE_URL", "SENTRY_DSN",
    "JOB_NAME", "EVENT_NAME", "LOG_LEVEL", "LOG_FILE", "MAX_MEMORY", "API_VERSION", "API_KEY", "POD_NAME",
    "LOCK_WORKER_ACTOR", "C" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("name", MEANT)
def test_a_name_that_is_close_to_a_setting_is_told_with_the_one_that_may_be_meant(name: str) -> None:
    (found,) = misspelt({name: "a-secret", "PATH": "/bin"})

    assert str(found).startswith(f"{name}: not a setting; {MEANT[name]}")
    assert str(found).endswith(" may be meant")
    assert "a-secret" not in str(found)


def test_variables_of_other_programs_and_the_settings_themselves_are_not_told() -> None:
    assert misspelt(dict.fromkeys((*OF_OTHERS, *Settings.model_fields), "1")) == []


@pytest.mark.parametrize("name", ["REDIS_PORT", "HELTH_PORT", "RESULTS_PORT"])
def test_a_service_link_of_kubernetes_is_not_told_whatever_the_service_is_called(name: str) -> None:
    assert misspelt({name: "tcp://10.0.0.1:6379"}) == []


def test_a_name_cannot_write_to_a_terminal() -> None:
    (found,) = misspelt({"API_\x1bTOKEN": "1"})

    assert str(found).isprintable()


def test_a_line_cannot_grow_without_end() -> None:
    assert len(misspelt({f"RETRY_{number}": "1" for number in range(1000)})) == 20


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LOCK_QUEUE", " moderation.lock", "its value has blanks around it, which are taken as part of it"),
        ("RESULTS_CHANNEL", "moderation.results\n", "its value has blanks around it, which are taken as part of it"),
        ("DEAD_STREAM", " ", "its value is blank"),
        ("API_TOKEN", '"a-secret"', "its value is in quotes, which are taken as part of it"),
        ("HEALTH_HOST", "'::'", "its value is in quotes, which are taken as part of it"),
    ],
)
def test_a_value_with_blanks_or_quotes_around_it_is_told_without_the_value(name: str, value: str, problem: str) -> None:
    (found,) = odd_values({name: value})

    assert (found.name, found.problem) == (name, problem)


def test_usual_values_and_blanks_that_are_taken_off_are_not_told() -> None:
    trimmed = dict.fromkeys(("REDIS_URL", "API_URL", "API_TOKEN", "EVENT_SOURCE"), " a ")

    assert odd_values({**trimmed, "LOCK_QUEUE": "it's", "DEAD_STREAM": "", "CONCURRENCY": " 5 "}) == []
