"""``lock-worker cancel``: ends jobs that were not called yet, by their ids or by what they have in common."""
