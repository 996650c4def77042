"""What a worker prints before its settings are known: to import this makes it what LOG_FORMAT promises.

``worker.celery`` imports it before the rest, so that an error in loading the rest is told in that format too. Nothing
is done for producers, which import the app, and for commands of Celery's that print for people.
"""

from __future__ import annotations

import sys

import click

from worker.observe import output


def _is_worker_command() -> bool:
    """Whether ``celery worker`` loads this."""
    context = click.get_current_context(silent=True)
    return context is not None and context.invoked_subcommand == "worker" and "--help" not in sys.argv


if _is_worker_command():
    output.take_over_before_settings()
