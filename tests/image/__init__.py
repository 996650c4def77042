"""The container image: built from the Dockerfile, run as a cluster would, and stopped with jobs in flight.

Marked `image`, because it takes minutes and needs root: `make image-test`.
"""
