"""Everything that subclasses Celery or kombu: the worker's command line, shutdown, remote control and monitors.

No job passes through this package. ``worker.runtime`` takes, runs and settles the jobs.
"""
