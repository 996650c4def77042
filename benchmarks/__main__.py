"""The run: every row in turn, in one go, on one machine.

    python -m benchmarks                    # all of it, about half an hour
    python -m benchmarks --quick            # one short round at 50 ms
    python -m benchmarks --only lock-worker bare --delays 50
    python -m benchmarks --tables           # nothing is run: the tables and plots of the published results

Only a run of everything replaces the published results; a smaller one goes to ``.logs/``, unless ``--out`` says where.

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
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.rows import Row

Measured = TypeVar("Measured", results.Throughput, results.Latency)

HERE = Path(__file__).parent
LOGS = HERE / ".logs"
#: The results of a run of everything, which README and docs quote.
PUBLISHED = HERE / "results" / "latest.json"
#: Those of any smaller run.
SMALLER = LOGS / "smaller-run.json"
MAIN_MS = 50
SEED = 7
_FULL = {"delays": [0, 50, 200], "rounds": 3, "seconds": 3, "idle_jobs": 12, "again": 1}
_QUICK = {"delays": [MAIN_MS], "rounds": 1, "seconds": 2, "idle_jobs": 6, "again": 0}


def main(arguments: Sequence[str]) -> None:
    """Run, and write results, tables and plots."""
    options = read_options(arguments)
    # As Ctrl-C, also where that is ignored, as in the background of a shell: so all that was started is ended.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out: Path = options.out
    if options.tables:
        _show(results.read(out), out)
        return
    rows: list[Row] = options.rows
    for row in rows:
        _ = row.python  # environments are made before anything is measured
    LOGS.mkdir(exist_ok=True)
    report = Report(conditions=_conditions(options), rows={row.name: _describe(row) for row in rows})
    try:
        with Stage(options.delays, SEED, LOGS) as stage:
            for median_ms in _plan(options):
                for row in (row for row in rows if row.has_throughput):
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


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with what it leaves open filled in.

    Only a run of everything goes to the published results, unless ``--out`` says where; any smaller one goes to a file
    that git ignores.

    Raises:
        SystemExit: an argument is wrong; it is named before anything is measured.
    """
    left_open = argparse.SUPPRESS
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PART", default=[], help="rows whose names hold one of these")
    parser.add_argument("--quick", action="store_true", help="one round of 2 seconds at 50 ms, and short latencies")
    parser.add_argument("--delays", type=_whole(0), nargs="+", default=left_open, help="medians of the API, in ms")
    parser.add_argument("--rounds", type=_whole(1), default=left_open, help="runs of each row at each delay")
    parser.add_argument("--seconds", type=_whole(1), default=left_open, help="how long a run is measured")
    parser.add_argument("--idle-jobs", type=_whole(1), default=left_open, help="single jobs of the latency at idle")
    parser.add_argument("--no-latency", dest="latency", action="store_false", help="throughput only")
    parser.add_argument("--wait", type=float, default=10.0, help="seconds to wait for a quiet machine before each run")
    parser.add_argument("--again", type=_whole(0), default=left_open, help="repeat a disturbed run so often")
    parser.add_argument("--out", type=Path, help="the JSON file of the results")
    parser.add_argument("--tables", action="store_true", help="run nothing: show what is in --out")
    given = parser.parse_args(arguments)
    options = argparse.Namespace(**{**(_QUICK if given.quick else _FULL), **vars(given)})
    options.rows = [row for row in ROWS if not options.only or any(part in row.name for part in options.only)]
    if not options.rows:
        parser.error(f"--only: no row's name holds {' or '.join(options.only)}; the rows are in benchmarks/rows.py")
    if options.out is None:
        is_smaller = options.only or not options.latency or any(vars(options)[name] != _FULL[name] for name in _FULL)
        options.out = SMALLER if is_smaller and not options.tables else PUBLISHED
    if options.out.is_dir():
        parser.error(f"--out: {options.out} is a folder; name a file in it, such as {options.out / PUBLISHED.name}")
    if options.tables and not options.out.is_file():
        parser.error(f"--tables: there is no {options.out}; run without --tables first")
    return options


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, and is {text}")
        return int(text)

    return read


if __name__ == "__main__":
    main(sys.argv[1:])
