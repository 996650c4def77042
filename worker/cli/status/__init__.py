"""``lock-worker status``: what the queue, the streams and the workers are doing."""
