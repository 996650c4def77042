"""The compose files: what they start, what they publish, and that they are in keeping with the worker."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import settings
from settings import Settings
from tests.deploy.monitoring import DEPLOY, program, read_yaml, write_yaml
from worker.cli.ping.health_port import TIMEOUT_SECONDS
from worker.runtime.runtime import _CLOSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = DEPLOY.parent
DEMO = ROOT / "docker-compose.yml"
PRODUCTION = DEPLOY / "compose" / "production.yml"
FILES = [DEMO, PRODUCTION]
OF_DEMO, OF_PRODUCTION = (read_yaml(file)["services"] for file in FILES)
OWN = [
    pytest.param(services, name, id=f"{file.stem} {name}")
    for file, services in zip(FILES, (OF_DEMO, OF_PRODUCTION), strict=True)
    for name, service in services.items()
    if service["image"] == "lock-worker"
]


def test_the_demo_starts_what_it_always_did_and_the_rest_by_profile() -> None:
    profiles: dict[str, set[str]] = {}
    for name, service in OF_DEMO.items():
        (profile,) = service.get("profiles", [""])
        profiles.setdefault(profile, set()).add(name)

    assert profiles == {
        "": {"redis", "api", "worker", "results", "producer"},
        "monitoring": {"exporter", "prometheus", "alertmanager", "grafana"},
        "flower": {"flower"},
    }


def published(services: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Service, address and port in the container of what can be reached from outside."""
    for name, service in services.items():
        for port in service.get("ports", ()):
            address, _, inner = port.rpartition(":")
            yield name, address, int(inner)


@pytest.mark.parametrize("services", [OF_DEMO, OF_PRODUCTION], ids=["demo", "production"])
def test_what_is_published_is_published_on_this_machine_alone(services: dict[str, Any]) -> None:
    found = [*published(services)]

    assert {"redis", "exporter"} <= {name for name, *_ in found}
    for name, address, inner in found:
        assert address.startswith("127.0.0.1:"), name
        if services[name]["image"] == "lock-worker":
            assert inner == Settings.model_fields["HEALTH_PORT"].default
    addresses = [address for _, address, _ in found]
    assert len(addresses) == len({*addresses})


@pytest.mark.parametrize(("services", "name"), OWN)
def test_what_a_service_is_given_are_valid_settings(
    services: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = dict(services[name]["environment"])
    assert given.keys() <= Settings.model_fields.keys()
    if "API_TOKEN_FILE" in given:
        (mount,) = services[name]["volumes"]
        assert given["API_TOKEN_FILE"].startswith(f"{mount['target']}/")
        given["API_TOKEN_FILE"] = str(tmp_path / "token")
        (tmp_path / "token").write_text("secret\n")
    for setting in Settings.model_fields:
        monkeypatch.delenv(setting, raising=False)
    for setting, value in given.items():
        monkeypatch.setenv(setting, value)

    found = settings.load(need_token=name == "worker")

    if name == "worker":
        grace = float(services[name]["stop_grace_period"].removesuffix("s"))
        assert grace >= found.SHUTDOWN_SECONDS + 2 * _CLOSE_SECONDS


@pytest.mark.parametrize(("services", "name"), OWN)
def test_a_service_has_no_more_rights_than_it_needs_and_its_check_waits_for_the_answer(
    services: dict[str, Any], name: str
) -> None:
    service = services[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name in {"worker", "exporter"}:
        assert service["healthcheck"]["test"][:3] == ["CMD", "lock-worker", "ping"]
        assert float(service["healthcheck"]["timeout"].removesuffix("s")) > TIMEOUT_SECONDS


def test_each_file_that_is_mounted_is_there() -> None:
    sources = [
        volume.partition(":")[0]
        for service in OF_DEMO.values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]

    assert len(sources) > 5
    assert all((ROOT / source).is_file() for source in sources)


def test_prometheus_accepts_its_configuration_and_asks_services_that_there_are(tmp_path: Path) -> None:
    config = read_yaml(DEPLOY / "compose" / "prometheus.yml")
    assert config["rule_files"] == ["/etc/prometheus/alerts.yml"]
    write_yaml({**config, "rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")]}, tmp_path / "prometheus.yml")
    done = subprocess.run(
        [program("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    (scrape,), (alerting,) = config["scrape_configs"], config["alerting"]["alertmanagers"]
    (found,) = scrape["dns_sd_configs"]
    assert "lock-worker" in scrape["job_name"]
    assert set(found["names"]) <= OF_DEMO.keys()
    assert found["port"] == Settings.model_fields["HEALTH_PORT"].default
    assert alerting["static_configs"][0]["targets"] == ["alertmanager:9093"]
    (source,) = read_yaml(DEPLOY / "compose" / "grafana" / "datasources.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
