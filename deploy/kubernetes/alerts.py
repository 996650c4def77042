"""Writes the alerts as the resource that the Prometheus operator reads: ``python -m deploy.kubernetes.alerts``."""

from __future__ import annotations

import io
from pathlib import Path

from ruamel.yaml import YAML

FILE = Path(__file__).parent / "components" / "alerts" / "alerts.yaml"
_RULES = Path(__file__).parents[1] / "prometheus" / "alerts.yml"


def prometheus_rule() -> str:
    """Return the resource as YAML."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.width = 10_000  # no line of a text is broken
    text = io.StringIO()
    yaml.dump(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "lock-worker", "labels": {"app.kubernetes.io/name": "lock-worker"}},
            "spec": yaml.load(_RULES),
        },
        text,
    )
    return f"# Made from deploy/prometheus/alerts.yml by `make docs`; do not edit.\n{text.getvalue()}"


if __name__ == "__main__":
    FILE.write_text(prometheus_rule(), "utf-8")
