"""``lock-worker``: the program, with all its commands.

The module of a command has its options, and imports everything else only when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import codecs
import gc
import importlib.metadata
import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.adopt.command import adopt
from worker.cli.audit.command import audit
from worker.cli.cancel.command import cancel
from worker.cli.dead.command import dead
from worker.cli.demo.command import demo
from worker.cli.doctor.command import doctor
from worker.cli.enqueue.command import enqueue
from worker.cli.exit import report_output_errors
from worker.cli.exporter.command import exporter
from worker.cli.hold.command import hold
from worker.cli.holds.command import holds
from worker.cli.pause.command import pause
from worker.cli.ping.command import ping
from worker.cli.release.command import release
from worker.cli.replay.command import replay
from worker.cli.resume.command import resume
from worker.cli.run import run
from worker.cli.show.command import show
from worker.cli.status.command import status
from worker.cli.watch.command import watch
from worker.cli.workers.command import workers
from worker.observe.printable import escape_unencodable

app = typer.Typer(
    name="lock-worker",
    help="Locks conversations: takes jobs from Redis, calls the Managem API, and publishes exactly one result event "
    "per job. Settings are environment variables, such as REDIS_URL.",
    epilog="See it work, with no other set-up: lock-worker demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    *,
    is_version_asked_for: Annotated[bool, typer.Option("--version", help="Print the version, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: as JSON, for programs.")] = False,
) -> None:
    if is_version_asked_for:
        version = importlib.metadata.version("lock-worker")
        typer.echo(json.dumps({"version": version}) if as_json else f"lock-worker {version}")
        raise typer.Exit
    if as_json:
        raise typer.BadParameter("--json goes with --version here; that of a command stands behind its name")
    if context.invoked_subcommand is None:
        context.fail("Missing command.")


app.command(
    epilog="Example: lock-worker run -c 50 -E",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    options_metavar="[CELERY WORKER OPTIONS]",
)(run)
app.command(epilog="Example: lock-worker enqueue c-1 c-2 --rule-id off-platform-payment")(enqueue)
app.command(epilog="Example: lock-worker watch --json --from-start | jq .data.outcome")(watch)
app.command(epilog="Example: lock-worker show --conversation c-42 --json | jq '.[].state'")(show)
app.command(epilog="Example: lock-worker status --json | jq .ready.total")(status)
app.command(epilog="Example: lock-worker workers --json | jq length")(workers)
app.command(epilog="Example: lock-worker audit --json | jq .queues[].terms")(audit)
app.command(epilog="Example: lock-worker doctor --json | jq '.checks[] | select(.level != \"ok\")'")(doctor)
app.command(epilog="Example: lock-worker ping --ready")(ping)
app.add_typer(dead, name="dead")
app.command(epilog="Example: lock-worker replay --outcome exhausted --priority 9")(replay)
app.command(epilog='Example: lock-worker pause --for 10m --reason "the API is being moved"')(pause)
app.command(epilog="Example: lock-worker resume")(resume)
app.command(epilog='Example: lock-worker hold --rule r-7 --for 2h --reason "it locks too much"')(hold)
app.command(epilog="Example: lock-worker release --rule r-7")(release)
app.command(epilog="Example: lock-worker holds --json | jq .holds[].held")(holds)
app.command(epilog='Example: lock-worker cancel --rule r-7 --for 1h --reason "it ran wild"')(cancel)
app.command(epilog="Example: lock-worker adopt --list")(adopt)
app.command(epilog="Example: HEALTH_PORT=9100 lock-worker exporter")(exporter)
app.command(epilog="Example: lock-worker demo --jobs 1000 --latency-ms 20")(demo)


def main() -> None:
    """Run the command that the arguments name."""
    gc.set_threshold(10_000)  # or Python would look for cycles hundreds of times while the libraries of a command load
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the shell closed it (>&-), and no code expects None
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the end of the process
    codecs.register_error(escape_unencodable.__name__, escape_unencodable)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=escape_unencodable.__name__)
    with report_output_errors():
        app()
