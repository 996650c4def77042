"""Reads a stream from its newest entry to its oldest, in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.cli.paging import PageSize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis


def newest_first(
    client: Redis, stream: str, *, at_most: int | None = None, oldest: str = "-"
) -> Iterator[list[tuple[str, dict[bytes, bytes]]]]:
    """Yield the entries of a stream in pages, the newest first; entries added meanwhile are left out.

    Args:
        client: a blocking client.
        stream: the stream's key.
        at_most: how many entries to read at most; None: all.
        oldest: the id of the oldest entry to read.
    """
    page, newest, left = PageSize(), "+", at_most
    while left is None or left > 0:
        count = page.count if left is None else min(page.count, left)
        found: Any = client.xrevrange(stream, max=newest, min=oldest, count=count)
        if not found:
            return
        entries = [(entry.decode(), fields) for entry, fields in found]
        page.saw(fields for _, fields in entries)
        newest = f"({entries[-1][0]}"
        left = None if left is None else left - len(entries)
        yield entries
