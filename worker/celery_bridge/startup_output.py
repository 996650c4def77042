"""Importing this formats what a worker prints before its settings are read, as LOG_FORMAT says.

``worker.celery`` imports it first, so that an error in loading the rest has that format too. It does nothing for
producers, which import the app, nor for Celery's commands that print for people.
"""

from __future__ import annotations

import sys

import click

from worker.observe import output


def _is_worker_command() -> bool:
    """Return True if ``celery worker`` loads this."""
    context = click.get_current_context(silent=True)
    return context is not None and context.invoked_subcommand == "worker" and "--help" not in sys.argv


if _is_worker_command():
    output.take_over_before_settings()
