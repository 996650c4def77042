"""A queue on a real server, as the broker's tests have it."""

from __future__ import annotations

from tests.broker.conftest import bench

__all__ = ["bench"]
