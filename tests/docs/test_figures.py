"""The figures in README and docs are those of the last measurements in ``benchmarks/results``.

Numbers are bound, and not the words around them: a table's row is found by a word of its first cell, a number in prose
by a word of its paragraph.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results, table, upstream
from benchmarks.results import Latency, median

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text("utf-8")
#: What the last run says, in words; emphasis and bullets left out.
WORDS = (ROOT / "benchmarks" / "README.md").read_text("utf-8").replace("**", "")
SCALING = (ROOT / "docs" / "scaling.md").read_text("utf-8")
SCALE: dict[str, Any] = json.loads((RESULTS / "scale.json").read_text("utf-8"))
BACKLOG: dict[str, Any] = json.loads((RESULTS / "backlog.json").read_text("utf-8"))
FLAT: dict[str, Any] = json.loads((RESULTS / "flat.json").read_text("utf-8"))


RUN = results.read(RESULTS / "latest.json")
OURS, LOOP, TASKIQ = "lock-worker", "bare loop", "taskiq, our HTTP transport"
PREFORK, GEVENT, THREADS = "Celery prefork", "Celery gevent", "Celery threads"
DELAYS = (0, 50, 200)


def speed(row: str, median_ms: int) -> float:
    return median(RUN.of(row, median_ms), "jobs_per_second")


def latency(row: str) -> Latency:
    found = RUN.latency_of(row)
    assert found is not None
    return found


def missing(page: str, about: str, *numbers: str) -> list[str]:
    """Those of the numbers (with their units) that no paragraph with this word tells."""
    paragraphs = [" ".join(block.split()) for block in page.split("\n\n") if about in " ".join(block.split())]
    assert paragraphs, f"no paragraph is about {about!r}"

    def is_told(number: str) -> bool:
        whole = rf"(?<![\d.,]){re.escape(number)}(?![.,]?\d)"
        return any(re.search(whole, paragraph) for paragraph in paragraphs)

    return [number for number in numbers if not is_told(number)]


def cells(page: str, *first: str) -> list[list[str]]:
    """The rows whose first cells begin with these, or hold the only one of them; each without those cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    if len(first) == 1:
        return [row[1:] for row in rows if first[0] in row[0]]
    return [row[len(first) :] for row in rows if row[: len(first)] == list(first)]


def test_the_tables_are_those_of_the_last_run() -> None:
    assert table.markdown(RUN, 50) == (RESULTS / "latest.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("word", "row"),
    [("lock-worker", OURS), ("bare loop", LOOP), ("taskiq", TASKIQ), ("prefork", PREFORK), ("gevent", GEVENT)],
)
def test_the_readmes_table_is_that_of_the_last_run(word: str, row: str) -> None:
    def cost(what: str) -> float:
        return median(RUN.of(row, 50), what)

    added = RUN.latency_of(row)
    measured = [
        *(f"{speed(row, median_ms):,.0f}" for median_ms in DELAYS),
        f"{cost('worker_cpu_us'):,.0f} µs",
        f"{cost('redis_cpu_us'):.0f} µs",
        "" if added is None else f"{added.steady_added_p50_ms:.1f} ms",
        f"{cost('memory_mib'):,.0f} MiB",
    ]
    assert measured in cells(README, word)


def test_the_rows_that_the_readme_calls_the_best_are_the_best() -> None:
    names = {run.row for run in RUN.throughput}
    celery = {name for name in names if name.startswith("Celery")}
    others = names - celery - {OURS} - {name for name in names if name.startswith("bare")}

    for median_ms in (0, 50):
        assert max(celery, key=lambda name: speed(name, median_ms)) == PREFORK
    assert max(others, key=lambda name: speed(name, 50)) == TASKIQ


@pytest.mark.parametrize("row", [PREFORK, TASKIQ])
def test_the_ratios_are_those_of_the_last_run(row: str) -> None:
    lowest, highest = sorted(speed(OURS, median_ms) / speed(row, median_ms) for median_ms in (0, 50))

    assert missing(WORDS, "times", f"{lowest:.1f} to {highest:.1f} times") == []


def test_what_keeps_the_slots_busy_is_that_of_the_last_run() -> None:
    jobs = range(20_000)
    mean_ms = sum(upstream.delay_seconds(f"conversation-{job}", 50, 7) for job in jobs) / len(jobs) * 1000
    most = round(200 / mean_ms * 1000)
    shares = [f"{speed(row, 50) / most * 100:.0f} %" for row in (LOOP, OURS)]
    beside_the_call = [f"{200 / speed(row, 50) * 1000 - mean_ms:.1f}" for row in (LOOP, OURS)]

    assert missing(WORDS, "at most", f"{most:,}", *shares, *beside_the_call) == []


@pytest.mark.parametrize("row", [OURS, TASKIQ, THREADS])
def test_what_the_readme_says_of_low_load_is_that_of_the_last_run(row: str) -> None:
    p50, p99 = f"{latency(row).steady_added_p50_ms:.1f}", f"{latency(row).steady_added_p99_ms:.1f}"

    assert missing(WORDS, "p99", p50, p99) == []


def test_what_a_job_that_comes_singly_costs_redis_is_that_of_the_last_run() -> None:
    ours, taskiq = latency(OURS), latency(TASKIQ)
    celery = [latency(row).steady_redis_cpu_us for row in (PREFORK, THREADS, GEVENT)]

    assert missing(
        WORDS, "singly",
        f"{ours.steady_redis_cpu_us:.0f} µs", f"{ours.steady_redis_commands:.0f} commands",
        f"{taskiq.steady_redis_cpu_us:.0f}", f"{min(celery):.0f} to {max(celery):.0f}",
    ) == []  # fmt: skip


def test_start_and_memory_are_those_of_the_last_runs() -> None:
    start = median(RUN.of(OURS, 50), "start_seconds")
    last = max(mib for _, mib in FLAT["samples"])

    assert missing(WORDS, "start", f"{start:.1f} s") == []
    assert missing(
        WORDS, "resident",
        f"{FLAT['jobs']:,} jobs", f"{FLAT['seconds']} seconds", f"{FLAT['growth_mib']:.2f} MiB",
        f"{FLAT['warm_up_jobs']:,}", f"{last:.1f} MiB",
    ) == []  # fmt: skip


@pytest.mark.parametrize("point", SCALE["points"], ids=lambda point: f"{point['workers']} at {point['median_ms']} ms")
def test_each_point_of_the_model_stands_in_the_page(point: dict[str, Any]) -> None:
    model, speed = SCALE["model"], point["jobs_per_second"]
    predicted = model["per_job_us"] + point["calls_per_second"] * model["per_call_us"] / speed

    measured = [
        f"{speed:,.0f}", f"{point['redis_cpu_us_per_job']:.0f} us", f"{point['calls_per_job']:.2f}",
        f"{predicted:.0f} us",
    ]  # fmt: skip
    assert cells(SCALING, f"{point['median_ms']:,} ms", str(point["workers"])) == [measured]


def test_the_model_itself_and_what_follows_from_it_stand_in_the_page() -> None:
    model, points = SCALE["model"], SCALE["points"]
    slow = [point for point in points if point["median_ms"] == max(each["median_ms"] for each in points)]

    def off(point: dict[str, Any]) -> float:
        """How much more a job costs than the model says, in percent."""
        says = model["per_job_us"] + point["calls_per_job"] * model["per_call_us"]
        return float(round((point["redis_cpu_us_per_job"] / says - 1) * 100))

    constants = (
        f"jobs x {model['per_job_us']:.0f} us", f"calls x {model['per_call_us']:.0f} us",
        f"workers x {model['per_idle_worker_us_per_second'] / 1000:.1f} ms",
    )  # fmt: skip
    assert missing(SCALING, "Redis CPU per second", *constants) == []
    worst = max(points, key=off)
    assert worst in slow
    assert missing(SCALING, "the model says", f"{off(worst):.0f} %") == []
    assert missing(SCALING, "carries", f"{round(model['carries']['jobs_per_second'], -3):,.0f} jobs/s") == []
    assert missing(SCALING, "singly", f"{round(latency(OURS).steady_redis_cpu_us)} us") == []


@pytest.mark.parametrize("timing", BACKLOG["timings_us"], ids=lambda timing: timing["move"])
def test_each_moves_time_with_a_backlog_stands_in_the_page(timing: dict[str, Any]) -> None:
    measured = [
        f"{timing['jobs_a_call']:.0f}", f"{timing['p50_us'] / 1000:.1f} ms", f"{timing['p99_us'] / 1000:.1f} ms"
    ]  # fmt: skip
    assert measured in cells(SCALING, timing["move"])
