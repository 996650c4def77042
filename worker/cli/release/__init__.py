"""``lock-worker release``: ends a hold, so that its jobs go on."""
