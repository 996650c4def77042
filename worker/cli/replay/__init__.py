"""``lock-worker replay``: sends dead letters again as new jobs."""
