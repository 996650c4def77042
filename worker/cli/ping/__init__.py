"""``lock-worker ping``: whether this pod's worker is alive, or ready, for container health checks."""
