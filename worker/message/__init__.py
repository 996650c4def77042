"""From the bytes of a queue message to a parsed job: Celery's message protocol and the job's own rules."""
