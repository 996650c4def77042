"""Buildah and podman with a store of their own, so that nothing of the host's is used or left behind.

No registry is asked: the image that the Dockerfile begins with is made of Debian packages, whose Python is a 3.11 too.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
PROGRAMS = ("buildah", "podman", "runc", "conmon", "mmdebstrap")
IMAGE = "lock-worker"

# Copies of whole layers, cgroups and events without systemd: what works inside another container too, which may also be
# allowed less than podman's default ulimits.
_STORAGE = """[storage]
driver = "vfs"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""
_CONTAINERS = """[containers]
default_ulimits = []
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
#: Python, and what the official image of it has beside, but for the time zones: the worker brings its own.
_BASE_PACKAGES = "python3-venv,python-is-python3,ca-certificates,netbase"


def missing_programs() -> list[str]:
    """What this machine lacks for these tests."""
    return [program for program in PROGRAMS if shutil.which(program) is None] + ["root"] * (os.geteuid() != 0)


def skip_or_fail(sentence: str) -> None:
    """Skip a test that this machine cannot run, but fail it where ``CI`` is ``true``."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


class Containers:
    """A store of images and containers in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "storage.conf").write_text(_STORAGE.format(folder=folder))
        (folder / "containers.conf").write_text(_CONTAINERS)
        self._environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }

    def run(self, *command: str) -> str:
        """Run podman or buildah to its end, and give what it printed."""
        ended = self.ended(*command)
        assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
        return ended.stdout.strip()

    def ended(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run podman or buildah to its end, well or not."""
        return subprocess.run(command, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def build(self) -> None:
        """Build the image as a registry would get it, HEALTHCHECK included."""
        base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
        (name,) = set(base)
        tar = self._folder / "base.tar"
        how = ("--variant=apt", "--dpkgopt=force-unsafe-io", f"--include={_BASE_PACKAGES}")
        self.run("mmdebstrap", *how, "bookworm", str(tar))
        self.run("podman", "import", str(tar), f"docker.io/library/{name}")
        tar.unlink()
        volumes = [argument for mount in pip_mounts(self._folder) for argument in ("--volume", mount)]
        self.run(
            "buildah", "bud", "--isolation", "chroot", "--pull-never", "--format", "docker", *volumes, "-t", IMAGE, "."
        )  # fmt: skip

    def close(self) -> None:
        """Remove every container and image."""
        self.ended("podman", "rm", "--all", "--force", "--time", "0")
        self.ended("buildah", "rm", "--all")
        shutil.rmtree(self._folder / "graph")


def pip_mounts(folder: Path) -> Iterator[str]:
    """Where this machine's pip finds packages, lent to the pip in the build and left out of the image."""
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    options = dict(_pip_options(shown.splitlines()))
    config = folder / "pip.conf"
    config.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in options.items()), ""]))
    yield f"{config}:/etc/pip.conf:ro"
    words = [word for value in options.values() for word in value.split()]
    # An index in files has its packages beside it.
    indexes = {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file://")}
    for path in sorted({*indexes, *(Path(word) for word in words)}):
        if path.is_absolute() and path.exists():
            yield f"{path}:{path}:ro"


def _pip_options(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of pip's files, and then those of its environment, which win."""
    for line in sorted(lines, key=lambda each: each.startswith(":env:")):
        name, _, value = line.partition("=")
        yield name.rpartition(".")[2], " ".join(str(ast.literal_eval(value)).split())
