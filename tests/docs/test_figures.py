"""The figures in README and docs are those of the last measurements in ``benchmarks/results``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results, table, upstream
from benchmarks.results import Latency, median

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text("utf-8")
SCALING = (ROOT / "docs" / "scaling.md").read_text("utf-8")
SCALE: dict[str, Any] = json.loads((RESULTS / "scale.json").read_text("utf-8"))
BACKLOG: dict[str, Any] = json.loads((RESULTS / "backlog.json").read_text("utf-8"))


RUN = results.read(RESULTS / "latest.json")
OURS, LOOP, TASKIQ = "lock-worker", "bare loop", "taskiq, our HTTP transport"
PREFORK, GEVENT, THREADS = "Celery prefork", "Celery gevent", "Celery threads"
DELAYS = (0, 50, 200)


def readme_says(sentence: str) -> bool:
    return sentence in " ".join(README.split())


def speed(row: str, median_ms: int) -> float:
    return median(RUN.of(row, median_ms), "jobs_per_second")


def latency(row: str) -> Latency:
    found = RUN.latency_of(row)
    assert found is not None
    return found


def test_the_tables_are_those_of_the_last_run() -> None:
    assert table.markdown(RUN, 50) == (RESULTS / "latest.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("**lock-worker**", OURS),
        ("a bare loop with the same HTTP client and no queue", LOOP),
        ("best other queue, with this worker's HTTP client (taskiq)", TASKIQ),
        ("fastest stock Celery pool (prefork, 32 at once, httpx)", PREFORK),
        ("stock Celery with as many at once (gevent, httpx)", GEVENT),
    ],
)
def test_the_readmes_table_is_that_of_the_last_run(name: str, row: str) -> None:
    def cost(what: str) -> float:
        return median(RUN.of(row, 50), what)

    added = RUN.latency_of(row)
    cells = [
        name,
        *(f"{speed(row, median_ms):,.0f}" for median_ms in DELAYS),
        f"{cost('worker_cpu_us'):,.0f} µs",
        f"{cost('redis_cpu_us'):.0f} µs",
        "" if added is None else f"{added.steady_added_p50_ms:.1f} ms",
        f"{cost('memory_mib'):,.0f} MiB",
    ]
    assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in README


def test_the_rows_that_the_readme_calls_the_best_are_the_best() -> None:
    names = {run.row for run in RUN.throughput}
    celery = {name for name in names if name.startswith("Celery")}
    others = names - celery - {OURS} - {name for name in names if name.startswith("bare")}

    for median_ms in (0, 50):
        assert max(celery, key=lambda name: speed(name, median_ms)) == PREFORK
    assert max(others, key=lambda name: speed(name, 50)) == TASKIQ


def test_the_ratios_are_those_of_the_last_run() -> None:
    celery = sorted(speed(OURS, median_ms) / speed(PREFORK, median_ms) for median_ms in (0, 50))
    taskiq = sorted(speed(OURS, median_ms) / speed(TASKIQ, median_ms) for median_ms in (0, 50))

    assert readme_says(
        f"At 0 and 50 ms one worker does {celery[0]:.1f} to {celery[1]:.1f} times the jobs of the fastest stock Celery "
        f"pool, and {taskiq[0]:.1f} to {taskiq[1]:.1f} times those of taskiq"
    )


def test_what_keeps_the_slots_busy_is_that_of_the_last_run() -> None:
    jobs = range(20_000)
    mean_ms = sum(upstream.delay_seconds(f"conversation-{job}", 50, 7) for job in jobs) / len(jobs) * 1000
    most = round(200 / mean_ms * 1000)

    def beside_the_call(row: str) -> float:
        return 200 / speed(row, 50) * 1000 - mean_ms

    def share(row: str) -> float:
        return speed(row, 50) / most * 100

    assert readme_says(f"can be {most:,} a second at most")
    assert readme_says(f"the loop reaches {share(LOOP):.0f} % of that and this worker {share(OURS):.0f} %")
    assert readme_says(
        f"busy {beside_the_call(LOOP):.1f} ms beside the call in the loop and {beside_the_call(OURS):.1f} here"
    )


def test_what_the_readme_says_of_low_load_is_that_of_the_last_run() -> None:
    def added(row: str) -> tuple[str, str]:
        return f"{latency(row).steady_added_p50_ms:.1f}", f"{latency(row).steady_added_p99_ms:.1f}"

    costs = [latency(row).steady_redis_cpu_us for row in (PREFORK, THREADS, GEVENT)]
    ours, taskiq, threads = added(OURS), added(TASKIQ), added(THREADS)

    assert readme_says(
        f"it adds {ours[0]} ms at p50 and {ours[1]} at p99, taskiq {taskiq[0]} and {taskiq[1]}, "
        f"Celery with threads {threads[0]} and {threads[1]}"
    )
    assert readme_says(
        f"a job costs Redis {latency(OURS).steady_redis_cpu_us:.0f} µs in {latency(OURS).steady_redis_commands:.0f} "
        f"commands, enqueuing and one subscriber included; with taskiq {latency(TASKIQ).steady_redis_cpu_us:.0f}, "
        f"with Celery {min(costs):.0f} to {max(costs):.0f}"
    )


def test_start_and_memory_are_those_of_the_last_runs() -> None:
    flat = json.loads((RESULTS / "flat.json").read_text("utf-8"))
    start = median(RUN.of(OURS, 50), "start_seconds")
    last = max(mib for _, mib in flat["samples"])

    assert readme_says(f"Its first event is out {start:.1f} s after its start")
    assert readme_says(f"Over {flat['jobs']:,} jobs in {flat['seconds']} seconds")
    assert readme_says(
        f"grew by {flat['growth_mib']:.2f} MiB after the first {flat['warm_up_jobs']:,}, to {last:.1f} MiB"
    )


@pytest.mark.parametrize("point", SCALE["points"], ids=lambda point: f"{point['workers']} at {point['median_ms']} ms")
def test_each_point_of_the_model_stands_in_the_page(point: dict[str, Any]) -> None:
    model, speed = SCALE["model"], point["jobs_per_second"]
    predicted = model["per_job_us"] + point["calls_per_second"] * model["per_call_us"] / speed

    row = (
        f"| {point['median_ms']:,} ms | {point['workers']} | {speed:,.0f} | {point['redis_cpu_us_per_job']:.0f} us "
        f"| {point['calls_per_job']:.2f} | {predicted:.0f} us |"
    )
    assert row in SCALING


def test_the_model_itself_and_what_follows_from_it_stand_in_the_page() -> None:
    model, points, text = SCALE["model"], SCALE["points"], " ".join(SCALING.split())
    slow = [point for point in points if point["median_ms"] == max(each["median_ms"] for each in points)]

    def off(point: dict[str, Any]) -> float:
        """How much more a job costs than the model says, in percent."""
        says = model["per_job_us"] + point["calls_per_job"] * model["per_call_us"]
        return float(round((point["redis_cpu_us_per_job"] / says - 1) * 100))

    assert (
        f"jobs x {model['per_job_us']:.0f} us + script calls x {model['per_call_us']:.0f} us "
        f"+ idle workers x {model['per_idle_worker_us_per_second'] / 1000:.1f} ms"
    ) in text
    worst = max(points, key=off)
    assert worst in slow
    assert f"up to {off(worst):.0f} % more than the model says" in text
    jobs_per_second = round(model["carries"]["jobs_per_second"], -3)
    assert f"carries about {jobs_per_second:,.0f} jobs/s of busy pods that have a core each" in text
    steady = round(latency(OURS).steady_redis_cpu_us)
    assert f"a job cost {steady} us, enqueuing and one subscriber included" in text


@pytest.mark.parametrize("timing", BACKLOG["timings_us"], ids=lambda timing: timing["move"])
def test_each_moves_time_with_a_backlog_stands_in_the_page(timing: dict[str, Any]) -> None:
    row = (
        f"| {timing['move']} | {timing['jobs_a_call']:.0f} | {timing['p50_us'] / 1000:.1f} ms "
        f"| {timing['p99_us'] / 1000:.1f} ms |"
    )
    assert row in SCALING
