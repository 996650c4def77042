"""All code that knows the Managem API: its client, connections, token, TLS trust and conversation shape."""
