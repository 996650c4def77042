"""``lock-worker exporter``: serves the metrics of the fleet."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.exit import FAILED, USAGE_ERROR, fail, load_settings


def exporter(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Log in JSON, whatever LOG_FORMAT says.")] = False,
) -> None:
    """Serve the metrics of the fleet, also while no worker runs.

    They are those of LOCK_QUEUE, its streams and its workers, the same as every worker serves: what to scale on from
    zero. It listens on HEALTH_HOST and HEALTH_PORT (GET /metrics, /livez, /readyz), reads Redis every three seconds,
    and needs no token. It ends on SIGTERM, and at its start if REDIS_URL leads to no usable server.
    """
    import logging  # noqa: PLC0415 - slow to import, and --help is quick
    import sys  # noqa: PLC0415 - as above

    import uvloop  # noqa: PLC0415 - as above

    from worker.broker.refusals import ServerIsUnfitError  # noqa: PLC0415 - as above
    from worker.cli.exporter.export import export  # noqa: PLC0415 - as above
    from worker.observe import logs  # noqa: PLC0415 - as above
    from worker.observe.health import PortError  # noqa: PLC0415 - as above

    settings = load_settings()
    if not settings.HEALTH_PORT:
        fail("HEALTH_PORT: 0 is for none, and the exporter needs one", USAGE_ERROR)
    logs.configure("json" if as_json else settings.LOG_FORMAT, logging.INFO, sys.stderr)
    try:
        uvloop.run(export(settings))
    except PortError as error:
        fail(f"the exporter does not start: {error}", FAILED)
    except ServerIsUnfitError:  # it is logged, as a worker does
        raise typer.Exit(FAILED) from None
