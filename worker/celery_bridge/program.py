"""Celery's worker program, with everything that it prints outside the log in the log's format."""

from __future__ import annotations

import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from celery import platforms
from celery.apps import worker as stock

from worker.observe import output

if TYPE_CHECKING:
    from types import FrameType


class Program(stock.Worker):
    """Celery's worker program."""

    concurrency: int
    exitcode: int | None
    hostname: str
    task_events: bool

    def on_before_init(self, *args: Any, **kwargs: Any) -> None:
        """Replace the function that prints "Warm shutdown" and the like, past the log."""
        super().on_before_init(*args, **kwargs)
        if self.app.logs_json:
            setattr(stock, "safe_say", _say)  # noqa: B010 - Celery offers no other way

    def start(self) -> None:
        """Run until the worker is told to stop, and log that it has stopped."""
        try:
            super().start()
        finally:
            self.app.lifetime.stopped(self.exitcode)

    def emit_banner(self) -> None:
        """Log what was started; for people show Celery's banner too."""
        if not self.app.logs_json:
            super().emit_banner()
        self.app.lifetime.started(
            node=self.hostname,
            queues=sorted(self.app.amqp.queues.consume_from),
            concurrency=self.concurrency,
            task_events=bool(self.task_events),
        )

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install signal handlers; Celery's own for SIGUSR1 would print the values of all variables."""
        super().install_platform_tweaks(worker)
        platforms.signals["SIGUSR1"] = self._print_stacks

    def _print_stacks(self, *_: Any) -> None:
        """Print the stack of each thread."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way to see other threads
            self._print_stack(names.get(ident, str(ident)), frame)

    def _print_stack(self, thread: str, frame: FrameType) -> None:
        stack = "".join(traceback.format_stack(frame))
        if self.app.logs_json:
            output.say("stack", __name__, thread_name=thread, stack=stack)
        else:
            output.write_now(f"{thread}:\n{stack}")


def _say(message: str, *_: Any) -> None:
    output.say(message, stock.__name__)
