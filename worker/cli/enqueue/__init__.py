"""``lock-worker enqueue``: sends jobs."""
