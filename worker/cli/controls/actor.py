"""Who runs a command."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from settings import Settings

_MAX_CHARACTERS = 128


def actor(settings: Settings) -> str:
    """Return LOCK_WORKER_ACTOR, or else the login name; the number of a user that has no name."""
    if settings.LOCK_WORKER_ACTOR is not None:
        return settings.LOCK_WORKER_ACTOR
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that is in no list; Python 3.13 raises the latter
        name = ""
    name = name.encode(errors="replace").decode().strip()[:_MAX_CHARACTERS]
    return name or f"user {os.getuid()}"
