"""The release before this version, installed from this repository without a network.

The file ``previous_release`` names its tag and its commit. The commit is what is tested: a clone without tags still has
it, unless it is shallow.
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
_HOW_TO_GET_IT = "In a shallow clone run: git fetch --unshallow --tags"
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
    """This clone does not have the commit or the tag of the release; the text says how to get it."""


def install(folder: Path) -> Release:
    """Install the release before.

    Raises:
        NoReleaseError: its commit cannot be found here.
    """
    tag, commit = _NAMED.read_text("utf-8").split()
    source, target = folder / "source", folder / "installed"
    archive = subprocess.run(["git", "archive", commit, "--", *_SOURCES], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        reason = archive.stderr.decode().strip()
        raise NoReleaseError(f"no test beside {tag}: this clone lacks its commit {commit} ({reason}). {_HOW_TO_GET_IT}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(source, filter="data")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-warn-conflicts", "--target", str(target), str(source)], check=True)
    return Release(tag.removeprefix("v"), target)


def named_and_tagged_commit() -> tuple[str, str]:
    """The commit that the file names, and the one that its tag has here.

    Raises:
        NoReleaseError: this clone does not have the tag.
    """
    tag, commit = _NAMED.read_text("utf-8").split()
    asked = ["git", "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise NoReleaseError(f"this clone lacks the tag {tag}. Run: git fetch --tags")
    return commit, found.stdout.strip()
