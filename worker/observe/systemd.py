"""Tells systemd that a worker has started, is alive, and stops, if it runs as a unit of ``Type=notify`` (sd_notify).

The asyncio loop that renews the leases sends the signs of life. So ``WatchdogSec=`` restarts a worker whose loop stands
still, and no outage of Redis or of the API does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from worker.observe.loop_service import LoopService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

#: How often the notifier looks whether there is something to tell, in seconds.
_LOOK_SECONDS = 0.25
#: Seconds between two signs of life at most, and how many of them go into systemd's time for one.
_ALIVE_SECONDS = 5.0
_SIGNS = 3
#: While a start takes longer than ``TimeoutStartSec=``, each sign of life asks for so many seconds more.
_START_SECONDS = 30
_MICROSECONDS = 1_000_000


class SystemdNotifier(LoopService):
    """Sends systemd what a unit of ``Type=notify`` has to send. All methods are for the asyncio loop.

    ``READY=1`` is sent when the worker can work for the first time. Until then it asks for more time to start, so that
    a start which waits for Redis is no failure.

    Args:
        environment: has NOTIFY_SOCKET, and with ``WatchdogSec=`` also WATCHDOG_USEC and WATCHDOG_PID.
        is_stopping: whether the worker shuts down.
        reasons: returns why this worker cannot work now; empty: it can.
        held_back_by: returns what holds the whole fleet back.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        is_stopping: Callable[[], bool],
        reasons: Callable[[], list[str]],
        held_back_by: Callable[[], list[str]],
    ) -> None:
        super().__init__()
        address = environment["NOTIFY_SOCKET"]
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._is_stopping = is_stopping
        self._reasons = reasons
        self._held_back_by = held_back_by
        self._watchdog_seconds = _watchdog_seconds(environment)
        self._alive_seconds = min(_ALIVE_SECONDS, (self._watchdog_seconds or _ALIVE_SECONDS) / _SIGNS)
        self._alive_at = float("-inf")
        self._is_started = self._has_said_stopping = self._has_failed = False
        self._status = ""
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Begin to notify."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        await super().start()

    async def stop(self) -> None:
        """Say that the worker stops, unless that is said, and send nothing more."""
        await super().stop()
        self._look()
        if self._socket is not None:
            self._socket.close()

    async def _run(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(min(_LOOK_SECONDS, self._alive_seconds))

    def _look(self) -> None:
        try:
            self._notify()
        except Exception:  # an error of ours must not end it
            logger.exception("systemd_notifier_failed")

    def _notify(self) -> None:
        """Send what is new, and a sign of life if it is time for one."""
        now = time.monotonic()
        is_stopping, reasons = self._is_stopping(), self._reasons()
        is_started = self._is_started or not reasons
        status = _in_words(reasons, self._held_back_by())
        is_due = now - self._alive_at >= self._alive_seconds
        lines = [
            "READY=1" if is_started and not self._is_started else "",
            "STOPPING=1" if is_stopping and not self._has_said_stopping else "",
            f"STATUS={status}" if status != self._status else "",
            "WATCHDOG=1" if is_due and self._watchdog_seconds else "",
            "" if is_started or is_stopping or not is_due else f"EXTEND_TIMEOUT_USEC={_START_SECONDS * _MICROSECONDS}",
        ]
        message = "\n".join(filter(None, lines))
        # What could not be sent is sent at the next look.
        if message and self._send(message):
            self._is_started, self._has_said_stopping, self._status = is_started, is_stopping, status
            self._alive_at = now if is_due else self._alive_at

    def _send(self, message: str) -> bool:
        try:
            if self._socket is not None:
                self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                logger.warning("systemd_not_notified", extra={"error": f"NOTIFY_SOCKET: {error.strerror or error}"})
            return False
        return True


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return the time within which systemd wants a sign of life; None: it wants none of this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with suppress(ValueError):
        seconds = int(environment.get("WATCHDOG_USEC", "0")) / _MICROSECONDS
        return seconds if seconds > 0 else None
    return None


def _in_words(reasons: list[str], held_back_by: list[str]) -> str:
    """Return the line that ``systemctl status`` shows; the words are those of /readyz."""
    if reasons:
        return f"not ready: {', '.join(reasons)}"
    return f"ready, held back by: {', '.join(held_back_by)}" if held_back_by else "ready"
