"""The names of metrics in PromQL, and those that a worker exposes."""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import iter_modules

import worker.observe

#: Prometheus makes these itself.
OF_PROMETHEUS = {"up", "ALERTS"}
_LABELS = re.compile(r'\{[^{}]*\}|"[^"]*"|\b(?:by|on|without|group_left|group_right|ignoring)\s*\([^()]*\)|\[[^\]]*\]')
_NAME = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
_OPERATORS = {"and", "or", "unless"}


def metrics_in(expr: str) -> set[str]:
    """The metrics that an expression reads."""
    return set(_NAME.findall(_LABELS.sub(" ", expr))) - _OPERATORS


def exposed() -> set[str]:
    """The metrics of a worker, as PromQL names them."""
    families = [
        family
        for module in iter_modules(worker.observe.__path__, "worker.observe.")
        if module.name.endswith("metrics")
        for family in import_module(module.name).REGISTRY.collect()
    ]
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + ending for family in families for ending in endings.get(family.type, [""])}
