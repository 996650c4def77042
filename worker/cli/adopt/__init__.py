"""``lock-worker adopt``: brings in jobs that stock Celery workers or another queue name left behind."""
