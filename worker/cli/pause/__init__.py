"""``lock-worker pause``: lets a fleet take no jobs for a while."""
