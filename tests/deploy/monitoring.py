"""Prometheus, Alertmanager and a pager for a test, on free ports of 127.0.0.1, with the configuration in ``deploy``.

What differs from that configuration is how quick they are and where they find each other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from ruamel.yaml import YAML

from sandbox import supervisor
from sandbox.free_port import free_port
from tests.system.stage import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
HOST = "127.0.0.1"
_QUICK = "500ms"


def program(name: str) -> str:
    """The path of a program; a machine without it skips the test, but fails it where ``CI`` is ``true``."""
    path = shutil.which(name)
    if path is not None:
        return path
    sentence = f"there is no {name} on this machine: apt-get install prometheus prometheus-alertmanager systemd"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def write_yaml(content: Any, path: Path) -> None:
    YAML(typ="safe").dump(content, path)


def alert_rules() -> list[dict[str, Any]]:
    """All alerts, in the order of the file."""
    return [rule for group in read_yaml(ALERTS)["groups"] for rule in group["rules"]]


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples that a query gives now; each has its labels in ``metric`` and its number in ``value[1]``."""
        answer = httpx.post(f"{self.url}/api/v1/query", data={"query": expr}, trust_env=False).json()
        assert answer["status"] == "success", (expr, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def number(self, expr: str) -> float:
        """The only sample of a query; NaN: there is none."""
        samples = self.query(expr)
        assert len(samples) <= 1, samples
        return float(samples[0]["value"][1]) if samples else float("nan")


@contextmanager
def prometheus(folder: Path, targets: Sequence[int], *, alertmanager: int | None = None) -> Iterator[Prometheus]:
    """A Prometheus that asks the ports ``targets`` twice a second; what an alert waits in minutes, it waits in seconds.

    ``alertmanager`` is the port of an Alertmanager.
    """
    rules = read_yaml(ALERTS)
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = rule["for"].replace("m", "s")
    write_yaml(rules, folder / "alerts.yml")
    config = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")
    config["global"] = {"scrape_interval": _QUICK, "scrape_timeout": _QUICK, "evaluation_interval": _QUICK}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"{HOST}:{port}" for port in targets]
    if alertmanager is None:
        del config["alerting"]
    else:
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"{HOST}:{alertmanager}"]
    write_yaml(config, folder / "prometheus.yml")
    port = free_port(HOST)
    arguments = (
        f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={HOST}:{port}", "--log.level=warn",
    )  # fmt: skip
    with _server(program("prometheus"), arguments, folder, f"http://{HOST}:{port}/-/ready"):
        yield Prometheus(f"http://{HOST}:{port}")


@contextmanager
def alertmanager(folder: Path, pager: int) -> Iterator[int]:
    """An Alertmanager that tells the port ``pager`` of each alert at once; gives its port."""
    config = read_yaml(DEPLOY / "prometheus" / "alertmanager.yml")
    config["route"] |= {"group_wait": "0s", "group_interval": _QUICK}
    config["receivers"][0]["webhook_configs"][0]["url"] = f"http://{HOST}:{pager}/"
    write_yaml(config, folder / "alertmanager.yml")
    port = free_port(HOST)
    arguments = (
        f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={HOST}:{port}", "--cluster.listen-address=", "--log.level=warn",
    )  # fmt: skip
    with _server(program("prometheus-alertmanager"), arguments, folder, f"http://{HOST}:{port}/-/ready"):
        yield port


class Pager:
    """A webhook that keeps what it is told."""

    def __init__(self) -> None:
        told: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.told = told
        self.server = HTTPServer((HOST, 0), Handler)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def heard(self, alert: str, status: str) -> list[dict[str, Any]]:
        """The messages of one alert that it is ``firing``, or that it is ``resolved``."""
        return [each for each in self.told if each["labels"]["alertname"] == alert and each["status"] == status]


@contextmanager
def pager() -> Iterator[Pager]:
    """A webhook in a thread."""
    found = Pager()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        thread.join()
        found.server.server_close()


@contextmanager
def _server(path: str, arguments: Sequence[str], folder: Path, ready: str) -> Iterator[None]:
    """Run a program until the end of the block, or until this process has ended; wait until it is ready."""
    data = folder / Path(path).name
    log = folder / f"{data.name}.log"
    with log.open("wb") as out:
        held = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(data), path, *arguments],
            stdin=subprocess.PIPE, stdout=out, stderr=out,
        )  # fmt: skip

    def is_ready() -> bool:
        assert held.poll() is None, log.read_text("utf-8")
        with suppress(httpx.TransportError):
            return httpx.get(ready, trust_env=False).status_code == httpx.codes.OK
        return False

    try:
        eventually(is_ready, f"{path} that is ready")
        yield
    finally:
        assert held.stdin is not None
        held.stdin.close()
        held.wait()
