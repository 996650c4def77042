"""Jobs in Redis: the keys, the atomic moves between states, and the connections."""
