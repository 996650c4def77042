"""``lock-worker show``: where a job is now, and what happened to it."""
