"""The border to the API, proven against real sockets that misbehave in every way."""
