"""The tests of the sandbox run on the loop that the sandbox runs on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run them on asyncio's own loop, whose transports the sandbox API takes for granted."""
    return {"asyncio": asyncio.new_event_loop}
