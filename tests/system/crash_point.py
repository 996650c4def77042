"""A plugin for a worker process (``--include``): kills it at a named point, as an OOM kill does.

``CRASH_POINT`` is the point, ``CRASH_AT`` which passing of it is fatal (default: the first). Nothing in the worker
knows of this: a function of its own, or of aiohttp's, is wrapped.
"""

from __future__ import annotations

import inspect
import os
import signal
from itertools import count
from typing import TYPE_CHECKING, Any

from aiohttp.client_proto import ResponseHandler

from tasks.managem.client import ManagemApi
from worker.broker.job_moves import JobMoves
from worker.broker.maintenance_moves import MaintenanceMoves
from worker.runtime.admission import Admission
from worker.runtime.control_watch import ControlWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_passings = count(1)
_fatal = int(os.environ.get("CRASH_AT", "1"))


def _pass() -> None:
    if next(_passings) == _fatal:
        os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str) -> Callable[[], None]:
    """The moment in which a function is called."""

    def wrap() -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            _pass()
            return original(*args, **kwargs)

        setattr(owner, name, wrapped)

    return wrap


def _after(owner: Any, name: str, which: Callable[[Any], object] = lambda _: True) -> Callable[[], None]:
    """The moment in which a function has a result (one of those) that nobody has seen."""

    def seen_by_nobody(result: Any) -> Any:
        if which(result):
            _pass()
        return result

    def wrap() -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return seen_by_nobody(original(*args, **kwargs))

        async def wrapped_coroutine(*args: Any, **kwargs: Any) -> Any:
            return seen_by_nobody(await original(*args, **kwargs))

        setattr(owner, name, wrapped_coroutine if inspect.iscoroutinefunction(original) else wrapped)

    return wrap


POINTS: Mapping[str, Callable[[], None]] = {
    "taken, but the answer was not read": _after(JobMoves, "take", lambda taken: taken.jobs),
    "taken, but the message was not read": _before(Admission, "admit"),
    "read, but the id was not claimed": _before(JobMoves, "claim"),
    "claimed, but not called": _after(JobMoves, "claim"),
    "called, but not answered": _before(ResponseHandler, "read"),
    "answered, but nothing decided": _after(ManagemApi, "lock"),
    "decided, but not completed": _before(JobMoves, "complete"),
    "completed, but the answer was not read": _after(JobMoves, "complete"),
    "to be put aside, but nothing sent": _before(JobMoves, "delay"),
    "put aside, but the answer was not read": _after(JobMoves, "delay"),
    "promoted, but not taken": _after(MaintenanceMoves, "promote", lambda promoted: promoted.count),
    "to be released, but nothing sent": _before(JobMoves, "release"),
    "released, but the answer was not read": _after(JobMoves, "release"),
    "recovered, but not taken": _after(MaintenanceMoves, "recover", lambda recovered: recovered.count),
    "to be held, but nothing sent": _before(JobMoves, "hold"),
    "held, but the answer was not read": _after(JobMoves, "hold"),
    "released from hold, but not taken": _after(MaintenanceMoves, "release_held", lambda released: released),
    "cancelled id seen, but not completed": _after(ControlWatch, "notes_of"),
    "found poisoned, but not completed": _after(MaintenanceMoves, "recover", lambda recovered: recovered.poisoned),
}

if "CRASH_POINT" in os.environ:
    POINTS[os.environ["CRASH_POINT"]]()
