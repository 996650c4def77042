"""``lock-worker doctor``: looks before a rollout whether a worker with these settings would work."""
