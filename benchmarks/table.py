"""The report as tables in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.results import median

if TYPE_CHECKING:
    from benchmarks.results import Latency, Report, Throughput


def markdown(report: Report, main_ms: int) -> str:
    """All tables. Rows are sorted by their throughput at the delay ``main_ms``, or by what they add to a job's time."""
    names = sorted(
        {run.row for run in report.throughput},
        key=lambda name: -median(report.of(name, main_ms), "jobs_per_second") if report.of(name, main_ms) else 0,
    )
    delays = sorted({run.median_ms for run in report.throughput})
    parts = [_about(report, main_ms), _throughput(report, names, delays, main_ms)]
    disturbed, runs, cores = report.disturbed()
    if disturbed:
        parts.insert(0, f"**{disturbed} of {runs} runs were disturbed: other programs used up to {cores:.1f} cores. "
                        "Repeat this on a quiet machine before quoting a number.**")  # fmt: skip
    if report.latency:
        parts.append(
            f"At low load, API of {main_ms} ms, one run a row. CPU, commands and reads at 100 jobs/s include the "
            "enqueuing of the jobs, the delivery to a subscriber, and what both programs do beside the jobs."
        )
        parts.append(_latency(report))
    if report.failures:
        parts.append("Not measured:\n\n" + "\n".join(
            f"- {failure['row']}, {failure['what']}: {failure['why'].splitlines()[0]}" for failure in report.failures
        ))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _about(report: Report, main_ms: int) -> str:
    machine, redis = report.conditions["machine"], report.conditions["redis"]
    return (
        f"{machine['cores']} cores ({machine['cpu']}), Python {machine['python']}, {redis['server']}, "
        f"{machine['began'][:10]}. Jobs a second are medians of {report.conditions['rounds']} rounds (lowest to "
        f"highest); costs, memory and start are medians too, at {main_ms} ms. How it was measured: "
        "[../README.md](../README.md)."
    )


def _throughput(report: Report, names: list[str], delays: list[int], main_ms: int) -> str:
    head = ["", *(f"jobs/s at {delay} ms" for delay in delays)]
    head += ["worker CPU µs/job", "Redis CPU µs/job", "Redis commands/job", "Redis reads/job", "memory MiB"]
    head += ["start to first event s"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for name in names:
        main = report.of(name, main_ms)
        cells = [name, *(_rate(report.of(name, delay)) for delay in delays)]
        cells += [
            f"{median(main, field):.{digits}f}" if main else "-"
            for field, digits in (
                ("worker_cpu_us", 0), ("redis_cpu_us", 0), ("redis_commands", 1), ("redis_reads", 1), ("memory_mib", 0),
                ("start_seconds", 2),
            )
        ]  # fmt: skip
        lines.append(_line(cells))
    return "\n".join(lines)


def _latency(report: Report) -> str:
    head = [
        "", "p50 / p99 ms at 100 jobs/s", "added, p50 / p99", "p50 / max ms at idle", "added, p50 / max",
        "worker CPU µs/job at 100 jobs/s", "Redis CPU µs/job at 100 jobs/s", "commands/job", "reads/job",
        "nothing to do: worker CPU ms/s", "Redis commands/s", "Redis reads/s",
    ]  # fmt: skip
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    lines += [_line(_low_load(run)) for run in sorted(report.latency, key=lambda run: run.steady_added_p50_ms)]
    return "\n".join(lines)


def _low_load(run: Latency) -> list[str]:
    return [
        run.row,
        f"{run.steady_p50_ms:.0f} / {run.steady_p99_ms:.0f}",
        f"{run.steady_added_p50_ms:.1f} / {run.steady_added_p99_ms:.1f}",
        f"{run.idle_p50_ms:.0f} / {run.idle_max_ms:.0f}",
        f"{run.idle_added_p50_ms:.1f} / {run.idle_added_max_ms:.1f}",
        f"{run.steady_worker_cpu_us:.0f}",
        f"{run.steady_redis_cpu_us:.0f}",
        f"{run.steady_redis_commands:.1f}",
        f"{run.steady_redis_reads:.1f}",
        f"{run.nothing_to_do_worker_cpu_ms_per_second:.0f}",
        f"{run.nothing_to_do_redis_commands_per_second:.0f}",
        f"{run.nothing_to_do_redis_reads_per_second:.0f}",
    ]


def _rate(runs: list[Throughput]) -> str:
    if not runs:
        return "-"
    rates = [run.jobs_per_second for run in runs]
    middle = f"{median(runs, 'jobs_per_second'):,.0f}"
    return middle if len(runs) == 1 else f"{middle} ({min(rates):,.0f} to {max(rates):,.0f})"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
