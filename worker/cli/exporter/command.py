"""``lock-worker exporter``: serves the metrics of the fleet."""

from __future__ import annotations

from worker.cli.exit import FAILED, fail, load_settings


def exporter() -> None:
    """Serve the metrics of the fleet, also while no worker runs.

    They are those of LOCK_QUEUE, its streams and its workers, the same as every worker serves: what to scale on from
    zero. It listens on HEALTH_HOST and HEALTH_PORT (GET /metrics, /livez, /readyz), reads Redis every three seconds,
    and needs no token. It ends on SIGTERM.
    """
    import asyncio  # noqa: PLC0415 - slow to import, and --help is quick
    import logging  # noqa: PLC0415 - as above
    import sys  # noqa: PLC0415 - as above

    from worker.cli.exporter.export import export  # noqa: PLC0415 - as above
    from worker.observe import logs  # noqa: PLC0415 - as above
    from worker.observe.health import PortError  # noqa: PLC0415 - as above

    settings = load_settings()
    if not settings.HEALTH_PORT:
        fail("HEALTH_PORT: 0 is for none, and the exporter needs one")
    logs.configure(settings.LOG_FORMAT, logging.INFO, sys.stderr)
    try:
        asyncio.run(export(settings))
    except PortError as error:
        fail(f"the exporter does not start: {error}", FAILED)
