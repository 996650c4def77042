"""``lock-worker``: the command line, with a folder for each command."""
