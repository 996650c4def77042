"""``lock-worker watch``: prints result events as they come."""
