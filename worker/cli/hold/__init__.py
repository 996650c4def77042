"""``lock-worker hold``: sets jobs of one kind aside."""
