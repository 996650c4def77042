"""The manifests for Kubernetes: valid, and in keeping with the worker that they run."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes_validate import ValidationError

import settings
from deploy.kubernetes import alerts
from settings import Settings
from tests.deploy.manifests import (
    KUBERNETES,
    TREES,
    check,
    container,
    environment,
    of_kind,
    rendered,
    selects,
    template,
)
from tests.deploy.metrics import OF_PROMETHEUS, exposed, metrics_in
from tests.deploy.monitoring import ALERTS, DEPLOY, alert_rules, read_yaml
from worker.observe import health, page_request
from worker.runtime.runtime import _CLOSE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

DOCKERFILE = (DEPLOY.parent / "Dockerfile").read_text("utf-8")
DEPLOYMENTS = [
    pytest.param(tree, deployment, id=f"{tree} {deployment['metadata']['name']}")
    for tree in TREES
    for deployment in of_kind(tree, "Deployment")
]
WITH_KEDA = [tree for tree in TREES if of_kind(tree, "ScaledObject")]


def component(resource: dict[str, Any]) -> str:
    return str(template(resource)["metadata"]["labels"]["app.kubernetes.io/component"])


def workers(tree: str) -> list[dict[str, Any]]:
    return [deployment for deployment in of_kind(tree, "Deployment") if component(deployment) == "worker"]


@pytest.mark.parametrize("tree", TREES)
def test_every_field_of_every_resource_is_known(tree: str) -> None:
    for resource in rendered(tree):
        check(resource)


def test_the_alerts_are_those_of_prometheus_and_come_once() -> None:
    assert alerts.FILE.read_text("utf-8") == alerts.prometheus_rule(), "run: make docs"
    for tree in WITH_KEDA:
        (rule,) = of_kind(tree, "PrometheusRule")
        assert rule["spec"] == read_yaml(ALERTS)


def test_a_misspelt_field_is_noticed() -> None:
    (worker,) = deepcopy(workers("base"))
    container(worker)["livenessProbe"]["periodSecond"] = 1
    (scaled,) = deepcopy(of_kind("overlays/production", "ScaledObject"))
    scaled["spec"]["minReplica"] = 1
    (monitor,) = deepcopy(of_kind("overlays/production", "PodMonitor"))
    monitor["spec"]["podMetricsEndpoints"][0]["interva"] = "15s"

    with pytest.raises(ValidationError, match="periodSecond"):
        check(worker)
    for resource in (scaled, monitor):
        with pytest.raises(AssertionError):
            check(resource)


@pytest.mark.parametrize(("tree", "deployment"), DEPLOYMENTS)
def test_what_a_pod_is_given_are_valid_settings(
    tree: str, deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = environment(tree, deployment)
    assert given.keys() <= Settings.model_fields.keys()
    given["REDIS_URL"] = "redis://redis:6379/0"
    if "API_TOKEN_FILE" in given:
        given["API_TOKEN_FILE"] = str(tmp_path / "token")
        (tmp_path / "token").write_text("secret\n")
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    found = settings.load(need_token=component(deployment) == "worker")

    (port,) = container(deployment)["ports"]
    assert (port["name"], port["containerPort"]) == ("health", found.HEALTH_PORT)
    if component(deployment) == "worker":
        grace = template(deployment)["spec"]["terminationGracePeriodSeconds"]
        assert grace >= found.SHUTDOWN_SECONDS + 2 * _CLOSE_SECONDS


@pytest.mark.parametrize(("tree", "deployment"), DEPLOYMENTS)
def test_the_probes_ask_pages_that_there_are_and_wait_for_their_answer(tree: str, deployment: dict[str, Any]) -> None:
    asked = {name: probe for name, probe in container(deployment).items() if name.endswith("Probe")}

    assert {name: probe["httpGet"] for name, probe in asked.items()} == {
        "startupProbe": {"path": health._LIVEZ, "port": "health"},
        "livenessProbe": {"path": health._LIVEZ, "port": "health"},
        "readinessProbe": {"path": health._READYZ, "port": "health"},
    }, tree
    for name in ("livenessProbe", "readinessProbe"):
        assert asked[name]["timeoutSeconds"] > page_request._REQUEST_SECONDS


@pytest.mark.parametrize(("tree", "deployment"), DEPLOYMENTS)
def test_a_pod_has_no_more_rights_than_it_needs(tree: str, deployment: dict[str, Any]) -> None:
    pod, only = template(deployment)["spec"], container(deployment)
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)

    assert pod["securityContext"]["runAsNonRoot"], tree
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]
    assert only["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("tree", TREES)
def test_the_token_is_a_file_that_changes_with_its_secret_and_without_it_no_pod_starts(tree: str) -> None:
    for deployment in workers(tree):
        pod, only = template(deployment)["spec"], container(deployment)
        (volume,) = pod["volumes"]
        (mount,) = only["volumeMounts"]
        assert "subPath" not in mount
        assert mount["name"] == volume["name"]
        assert volume["secret"] == {"secretName": "lock-worker-token", "defaultMode": 0o440}
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
        assert environment(tree, deployment)["API_TOKEN_FILE"] == f"{mount['mountPath']}/token"


@pytest.mark.parametrize("tree", TREES)
def test_a_rollout_stops_at_its_first_pod_if_that_does_not_become_ready(tree: str) -> None:
    for deployment in of_kind(tree, "Deployment"):
        assert deployment["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize("tree", TREES)
def test_one_worker_at_a_time_may_be_evicted_and_those_that_are_not_ready_always(tree: str) -> None:
    budgets = of_kind(tree, "PodDisruptionBudget")

    assert len(budgets) == len(workers(tree))
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("tree", TREES)
def test_only_the_workers_may_speak_to_the_api(tree: str) -> None:
    policies = [policy["spec"] for policy in of_kind(tree, "NetworkPolicy")]

    for deployment in of_kind(tree, "Deployment"):
        mine = [policy for policy in policies if selects(policy["podSelector"], template(deployment))]
        ports = {port["port"] for policy in mine for rule in policy.get("egress", ()) for port in rule["ports"]}
        assert ports == ({53, 6379, 443} if component(deployment) == "worker" else {53, 6379})
        assert {kind for policy in mine for kind in policy["policyTypes"]} == {"Ingress", "Egress"}
        assert [rule["ports"] for policy in mine for rule in policy.get("ingress", ())] == [[{"port": "health"}]]


@pytest.mark.parametrize("tree", TREES)
def test_what_selects_pods_selects_those_of_its_own_fleet(tree: str) -> None:
    pods = [template(deployment) for deployment in of_kind(tree, "Deployment")]
    chosen = 0
    for resource in rendered(tree):
        spec = resource.get("spec", {})
        selectors = [spec[name] for name in ("selector", "podSelector") if name in spec]
        if resource["kind"] == "Deployment":
            spread = template(resource)["spec"].get("topologySpreadConstraints", ())
            selectors += [constraint["labelSelector"] for constraint in spread]
        for selector in selectors:
            found = [pod for pod in pods if selects(selector, pod)]
            chosen += 1
            assert {pod["metadata"]["labels"]["app.kubernetes.io/instance"] for pod in found} == {
                resource["metadata"]["labels"]["app.kubernetes.io/instance"]
            }, resource
    assert chosen > 5


def test_each_shard_has_a_redis_of_its_own() -> None:
    used: dict[str, set[str]] = {}
    for deployment in of_kind("overlays/sharded", "Deployment"):
        instance = template(deployment)["metadata"]["labels"]["app.kubernetes.io/instance"]
        used.setdefault(environment("overlays/sharded", deployment)["REDIS_URL"], set()).add(instance)

    assert used == {"url-0": {"lock-worker-0"}, "url-1": {"lock-worker-1"}}


@pytest.mark.parametrize("tree", WITH_KEDA)
def test_the_operator_scrapes_each_pod_under_a_name_that_the_alerts_know(tree: str) -> None:
    for deployment in of_kind(tree, "Deployment"):
        (monitor,) = [
            each for each in of_kind(tree, "PodMonitor") if selects(each["spec"]["selector"], template(deployment))
        ]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("health", health._METRICS)
        job = template(deployment)["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        (known,) = {name for rule in alert_rules() for name in re.findall(r'job=~"([^"]*)"', rule["expr"])}
        assert re.fullmatch(known, job)


@pytest.mark.parametrize("tree", WITH_KEDA)
def test_keda_scales_the_workers_on_the_metrics_of_their_own_fleet(tree: str) -> None:
    assert len(of_kind(tree, "ScaledObject")) == len(workers(tree))
    for deployment in workers(tree):
        meta, labels = deployment["metadata"], template(deployment)["metadata"]["labels"]
        (scaled,) = [
            each for each in of_kind(tree, "ScaledObject") if each["spec"]["scaleTargetRef"] == {"name": meta["name"]}
        ]
        assert scaled["metadata"]["namespace"] == meta["namespace"]
        assert "replicas" not in deployment["spec"]
        for trigger in scaled["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            assert f'{{namespace="{meta["namespace"]}",job="{labels["app.kubernetes.io/instance"]}"}}' in query
            assert metrics_in(query) - OF_PROMETHEUS <= exposed()
        thresholds = [float(trigger["metadata"]["threshold"]) for trigger in scaled["spec"]["triggers"]]
        assert thresholds[1] == 0.8 * Settings.model_fields["CONCURRENCY"].default


def test_the_page_names_each_folder_and_none_that_is_gone() -> None:
    page = (DEPLOY.parent / "docs" / "deploy-kubernetes.md").read_text("utf-8")
    folders = {
        str(file.parent.relative_to(KUBERNETES))
        for file in KUBERNETES.rglob("kustomization.yaml")
        if "shard-" not in str(file)
    }

    assert {*re.findall(r"^\| `([a-z/-]+)` \|", page, re.MULTILINE)} == folders
