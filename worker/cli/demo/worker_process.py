"""Runs the demo's worker: a process with its own settings, which ends with the demo."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.supervised_process import SupervisedProcess
from settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "demo-token"  # noqa: S105 - it opens nothing but the sandbox
CONCURRENCY = 25
_SHUTDOWN_SECONDS = 5
_LOG_LINES = 25


class WorkerProcess:
    """A worker as an operator starts it, which ends even if the demo is killed."""

    def __init__(self, folder: Path) -> None:
        self._log_file = folder / "worker.log"
        worker = [sys.executable, "-m", "celery", "-A", "worker", "worker", "--loglevel", "INFO"]
        with self._log_file.open("wb") as log:
            self._process = SupervisedProcess(worker, folder, log)
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        """True while the process runs."""
        return self._process.is_running

    def log(self) -> str:
        """Return the last lines of its output."""
        return "\n".join(self._log_file.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])

    def stop(self) -> None:
        """Stop it as a deployment does, or at once if that takes too long."""
        self._process.signal(signal.SIGTERM)
        self._process.wait(_SHUTDOWN_SECONDS + 5)


def use_settings(redis_url: str, api_url: str) -> None:
    """Set the environment of this process and of the worker for the demo; settings from before are dropped."""
    ours: Mapping[str, str] = {
        "REDIS_URL": redis_url,
        "API_URL": api_url,
        "API_TOKEN": TOKEN,
        "CONCURRENCY": str(CONCURRENCY),
        "HEALTH_PORT": "0",
        "LOG_FORMAT": "console",
        "SHUTDOWN_SECONDS": str(_SHUTDOWN_SECONDS),
        # Short, so that the demo is short; in production, retries take minutes.
        "ATTEMPT_TIMEOUT_SECONDS": "2",
        "LEASE_SECONDS": "5",
        "MAX_ATTEMPTS": "4",
        "RETRY_BASE_SECONDS": "0.2",
        "RETRY_MAX_DELAY_SECONDS": "2",
        # Some conversations always fail; when only these are left, it would look like an outage.
        "BREAKER_FAILURES": "0",
    }
    for name in os.environ:
        if name in Settings.model_fields or name.startswith("CELERY_"):
            del os.environ[name]
    os.environ.update(ours)


@contextmanager
def running_worker() -> Iterator[WorkerProcess]:
    """Run a worker within a ``with`` block."""
    folder = Path(tempfile.mkdtemp(prefix="lock-worker-demo-"))
    try:
        process = WorkerProcess(folder)
        try:
            yield process
        finally:
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
