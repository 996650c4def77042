"""``lock-worker resume``: lets a fleet go on."""
