"""``lock-worker workers``: the workers of the fleet."""
