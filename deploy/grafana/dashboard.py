"""Makes the dashboard: ``python -m deploy.grafana.dashboard`` writes ``lock-worker.json``."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import DATASOURCE
from deploy.grafana.sections import sections

FILE = Path(__file__).parent / "lock-worker.json"


def dashboard_json() -> str:
    """Return the dashboard as Grafana imports it."""
    made = (
        Dashboard("lock-worker")
        .uid("lock-worker")
        .description("A fleet of lock-worker. Made by deploy/grafana; the alerts are in deploy/prometheus.")
        .tags(["lock-worker"])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_fleet())
    )
    ids = count(1)
    for section in sections():
        made.with_row(Row(section.title).id(next(ids)))
        for panel in section.panels:
            made.with_panel(panel.id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _fleet() -> QueryVariable:
    """Return the choice of a job of Prometheus: each fleet has its own."""
    return (
        QueryVariable("job")
        .label("Fleet")
        .datasource(DATASOURCE)
        .query("label_values(lock_worker_queue_jobs, job)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .include_all(include_all=True)
        .all_value(".+")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


if __name__ == "__main__":
    FILE.write_text(dashboard_json(), encoding="utf-8")
