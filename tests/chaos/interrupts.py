"""Ends the command by an exception when it gets SIGTERM or SIGINT, so that all it started ends with it.

Python does that for SIGINT alone, and not for a shell's job in the background, for which SIGINT is ignored.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Interrupts:
    """Raises ``SystemExit`` in the main thread, with the status that a shell gives such an end.

    Signals after the first one change nothing: the ending goes on.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_deferred = False

    def install(self) -> None:
        """Handle the signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise at the end of the ``with`` only: what is started in it is also noted in it."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._number is not None:
            raise SystemExit(128 + self._number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._number is None:
            self._number = number
            if not self._is_deferred:
                raise SystemExit(128 + number)


#: Those of this process; without effect until they are installed.
INTERRUPTS = Interrupts()
