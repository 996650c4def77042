"""Programs of others that the worker is tried with, each with what it needs beside the worker's own packages.

They are not in the development environment: every ``celery`` process there would load them, the workers of all other
tests among them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SECONDS = 90


def install(name: str, folder: Path) -> Path:
    """Install the packages of ``<name>.lock`` in a folder, for ``PYTHONPATH``; return the folder.

    Where they cannot be had, the test is skipped; it fails where ``CI`` is ``true``.
    """
    lock = Path(__file__).with_name(f"{name}.lock")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "0", "--timeout", "10"]
    try:
        subprocess.run(
            [*pip, "install", "--require-hashes", "--no-deps", "--target", folder, "--requirement", lock],
            timeout=_SECONDS, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sentence = f"the packages in {lock.name} cannot be installed: {error.stderr!r}"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return folder
