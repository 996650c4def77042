"""The names of a round's queue and streams. They share a hash tag, so that they are on one node of a cluster."""

from __future__ import annotations

QUEUE = "{moderation}.lock"
RESULTS = "{moderation}.results"
DEAD = "{moderation}.dead"
CONTROL = "{moderation}.control"
