"""Reads the messages that no worker has taken yet, page by page, and misses none that stays where it is.

Producers push to the left end of a list, so what is read already moves to the right: a page may repeat messages, and
none is missed. Workers pop from the right end, mostly. After an outage they take the newest jobs from the left end for
a while, and what is not read yet moves to the left; they count these, so the next page begins so much earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.broker.keys import PRIORITY_STEPS
from worker.cli.paging import PageSize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from worker.broker.keys import Keys

#: No page has more messages, so that none holds the server up.
_MOST_MESSAGES = 250
_TAKEN_NEWEST = "taken_newest"


def ready_messages(client: Redis, keys: Keys) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the messages of a queue's lists in pages, each with the name of its list for people."""
    names = [f"priority {step}" if step else "new" for step in PRIORITY_STEPS]
    # `arrived` comes last: a message that wakes a worker moves there.
    for name, key in [*zip(names, keys.priority_lists, strict=True), ("arrived", keys.arrived)]:
        for page in _pages(client, keys, key):
            yield name, page


def _pages(client: Redis, keys: Keys, key: str) -> Iterator[list[bytes]]:
    size, start, overlap = PageSize(_MOST_MESSAGES), 0, 0
    taken, _ = _read(client, keys, key, 0, 1)
    while True:
        first = max(0, start - overlap)
        count = size.count + start - first
        taken_now, page = _read(client, keys, key, first, count)
        moved = max(0, taken_now - taken)
        taken = taken_now
        if first > 0 and moved > start - first and overlap < _MOST_MESSAGES:
            # More of them moved to the left than this page overlaps with the one before.
            start, overlap = max(0, first - moved), min(2 * moved, _MOST_MESSAGES)
            continue
        size.saw_sizes([len(message) for message in page])
        if page:
            yield page
        if len(page) < count:  # up to the end of the list
            return
        start = first + len(page)


def _read(client: Redis, keys: Keys, key: str, first: int, count: int) -> tuple[int, list[bytes]]:
    """Return how many of the newest jobs workers have taken so far, and a page of the list, both of one moment."""
    with client.pipeline(transaction=True) as at_once:
        at_once.hget(keys.maintenance, _TAKEN_NEWEST)
        at_once.lrange(key, first, first + count - 1)
        taken, page = at_once.execute()
    found: list[Any] = page
    return int(taken) if taken and taken.isdigit() else 0, found
