"""The figures in README and docs are those of the last measurements in ``benchmarks/results``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text("utf-8")
SCALING = (ROOT / "docs" / "scaling.md").read_text("utf-8")
SCALE: dict[str, Any] = json.loads((RESULTS / "scale.json").read_text("utf-8"))
BACKLOG: dict[str, Any] = json.loads((RESULTS / "backlog.json").read_text("utf-8"))


def table(first: str, file: str = "latest.md") -> dict[str, list[str]]:
    """The table of a page of results whose second column begins so, by its rows' names."""
    for part in (RESULTS / file).read_text("utf-8").split("\n\n"):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.strip().splitlines()]
        if len(rows[0]) > 1 and rows[0][1].startswith(first):
            return {name: cells for name, *cells in rows[2:]}
    raise AssertionError(f"no such table: {first}")


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("**lock-worker**", "lock-worker"),
        ("a bare loop with the same HTTP client and no queue", "bare loop"),
        ("best other queue, with this worker's HTTP client (taskiq)", "taskiq, our HTTP transport"),
        ("best stock Celery pool (prefork, 32 processes)", "Celery prefork"),
    ],
)
def test_the_readmes_table_is_that_of_the_last_run(name: str, row: str) -> None:
    throughput, latency = table("jobs/s"), table("p50")
    at_0_ms, at_50_ms, worker_us, redis_us, memory = (throughput[row][column] for column in (0, 1, 3, 4, 7))
    added = f"{latency[row][1].split(' / ')[0]} ms" if row in latency else ""
    cells = [
        name,
        at_50_ms.split(" (")[0],
        at_0_ms,
        f"{int(worker_us):,} µs",
        f"{redis_us} µs",
        added,
        f"{int(memory):,} MiB",
    ]

    assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in README


def test_what_the_readme_says_of_low_load_is_that_of_the_last_run() -> None:
    costs = {row: int(cells[5]) for row, cells in table("p50").items()}
    celery = [cost for row, cost in costs.items() if row.startswith("Celery")]
    readme = " ".join(README.split())

    assert f"each costs Redis {costs['lock-worker']} µs" in readme
    assert f"and one of Celery {min(celery)} to {max(celery)}" in readme


def test_what_the_readme_says_of_a_slower_machine_is_what_was_measured_there() -> None:
    speeds = {row: cells[1].split(" (")[0] for row, cells in table("jobs/s", "slower-machine.md").items()}

    assert (
        f"it was {speeds['lock-worker']} jobs/s, the loop {speeds['bare loop']}, "
        f"taskiq {speeds['taskiq, our HTTP transport']} and Celery {speeds['Celery prefork']}"
    ) in " ".join(README.split())


@pytest.mark.parametrize("point", SCALE["points"], ids=lambda point: f"{point['workers']} at {point['median_ms']} ms")
def test_each_point_of_the_model_stands_in_the_page(point: dict[str, Any]) -> None:
    model, speed = SCALE["model"], point["jobs_per_second"]
    predicted = model["per_job_us"] + point["calls_per_second"] * model["per_call_us"] / speed

    row = (
        f"| {point['median_ms']:,} ms | {point['workers']} | {speed:,.0f} | {point['redis_cpu_us_per_job']:.0f} us "
        f"| {point['calls_per_job']:.2f} | {predicted:.0f} us |"
    )
    assert row in SCALING


def test_the_model_itself_stands_in_the_page() -> None:
    model = SCALE["model"]
    assert (
        f"jobs x {model['per_job_us']:.0f} us + script calls x {model['per_call_us']:.0f} us "
        f"+ idle workers x {model['per_idle_worker_us_per_second'] / 1000:.1f} ms"
    ) in SCALING


@pytest.mark.parametrize("timing", BACKLOG["timings_us"], ids=lambda timing: timing["move"])
def test_each_moves_time_with_a_backlog_stands_in_the_page(timing: dict[str, Any]) -> None:
    row = (
        f"| {timing['move']} | {timing['jobs_a_call']:.0f} | {timing['p50_us'] / 1000:.1f} ms "
        f"| {timing['p99_us'] / 1000:.1f} ms |"
    )
    assert row in SCALING
