"""The stage of ``tests/system``: Redis, emptied, a sandbox API, and workers on demand."""

from __future__ import annotations

from tests.system.conftest import server_binary, stage

__all__ = ["server_binary", "stage"]
