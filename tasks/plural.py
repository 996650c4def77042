"""Writes a number with its noun, for people."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return a text such as ``1 job`` or ``1,200 jobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
