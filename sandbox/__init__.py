"""What the demo and the tests run against: a Managem API with scripted faults, and a real Redis or Valkey server.

Nothing of the worker is imported here, and nothing but the demo and the tests imports this.
"""
