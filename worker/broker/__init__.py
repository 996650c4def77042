"""Where jobs wait in Redis and how they move: the keys, the atomic moves, and the connections that carry them."""
