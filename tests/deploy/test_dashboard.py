"""The dashboard is as its code makes it, and a Prometheus that asks a real worker has data for each of its panels."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from deploy.grafana.dashboard import FILE, dashboard_json
from sandbox.faults import Respond, WrongBody
from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.deploy.metrics import OF_PROMETHEUS, exposed, metrics_in
from tests.deploy.monitoring import HOST, prometheus
from tests.system.stage import RESULTS, Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary
    from tests.deploy.monitoring import Prometheus

DASHBOARD = json.loads(FILE.read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}, {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]


def test_it_is_as_its_code_makes_it() -> None:
    assert FILE.read_text("utf-8") == dashboard_json(), "run: make docs"


def test_each_panel_has_a_title_of_its_own_a_description_and_a_unit() -> None:
    titles = [(panel["title"], panel["type"]) for panel in PANELS]

    assert len(titles) == len(set(titles))
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]


def test_no_two_panels_share_an_id_or_lie_on_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    squares = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(ids) == len(set(ids))
    assert len(squares) == len(set(squares))
    assert max(x for x, _ in squares) < 24


def test_each_metric_that_the_panels_read_is_exposed() -> None:
    read = set().union(*(metrics_in(target["expr"]) for panel in PANELS for target in panel["targets"]))

    assert read - OF_PROMETHEUS - exposed() == set()


def test_each_metric_of_the_worker_has_a_panel() -> None:
    read = set().union(*(metrics_in(target["expr"]) for panel in PANELS for target in panel["targets"]))

    own = {name for name in exposed() if name.startswith("lock_worker_") and not name.endswith(("_sum", "_count"))}
    assert own - read == set()


@pytest.fixture(scope="module")
def server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    with RedisServer(server_binary) as server:
        yield server


@pytest.fixture(scope="module")
def watched(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that asks a worker which met every sort of job and answer."""
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as stack:
        stage = stack.enter_context(Stage(server.url, folder))
        stage.api.script = Script(
            rules=(
                Rule(id="refused", then=Respond(status=404)),
                Rule(id="given-up", then=Respond(status=500)),
                Rule(id="drifted", then=WrongBody(what="nulls")),
            )
        )
        stage.redis.xgroup_create(RESULTS, "reader", id="0", mkstream=True)
        port = free_port(HOST)
        stage.worker(HEALTH_HOST=HOST, HEALTH_PORT=port, MAX_ATTEMPTS=2)
        found = stack.enter_context(prometheus(folder, [port]))
        # A counter has to be seen before it rises, or it has not risen.
        eventually(lambda: found.query("lock_worker_jobs_finished_total"), "the worker's metrics")
        for number in range(20):
            stage.send(f"c-{number}")
        stage.push(b"junk")
        stage.send("soon", countdown=0.5)
        stage.send("later", countdown=3600)
        stage.send("with-link", link={"task": "other", "args": [], "kwargs": {}, "options": {}, "subtask_type": None})
        for conversation in ("refused", "given-up", "drifted"):
            stage.send(conversation)
        stage.wait_events(26)
        yield found


@pytest.mark.parametrize("expr", QUERIES)
def test_each_query_has_data_of_real_workers(watched: Prometheus, expr: str) -> None:
    here = expr.replace("$__rate_interval", "15m").replace("$job", ".+")
    watched.query(here)  # Prometheus can read it

    def numbers() -> list[Any]:
        return [each for each in watched.query(here) if not math.isnan(float(each["value"][1]))]

    assert eventually(numbers, f"data of {here}")
