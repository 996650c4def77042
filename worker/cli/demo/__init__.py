"""``lock-worker demo``: the whole system on one machine, with every job accounted for."""
