"""The moves against a model of them: random interleavings on a real server, and laws that hold after every step."""
