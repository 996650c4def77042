"""How many entries of a stream to ask for at once, so that neither Redis nor a command holds many large ones.

Redis counts entries and not bytes. Events are of some hundred bytes as a rule, and of hundreds of kilobytes where a
conversation is large; so each page is as large as the entries of the page before make sensible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What a page is to hold, in bytes.
PAGE_BYTES = 2 * 1024 * 1024
_FIRST_PAGE = 4
#: Where large entries follow small ones, one page holds this many of them. With an event of 256 KiB and a message of
#: 64 KiB each, which is what the workers write at most, these are 10 MiB.
MAX_AT_ONCE = 32


class PageSize:
    """The number of entries to ask for; told of each page, it finds the next one's."""

    def __init__(self) -> None:
        self.count = _FIRST_PAGE

    def saw(self, page: Iterable[Mapping[bytes, bytes]]) -> None:
        """Told what a page held: the fields of each entry."""
        sizes = [sum(map(len, fields.values())) for fields in page]
        if sizes:
            fitting = PAGE_BYTES // max(1, sum(sizes) // len(sizes))
            self.count = max(1, min(self.count * 2, fitting, MAX_AT_ONCE))
