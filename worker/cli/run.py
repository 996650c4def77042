"""``lock-worker run``: becomes ``celery -A worker worker``, so that signals and exit status are Celery's."""

from __future__ import annotations

import os
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

import typer  # noqa: TC002 - typer reads the annotation

import worker
from worker.cli.endings import WRONG_USE, load_settings, stop


def run(context: typer.Context) -> None:
    """Run the worker until SIGTERM.

    Is `celery -A worker worker --loglevel INFO`, and takes the options of that command: -c (jobs at once), -l (log
    level), -E (events for Flower), -n (name), -Q (queues).
    """
    options = context.args
    _refuse_a_stranger()
    load_settings(need_token=True)
    if not any(option.startswith(("-l", "--loglevel")) for option in options):
        options = ["--loglevel", "INFO", *options]
    celery = Path(sysconfig.get_path("scripts")) / "celery"
    os.execv(celery, [str(celery), "-A", "worker", "worker", *options])  # noqa: S606 - that is the point


def _refuse_a_stranger() -> None:
    """Celery looks for modules in the current directory first, and many a project has a ``worker.py`` of its own."""
    found = PathFinder.find_spec("worker", [str(Path.cwd())])
    if found is not None and found.origin is not None and found.origin != worker.__file__:
        stop(f"{found.origin} would be run in place of lock-worker; start it from another directory", WRONG_USE)
