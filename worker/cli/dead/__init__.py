"""``lock-worker dead``: looks at dead letters, and discards them."""
