"""``lock-worker audit``: whether each job that was taken ended with an event, or is where it has to be."""
