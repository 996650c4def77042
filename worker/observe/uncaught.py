"""Logs uncaught errors: without the values of variables, and escaped like any other line."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

logger = logging.getLogger(__name__)


def install() -> None:
    """Log errors that end the process or a thread, and those that Python cannot raise anywhere."""
    sys.excepthook = _in_the_process
    threading.excepthook = _in_a_thread
    sys.unraisablehook = _unraisable


def in_a_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of an asyncio loop. Its own line would show the arguments of callbacks, which may be secret."""
    what = str(context.get("message")).partition(" in callback ")[0]
    logger.error("loop_error", exc_info=context.get("exception"), extra={"what": what})


def _in_the_process(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    logger.critical("uncaught_error", exc_info=(kind, error, where))


def _in_a_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    error = args.exc_value or args.exc_type()
    name = None if args.thread is None else args.thread.name
    logger.critical("uncaught_error", exc_info=(args.exc_type, error, args.exc_traceback), extra={"thread_name": name})


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    error = args.exc_value or args.exc_type()
    where = getattr(args.object, "__qualname__", type(args.object).__qualname__)
    logger.error("ignored_error", exc_info=(args.exc_type, error, args.exc_traceback), extra={"where": where})
