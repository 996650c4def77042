"""How jobs are run: everything that knows Redis, Celery and pods, and nothing of conversations."""
