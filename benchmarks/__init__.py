"""Measurements: this worker beside other queues, and the choices within it. See README.md in this folder."""
