"""Decides which end of the queue the next new job is taken from, while many jobs are bad.

Usually the oldest job goes first. But bad jobs lie together, because one rule or one deploy made them, and a block of
them at the front would hold up all others. So while many jobs fail, the two ends take turns. If the last job of one end
succeeded and that of the other failed, the better end gets more turns. The other end keeps some, but its jobs get half
of the slots at most: else slow failures would fill them all, one turn at a time.
"""

from __future__ import annotations

#: If one end succeeds and the other does not, the other one gets every fourth turn, and this share of the slots.
_OTHER_TURN = 4
_OTHER_SHARE = 0.5


class QueueEnds:
    """The results of the two ends of the queue."""

    def __init__(self) -> None:
        self._is_newest_well = self._is_oldest_well = False
        self._was_newest = False
        self._turns = 0

    def ended(self, *, is_newest: bool, well: bool) -> None:
        """Record that the call of a new job from one end was answered (``well``) or failed."""
        if is_newest:
            self._is_newest_well = well
        else:
            self._is_oldest_well = well

    def next_is_newest(self, newest: int, oldest: int, slots: int) -> bool:
        """Return True if the next job comes from the newest end.

        ``newest`` and ``oldest`` are the jobs in flight from each end.
        """
        if self._is_newest_well == self._is_oldest_well:
            self._was_newest = not self._was_newest
            return self._was_newest
        self._turns += 1
        others = oldest if self._is_newest_well else newest
        is_others_turn = self._turns % _OTHER_TURN == 0 and others < slots * _OTHER_SHARE
        return self._is_newest_well != is_others_turn
