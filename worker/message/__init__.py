"""Turns the bytes of a queue message into a parsed job: Celery's message protocol, then the job's own rules."""
