"""The two kinds of panels that the dashboard is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

DATASOURCE = DataSourceRef("prometheus", "${datasource}")
_GRAPH_HEIGHT, _NUMBER_HEIGHT = 8, 4


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a panel.

    Attributes:
        expr: PromQL.
        legend: what a series is called, with ``{{label}}`` for its labels.
    """

    expr: str
    legend: str = ""


def graph(
    title: str, description: str, *queries: Query, unit: str = "short", width: int = 12, is_stacked: bool = False
) -> timeseries.Panel:
    """Return a panel with lines over time.

    Args:
        title: its title.
        description: what it shows and what to conclude.
        queries: its lines.
        unit: Grafana's name for the unit.
        width: its width; a row has 24.
        is_stacked: the lines are parts of a whole.
    """
    legend = common.VizLegendOptions().show_legend(show_legend=True).display_mode(LegendDisplayMode.LIST)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .height(_GRAPH_HEIGHT)
        .span(width)
        .fill_opacity(30 if is_stacked else 5)
        .legend(legend.placement(LegendPlacement.BOTTOM).calcs([]))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if is_stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    for at, query in enumerate(queries):
        panel.with_target(_target(query, at).range())
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "short",
    red_from: float | None = None,
    red_below: float | None = None,
    words: Mapping[str, str] | None = None,
) -> stat.Panel:
    """Return a panel with one number.

    Args:
        title: its title.
        description: what it shows and what to conclude.
        query: the number.
        unit: Grafana's name for the unit.
        red_from: it is red from here on, and green below.
        red_below: it is red below this, and green from here on. Without either it is always green.
        words: words to show in place of some numbers.
    """
    steps = [Threshold(value=None, color="green")]
    if red_from is not None:
        steps.append(Threshold(value=red_from, color="red"))
    if red_below is not None:
        steps = [Threshold(value=None, color="red"), Threshold(value=red_below, color="green")]
    shown: dict[str, ValueMappingResult] = {
        value: ValueMappingResult(text=word) for value, word in (words or {}).items()
    }
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(_NUMBER_HEIGHT)
        .span(3)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .mappings([ValueMap(options=shown)])
        .no_value("no data")
    )
    return panel.with_target(_target(query, 0).instant())


def _target(query: Query, at: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .ref_id(chr(ord("A") + at))
        .datasource(DATASOURCE)
    )
