"""A plugin for a worker process (``--include``): writes past the log, and fails in all places.

Each failing function has a person's words in a local variable or an argument; ``WORDS`` holds them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import warnings
from typing import Any, NoReturn

from celery import signals

from tasks.managem.client import ManagemApi

LOGGERS = ("a.library", "celery", "kombu", "asyncio")
_words = os.environ["WORDS"]


class _Unraisable:
    def __del__(self) -> None:
        _fail(_words)


def _fail(*words: object) -> NoReturn:
    text = f"{words} {_words}"
    raise ZeroDivisionError(len(text))


async def _fail_soon(*words: object) -> NoReturn:
    await asyncio.sleep(0)
    _fail(*words)


def _print_and_fail(**_: Any) -> None:
    print("to standard output\u2028\x1b")  # noqa: T201 - it is what it is for
    print("of two parts", end=" ")  # noqa: T201
    print("and a line break")  # noqa: T201
    print("two lines\nin one", file=sys.stderr, flush=True)  # noqa: T201
    print("past everybody", file=sys.__stdout__)
    warnings.warn("of Python's", UserWarning, stacklevel=1)
    for name in LOGGERS:
        try:
            _fail()
        except ZeroDivisionError:
            logging.getLogger(name).exception("an error in %s", name)
        logging.getLogger(name).error("so many: %d", _words)
    thread = threading.Thread(target=_fail, args=(_words,), name="a-thread")
    thread.start()
    thread.join()
    _Unraisable()


async def _fails_to_lock(*_: object, **__: object) -> NoReturn:
    loop = asyncio.get_running_loop()
    loop.call_soon(_fail, _words)
    lost = asyncio.create_task(_fail_soon(_words))
    await asyncio.wait({lost})
    del lost
    _fail(_words)


signals.worker_ready.connect(_print_and_fail, weak=False)
ManagemApi.lock = _fails_to_lock  # type: ignore[method-assign]
