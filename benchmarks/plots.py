"""The report as pictures: one message each, SVG for the README.

Colours mean the same in all: this worker, the loop without a queue, and everything else (asyncio queues with stock
httpx, which is slow with many connections, are lighter).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.results import median

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.results import Report

OURS, BARE, PEER, STOCK, REDIS = "#c2410c", "#6b7280", "#2563eb", "#93b4f5", "#111827"
_ROW_INCHES = 0.29


def draw(report: Report, main_ms: int, folder: Path, suffix: str = "svg") -> list[Path]:
    """Write all pictures that the report has numbers for; their paths."""
    mpl.rcParams.update({
        "svg.fonttype": "none",  # text stays text: small files, and searchable
        "svg.hashsalt": "lock-worker",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
        "font.size": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
    })  # fmt: skip
    figures = {"throughput": _throughput(report, main_ms), "cost": _cost(report, main_ms)}
    if len({run.median_ms for run in report.throughput}) > 1:
        figures["delays"] = _delays(report, main_ms)
    if report.latency:
        figures["latency"] = _latency(report)
    disturbed, runs, _ = report.disturbed()
    paths: list[Path] = []
    for name, figure in figures.items():
        path = folder / f"{name}.{suffix}"
        if disturbed:
            note = f"{disturbed} of {runs} runs were disturbed by other programs: not to be quoted"
            figure.text(0.99, -0.01, note, ha="right", va="top", color="#b91c1c", fontsize=8.5)
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(path, bbox_inches="tight", facecolor="white", metadata=metadata, dpi=110)
        paths.append(path)
    return paths


def _throughput(report: Report, main_ms: int) -> Figure:
    names = sorted(_measured(report, main_ms), key=lambda name: median(report.of(name, main_ms), "jobs_per_second"))
    figure, axes = _bars(names, f"Jobs a second, one worker, API answers in {main_ms} ms")
    rates = [median(report.of(name, main_ms), "jobs_per_second") for name in names]
    spans = [[run.jobs_per_second for run in report.of(name, main_ms)] for name in names]
    axes.barh(names, rates, color=[_colour(report, name) for name in names], height=0.72)
    for position, (rate, span) in enumerate(zip(rates, spans, strict=True)):
        if len(span) > 1:
            axes.plot([min(span), max(span)], [position, position], color="black", linewidth=1)
        axes.text(max(span) + max(rates) * 0.012, position, f"{rate:,.0f}", va="center")
    axes.set_xlabel("jobs per second (median of the rounds; line: lowest to highest)")
    _legend(axes, "lower right")
    return figure


def _cost(report: Report, main_ms: int) -> Figure:
    def cost(name: str) -> float:
        runs = report.of(name, main_ms)
        return median(runs, "worker_cpu_us") + median(runs, "redis_cpu_us")

    names = sorted(_measured(report, main_ms), key=cost, reverse=True)
    figure, axes = _bars(names, f"CPU that a job costs, API answers in {main_ms} ms")
    worker = [median(report.of(name, main_ms), "worker_cpu_us") / 1000 for name in names]
    redis = [median(report.of(name, main_ms), "redis_cpu_us") / 1000 for name in names]
    axes.barh(names, worker, color=[_colour(report, name) for name in names], height=0.72)
    axes.barh(names, redis, left=worker, color=REDIS, height=0.72)
    for position, (mine, server) in enumerate(zip(worker, redis, strict=True)):
        axes.text(mine + server + max(worker) * 0.012, position, f"{mine:.2f} + {server:.2f}", va="center")
    axes.set_xlabel("milliseconds of CPU a job: worker + Redis")
    _legend(axes, "upper right", redis=True)
    return figure


def _delays(report: Report, main_ms: int) -> Figure:
    delays = sorted({run.median_ms for run in report.throughput})
    names = [name for name in _measured(report, main_ms) if _is_best_of_family(report, name, main_ms)]
    names.sort(key=lambda name: median(report.of(name, main_ms), "jobs_per_second"))
    figure = Figure(figsize=(9.5, 1.1 + _ROW_INCHES * len(names)))
    panels: Sequence[Axes] = figure.subplots(1, len(delays), sharey=True, squeeze=False)[0]
    for axes, delay in zip(panels, delays, strict=True):
        rates = [median(runs, "jobs_per_second") if (runs := report.of(name, delay)) else 0.0 for name in names]
        axes.barh(names, rates, color=[_colour(report, name) for name in names], height=0.72)
        for position, rate in enumerate(rates):
            axes.text(rate + max(rates) * 0.03, position, f"{rate:,.0f}" if rate else "-", va="center", fontsize=8.5)
        axes.set_title(f"API: {delay} ms", loc="left", fontsize=9.5)
        axes.set_xlim(0, max(rates) * 1.22)
        axes.tick_params(left=False)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(3))
    figure.suptitle(
        f"Jobs a second by how long the API takes; of each queue the pool or client that is best at {main_ms} ms",
        x=0.02,
        ha="left",
        fontsize=11.5,
    )
    figure.supxlabel("jobs per second", fontsize=9.5)
    figure.tight_layout()
    return figure


def _latency(report: Report) -> Figure:
    found = sorted(report.latency, key=lambda latency: -latency.steady_added_p50_ms)
    names = [latency.row for latency in found]
    main_ms = found[0].median_ms
    figure, axes = _bars(names, f"From enqueuing to the event, beyond the API's own {main_ms} ms")
    for position, latency in enumerate(found):
        colour = _colour(report, latency.row)
        low, high = (max(0.3, value) for value in (latency.steady_added_p50_ms, latency.steady_added_p99_ms))
        axes.plot([low, high], [position, position], color=colour, linewidth=5, alpha=0.45, solid_capstyle="round")
        axes.plot(low, position, "o", color=colour, markersize=7)
        axes.plot(max(0.3, latency.idle_added_p50_ms), position, "d", color="black", markersize=5, fillstyle="none")
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.04)
    axes.grid(axis="x", color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.set_xlabel("milliseconds, log scale. Dot to end: p50 to p99 at 100 jobs/s. Diamond: p50 of single jobs")
    _legend(axes, "upper right")
    return figure


def _bars(names: list[str], title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.5, 1.0 + _ROW_INCHES * len(names)))
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11.5)
    axes.tick_params(left=False)
    axes.margins(x=0.14, y=0.01)
    return figure, axes


def _legend(axes: Axes, where: Literal["upper right", "lower right"], *, redis: bool = False) -> None:
    meanings = {
        "this worker": OURS,
        "a bare loop without a queue": BARE,
        "asyncio queues, our HTTP transport; others, stock httpx": PEER,
        "asyncio queues, stock httpx": STOCK,
    }
    if redis:
        meanings["Redis"] = REDIS
    patches = [Patch(color=colour, label=label) for label, colour in meanings.items()]
    axes.legend(handles=patches, loc=where, fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="none")


def _measured(report: Report, main_ms: int) -> list[str]:
    return [name for name in report.rows if report.of(name, main_ms)]


def _is_best_of_family(report: Report, name: str, main_ms: int) -> bool:
    def rate(other: str) -> float:
        return median(report.of(other, main_ms), "jobs_per_second")

    family = _family(name)
    return rate(name) == max(rate(other) for other in _measured(report, main_ms) if _family(other) == family)


def _family(name: str) -> str:
    return name.split(",", maxsplit=1)[0].split(" ", maxsplit=1)[0]


def _colour(report: Report, name: str) -> str:
    if _family(name) == "lock-worker":
        return OURS
    if name.startswith("bare"):
        return BARE
    return STOCK if report.rows[name]["variables"].get("BENCH_CLIENT") == "httpx" else PEER
