"""The gates of one process, on a clock that the tests turn."""
