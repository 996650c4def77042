"""The manifests for production, played by podman as far as it can: pods on this machine instead of a cluster.

Podman 4.3 knows Deployments and ConfigMaps. It passes over every other kind, and in a Deployment over the probes (it
needs systemd for them), ``terminationGracePeriodSeconds``, ``defaultMode``, and all that needs nodes or a rollout.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from tests.deploy.manifests import of_kind, rendered, template
from tests.image.containers import IMAGE

if TYPE_CHECKING:
    from tests.image.containers import Containers

TREE = "overlays/production"
POD = "lock-worker-pod-0"
CONTAINER = f"{POD}-worker"
TOKEN_SECRET = "lock-worker-token"
REDIS_SECRET = "lock-worker-redis"
_WORKER = "lock-worker"


class Pods:
    """The worker of the production overlay as a pod of podman, in the network of this machine."""

    def __init__(self, containers: Containers, folder: Path) -> None:
        self._containers = containers
        self._folder = folder
        self._file = folder / "pods.yaml"

    def write(self, **settings: str) -> None:
        """Write the rendered overlay, with these settings, and with what podman needs to be different."""
        resources = [resource for resource in deepcopy(rendered(TREE)) if not _is_exporter(resource)]
        for resource in resources:
            if resource["kind"] == "ConfigMap":
                resource["data"] |= settings
            if resource["kind"] == "Deployment":
                _make_playable(resource)
        text = io.StringIO()
        YAML(typ="safe").dump_all(resources, text)
        self._file.write_text(text.getvalue(), "utf-8")

    def play(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Start what was written, well or not."""
        return self._containers.ended("podman", "play", "kube", *options, str(self._file))

    def keep_secret(self, token: str, redis_url: str) -> str:
        """Make both Secrets; gives the token that a worker will read.

        Podman shows the values of a Secret in a volume as they stand in it, in base64, and takes a variable only from a
        flat object of such values.
        """
        (self._folder / "token").write_text(token, "utf-8")
        kubectl = Path(sys.executable).parent / "kubectl"
        how = ["create", "secret", "generic", TOKEN_SECRET, f"--from-file=token={self._folder / 'token'}"]
        secret = subprocess.run(
            [kubectl, *how, "--dry-run=client", "-o", "yaml"], capture_output=True, text=True, check=True
        ).stdout
        self._store(TOKEN_SECRET, secret)
        self._store(REDIS_SECRET, json.dumps({"url": base64.b64encode(redis_url.encode()).decode()}))
        return base64.b64encode(token.encode()).decode()

    def exec(self, *command: str) -> str:
        """Run a command in the worker's container."""
        return self._containers.run("podman", "exec", CONTAINER, *command)

    def inspect(self) -> dict[str, Any]:
        """What podman knows of the worker's container."""
        (found,) = json.loads(self._containers.run("podman", "inspect", CONTAINER))
        return dict(found)

    def stop(self) -> None:
        """Stop the pod, with the grace that the manifest gives it."""
        (deployment,) = [each for each in of_kind(TREE, "Deployment") if not _is_exporter(each)]
        grace = template(deployment)["spec"]["terminationGracePeriodSeconds"]
        self._containers.run("podman", "pod", "stop", "--time", str(grace), POD)

    def close(self) -> None:
        """Remove pods and Secrets."""
        self._containers.ended("podman", "pod", "rm", "--all", "--force", "--time", "0")
        self._containers.ended("podman", "secret", "rm", "--all")
        self._containers.ended("podman", "volume", "rm", "--all", "--force")

    def _store(self, name: str, content: str) -> None:
        (self._folder / name).write_text(content, "utf-8")
        self._containers.ended("podman", "secret", "rm", name)
        self._containers.run("podman", "secret", "create", name, str(self._folder / name))


def _is_exporter(resource: dict[str, Any]) -> bool:
    return resource["kind"] == "Deployment" and bool(resource["metadata"]["name"] != _WORKER)


def _make_playable(deployment: dict[str, Any]) -> None:
    """Name the image that was built, use the network of this machine, and say of the Secret what is the default."""
    pod = template(deployment)["spec"]
    (only,) = pod["containers"]
    only["image"] = f"localhost/{IMAGE}:latest"
    del only["ports"]
    pod["hostNetwork"] = True
    (volume,) = pod["volumes"]
    volume["secret"]["optional"] = False
