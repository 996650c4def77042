"""The run: every row in turn, in one go, on one machine.

    python -m benchmarks                    # all of it, about half an hour
    python -m benchmarks --quick            # one short round at 50 ms
    python -m benchmarks --only lock-worker bare --delays 50
    python -m benchmarks --tables           # nothing is run: the tables and plots of the last results

Rounds are interleaved: each row runs once before any runs again, so that a machine whose speed drifts drifts for all.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks import environments, latency, plots, quiet, results, table, throughput
from benchmarks.results import Report
from benchmarks.rows import ROWS
from benchmarks.server import version
from benchmarks.stage import REDIS_OPTIONS, STOCK_POOL, Stage, StageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.rows import Row

Measured = TypeVar("Measured", results.Throughput, results.Latency)

HERE = Path(__file__).parent
LOGS = HERE / ".logs"
RESULTS = HERE / "results"
MAIN_MS = 50
SEED = 7


def main() -> None:
    """Run, and write results, tables and plots."""
    options = _options()
    # As Ctrl-C, also where that is ignored, as in the background of a shell: so all that was started is ended.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out: Path = options.out
    if options.tables:
        _show(results.read(out), out)
        return
    rows = [row for row in ROWS if not options.only or any(part in row.name for part in options.only)]
    for row in rows:
        _ = row.python  # environments are made before anything is measured
    LOGS.mkdir(exist_ok=True)
    report = Report(conditions=_conditions(options), rows={row.name: _describe(row) for row in rows})
    try:
        with Stage(options.delays, SEED, LOGS) as stage:
            for median_ms in _plan(options):
                for row in rows:
                    _throughput(report, stage, row, median_ms, options)
            if options.latency:
                for row in rows:
                    if row.producer is not None:  # without a queue there is no enqueuing
                        _latency(report, stage, row, options)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; what was measured so far is kept.\n")
    report.write(out)
    if report.throughput:
        _show(report, out)


def _plan(options: argparse.Namespace) -> Iterator[int]:
    """The delays, once in each round."""
    for _ in range(options.rounds):
        yield from options.delays


def _throughput(report: Report, stage: Stage, row: Row, median_ms: int, options: argparse.Namespace) -> None:
    def run() -> results.Throughput:
        return throughput.measure(stage, row, median_ms=median_ms, window_seconds=options.seconds)

    best = _least_disturbed(report, row, f"throughput at {median_ms} ms", run, options)
    if best is not None:
        report.throughput.append(best)
        _say(
            f"{row.name:36} {median_ms:4} ms {best.jobs_per_second:7.0f} jobs/s   worker {best.worker_cpu_us:6.0f} us, "
            f"Redis {best.redis_cpu_us:5.0f} us and {best.redis_commands:4.1f} commands a job, "
            f"{best.memory_mib:4.0f} MiB{_warning(best)}"
        )


def _latency(report: Report, stage: Stage, row: Row, options: argparse.Namespace) -> None:
    def run() -> results.Latency:
        return latency.measure(
            stage,
            row,
            median_ms=_main_ms(options),
            steady_seconds=options.seconds + 1,
            idle_jobs=options.idle_jobs,
        )

    best = _least_disturbed(report, row, "latency", run, options)
    if best is not None:
        report.latency.append(best)
        _say(
            f"{row.name:36} added at 100 jobs/s: p50 {best.steady_added_p50_ms:5.1f} ms, p99 "
            f"{best.steady_added_p99_ms:5.1f} ms; at idle: p50 {best.idle_added_p50_ms:5.1f} ms, max "
            f"{best.idle_added_max_ms:5.1f} ms{_warning(best)}"
        )


def _least_disturbed(
    report: Report, row: Row, what: str, run: Callable[[], Measured], options: argparse.Namespace
) -> Measured | None:
    """Run until others left the machine alone, or often enough; what failed is noted."""
    best: Measured | None = None
    for _ in range(1 + options.again):
        quiet.wait_until_quiet(options.wait)
        try:
            found = run()
        except (throughput.RunFailedError, StageError) as error:
            report.failures.append({"row": row.name, "what": what, "why": str(error)})
            _say(f"{row.name:36} failed: {error}")
            continue
        if best is None or found.others_cores < best.others_cores:
            best = found
        if best.others_cores <= quiet.LIMIT_CORES:
            break
    return best


def _warning(run: results.Throughput | results.Latency) -> str:
    if run.others_cores <= quiet.LIMIT_CORES:
        return ""
    return f"   DISTURBED: others used {run.others_cores:.1f} cores"


def _main_ms(options: argparse.Namespace) -> int:
    return MAIN_MS if MAIN_MS in options.delays else int(options.delays[0])


def _conditions(options: argparse.Namespace) -> dict[str, object]:
    return {
        "machine": results.machine(),
        "redis": {"server": version(), "options": REDIS_OPTIONS},
        "upstream": {"seed": SEED, "medians_ms": options.delays, "stock_httpx_pool": STOCK_POOL},
        "window_seconds": options.seconds,
        "rounds": options.rounds,
        "disturbed_above_cores": quiet.LIMIT_CORES,
    }


def _describe(row: Row) -> dict[str, object]:
    return {
        "settings": row.settings,
        "command": ["python", *row.command],
        "variables": row.variables,
        "versions": environments.versions(row.environment),
        "jobs_enqueued_at_most_per_second": row.at_most,
    }


def _show(report: Report, out: Path) -> None:
    delays = {run.median_ms for run in report.throughput}
    main_ms = MAIN_MS if MAIN_MS in delays else min(delays)
    text = table.markdown(report, main_ms)
    out.with_suffix(".md").write_text(text)
    _say("\n" + text)
    for path in plots.draw(report, main_ms, out.parent):
        _say(f"wrote {path}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="PART", help="rows whose names hold one of these")
    parser.add_argument("--quick", action="store_true", help="one round of 2 seconds at 50 ms, and short latencies")
    parser.add_argument("--delays", type=int, nargs="+", default=[0, 50, 200], help="medians of the API's delay, in ms")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each row at each delay")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a run is measured")
    parser.add_argument("--idle-jobs", type=int, default=12, help="single jobs of the latency at idle")
    parser.add_argument("--no-latency", dest="latency", action="store_false", help="throughput only")
    parser.add_argument("--wait", type=float, default=10.0, help="seconds to wait for a quiet machine before each run")
    parser.add_argument("--again", type=int, default=1, help="repeat a run so often that others disturbed")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest.json", help="where the results go")
    parser.add_argument("--tables", action="store_true", help="run nothing: show what is in --out")
    options = parser.parse_args()
    if options.quick:
        options.delays, options.rounds, options.seconds, options.idle_jobs, options.again = [MAIN_MS], 1, 2.0, 6, 0
    return options


if __name__ == "__main__":
    main()
