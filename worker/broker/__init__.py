"""Where jobs wait and how they move: the keys, the atomic moves, and the transport that Celery reads them through."""
