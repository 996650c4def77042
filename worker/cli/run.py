"""``lock-worker run``: becomes ``celery -A worker worker``, so that signals and exit status are Celery's."""

from __future__ import annotations

import os
import re
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

import worker
from worker.cli.exit import FAILED, USAGE_ERROR

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Pools whose library Celery loads, perhaps with an error, before it loads this worker, which could refuse them.
_LOADED_BY_CELERY = re.compile(r"(?:^| )(?:-P ?|--pool[ =])(eventlet|gevent)(?: |$)")


def run(context: typer.Context) -> None:
    """Run the worker until SIGTERM.

    Is `celery -A worker worker --loglevel INFO`, and takes the options of that command: -c (jobs at once), -l (log
    level), -E (events for Flower), -n (name), -Q (queues).
    """
    import settings  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.observe import output  # noqa: PLC0415 - as above
    from worker.observe.setting_names import hints  # noqa: PLC0415 - as above

    options = context.args
    output.take_over_before_settings()  # from here on this is the worker, whose output goes to a log reader
    _refuse_other_worker_module()
    _refuse_pools(options)
    try:
        settings.load(need_token=True)
    except settings.SettingsError as error:
        _stop(f"{error}{''.join(hints())}", USAGE_ERROR)
    if not any(option.startswith(("-l", "--loglevel")) for option in options):
        options = ["--loglevel", "INFO", *options]
    celery = Path(sysconfig.get_path("scripts")) / "celery"
    try:
        os.execv(celery, [str(celery), "-A", "worker", "worker", *options])  # noqa: S606 - the purpose of this command
    except OSError as error:
        _stop(f"{celery} cannot be run ({error.strerror}); install lock-worker with its requirements", FAILED)


def _stop(why: str, status: int) -> NoReturn:
    typer.echo(f"lock-worker does not start: {why}", err=True)
    raise typer.Exit(status)


def _refuse_other_worker_module() -> None:
    """Refuse another ``worker`` module in the current directory, which Celery searches first."""
    spec = PathFinder.find_spec("worker", [str(Path.cwd())])
    if spec is not None and spec.origin is not None and spec.origin != worker.__file__:
        _stop(f"{spec.origin} would be run in its place; start it from another directory", USAGE_ERROR)


def _refuse_pools(options: Sequence[str]) -> None:
    pool = _LOADED_BY_CELERY.search(" ".join(options))
    if pool is not None:
        _stop(f"--pool: only the worker's own asyncio pool keeps its promises, not {pool[1]}", USAGE_ERROR)
