"""From which end of the backlog new jobs come, while many of them are bad.

Usually the oldest goes first. But bad jobs lie together, as one rule or one deploy made them, and a block of them in
front of all others would hold everybody up. So while there is reason for it, both ends are drawn from in turn; an end
whose last job went well is drawn from more often, as long as the other's does not. The other one keeps its turns, but
in half of the slots at most: slow failures would else fill them all, one turn at a time.
"""

from __future__ import annotations

#: Where one end does well and the other does not, each so-manieth turn is the other's.
_OTHER_TURN = 4
_OTHER_SHARE = 0.5


class QueueEnds:
    """How the two ends of the backlog fare."""

    def __init__(self) -> None:
        self._is_newest_well = self._is_oldest_well = False
        self._was_newest = False
        self._turns = 0

    def ended(self, *, is_newest: bool, well: bool) -> None:
        """The call of a new job from an end was answered, or failed."""
        if is_newest:
            self._is_newest_well = well
        else:
            self._is_oldest_well = well

    def next_is_newest(self, newest: int, oldest: int, slots: int) -> bool:
        """Whose turn it is, where so many jobs of each end are under way."""
        if self._is_newest_well == self._is_oldest_well:
            self._was_newest = not self._was_newest
            return self._was_newest
        self._turns += 1
        others = oldest if self._is_newest_well else newest
        is_others_turn = self._turns % _OTHER_TURN == 0 and others < slots * _OTHER_SHARE
        return self._is_newest_well != is_others_turn
