"""A Managem API with scripted faults, and a real Redis or Valkey server, for the demo and the tests.

It imports nothing of the worker, and only the demo and the tests import it.
"""
