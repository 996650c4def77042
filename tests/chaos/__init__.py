"""Chaos: real workers, a real Redis and the sandbox API under random faults; afterwards the history is judged.

A round is planned from its seed before it begins (`plan`), so that a seed does the same things again. Producers
(`producers`) send jobs, a tiny pod controller (`fleet`) keeps workers alive, the conductor (`conductor`) does the
faults; `round` puts them together, heals everything, waits until no job is left, and collects what happened
(`history`). What must be true of any history stands in `invariants`, which knows nothing of how it came about.

``make chaos MINUTES=30 SEED=7``, or ``python -m tests.chaos --help``. With ``--target stock-celery`` the same harness
kills a stock Celery worker that does the same job, to show that it can see losses.
"""
