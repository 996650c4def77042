"""``lock-worker``: the command line, one file a command."""
