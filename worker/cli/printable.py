"""Text from elsewhere, made safe for a terminal: see :mod:`worker.printable`, which log lines use too."""

from __future__ import annotations

from worker.printable import printable

__all__ = ["printable"]
