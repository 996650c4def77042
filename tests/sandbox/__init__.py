"""The sandbox, proven: every fault on real sockets, and the server with real processes."""
