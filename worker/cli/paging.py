"""Decides how many entries to read at once, so that neither Redis nor a command holds too many bytes.

Redis counts entries and not bytes. Most events have some hundred bytes, but with a large conversation hundreds of
kilobytes. So the size of the entries in one page decides on the number in the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: The intended size of a page in bytes.
PAGE_BYTES = 2 * 1024 * 1024
_FIRST_PAGE = 4
#: The most entries in a page, as large entries may follow small ones. With an event of 256 KiB and a message of 1 MiB
#: each, which is the most that workers write, they have 40 MiB.
MAX_AT_ONCE = 32


class PageSize:
    """The number of entries to read next; adapts to each page.

    Args:
        at_most: the most entries in a page.
    """

    def __init__(self, at_most: int = MAX_AT_ONCE) -> None:
        self.count = _FIRST_PAGE
        self._at_most = at_most

    def saw(self, page: Iterable[Mapping[bytes, bytes]]) -> None:
        """Adapt to a page, given as the fields of each entry."""
        self.saw_sizes([sum(map(len, fields.values())) for fields in page])

    def saw_sizes(self, sizes: Sequence[int]) -> None:
        """Adapt to a page, given as the bytes of each entry."""
        if sizes:
            fitting = PAGE_BYTES // max(1, sum(sizes) // len(sizes))
            self.count = max(1, min(self.count * 2, fitting, self._at_most))
