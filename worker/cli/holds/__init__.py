"""``lock-worker holds``: what operators ask of the fleet, and how many jobs are held."""
