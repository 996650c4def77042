"""``lock-worker demo``: the whole system on one machine."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    *,
    jobs: Annotated[int, typer.Option(min=40, max=10_000, metavar="N", help="Messages to send.")] = 300,
    latency_ms: Annotated[
        float, typer.Option(min=0, max=1000, metavar="MS", help="How long the API takes for an answer.")
    ] = 50,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave all of it running until Ctrl-C, to try other commands on it."),
    ] = False,
) -> None:
    """See it work, with no other set-up.

    Starts a Redis server, a Managem API that fails now and then, and a worker; sends good and bad jobs; shows what
    comes of them; and accounts for every one. The status is 0 only if all of it adds up. Stops all that it started.
    """
    from worker.cli.demo.runner import run_demo  # noqa: PLC0415 - slow to import, and --help is quick

    run_demo(jobs, latency_ms, keep=keep)
