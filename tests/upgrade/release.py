"""The release before this version, installed from this repository without a network.

The file ``previous_release`` names its tag and its commit. A clone without tags still has the commit, unless it is
shallow.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMED = Path(__file__).with_name("previous_release")
#: What the wheel is made of.
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "settings.py", "tasks", "worker", "sandbox")


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is installed in a folder of its own; it uses this environment's libraries.

    Attributes:
        version: as in its pyproject.toml.
        folder: comes first on the path, and is where its workers run.
    """

    version: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a Python needs to run it and not the working tree."""
        return {"PYTHONPATH": str(self.folder)}


class NoReleaseError(Exception):
    """This checkout does not have the commit of the release."""


def install(folder: Path) -> Release:
    """Install the release before.

    Raises:
        NoReleaseError: its commit cannot be found here.
    """
    tag, commit = _NAMED.read_text("utf-8").split()
    source, target = folder / "source", folder / "installed"
    archive = subprocess.run(["git", "archive", commit, "--", *_SOURCES], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise NoReleaseError(f"no {tag}, commit {commit}, in this clone: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(source, filter="data")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-warn-conflicts", "--target", str(target), str(source)], check=True)
    return Release(tag.removeprefix("v"), target)


def commit_of_tag() -> tuple[str, str] | None:
    """The commit that the file names, and the one that its tag has here; None: this clone has no such tag."""
    tag, commit = _NAMED.read_text("utf-8").split()
    asked = ["git", "rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return None if found.returncode else (commit, found.stdout.strip())
