"""What ``kubectl kustomize`` makes of ``deploy/kubernetes``, and whether anybody knows its fields."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from ruamel.yaml import YAML

from tests.deploy.monitoring import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
#: The folders that an operator may render.
TREES = ("base", "overlays/production", "overlays/sharded")
#: The oldest version of Kubernetes in which all fields are on by themselves, and the newest that is known here.
VERSIONS = ("1.31", "1.37")

Resource = dict[str, Any]


@cache
def rendered(tree: str, root: Path = KUBERNETES) -> tuple[Resource, ...]:
    """The resources of a folder; ``root`` may be a changed copy of all manifests."""
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", root / tree], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # a warning of kustomize
    return tuple(YAML(typ="safe").load_all(io.StringIO(done.stdout)))


def of_kind(tree: str, kind: str) -> list[Resource]:
    """The resources of one kind."""
    return [resource for resource in rendered(tree) if resource["kind"] == kind]


def check(resource: Resource) -> None:
    """Raise an error if a field is unknown, missing or of the wrong type."""
    model = _models().get((resource["apiVersion"], resource["kind"]))
    if model is None:
        for version in VERSIONS:
            kubernetes_validate.validate(resource, version, strict=True)
    else:
        # The models ignore fields that they do not know.
        known = model.model_validate(resource).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert known == resource


@cache
def _models() -> dict[tuple[str, str], Any]:
    from cloudcoil.models.keda.v1alpha1 import ScaledObject  # noqa: PLC0415 - two seconds
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule  # noqa: PLC0415 - as above

    return {
        ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
        ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
        ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
    }


def template(deployment: Resource) -> Resource:
    """The pod that a Deployment makes."""
    pod: Resource = deployment["spec"]["template"]
    return pod


def container(deployment: Resource) -> Resource:
    """The only container of a Deployment's pods."""
    (only,) = template(deployment)["spec"]["containers"]
    return dict(only)


def environment(tree: str, deployment: Resource) -> dict[str, str]:
    """The variables of a Deployment's container; of a secret the name of its key."""
    maps = {resource["metadata"]["name"]: resource["data"] for resource in of_kind(tree, "ConfigMap")}
    found: dict[str, str] = {}
    for source in container(deployment)["envFrom"]:
        found |= maps[source["configMapRef"]["name"]]
    for variable in container(deployment)["env"]:
        found[variable["name"]] = variable.get("value") or variable["valueFrom"]["secretKeyRef"]["key"]
    return found


def selects(selector: Resource, pod: Resource) -> bool:
    """Whether a label selector chooses a pod."""
    assert selector.keys() == {"matchLabels"}
    wanted: dict[str, str] = selector["matchLabels"]
    labels: dict[str, str] = pod["metadata"]["labels"]
    return wanted.items() <= labels.items()
