"""``lock-worker audit``: adds up what became of all jobs that were taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.controls import options
from worker.cli.exit import FAILED, load_settings, redis_address, redis_or_stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from settings import Settings
    from worker.cli.audit.report import Audited

#: Up to so many jobs that did not end their records are looked at without being asked to: that takes some seconds.
_FEW_JOBS = 100_000


def audit(
    *,
    deep: Annotated[
        bool | None,
        typer.Option("--deep/--no-deep", help="Look whether each job has its record; the default below 100,000 jobs."),
    ] = None,
    acknowledge: Annotated[
        bool, typer.Option("--acknowledge", help="Note that the vanished jobs are known; needs --reason.")
    ] = False,
    reason: options.OptionalReason = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Check that no job is lost: add up what became of all of them.

    It may run at any time, also under load. It counts the jobs that workers took:

    taken = finished + duplicates dropped + vanished + in flight + delayed + due + requeued + retries + suspects + held,
    for each queue of the fleet, at one moment. It changes nothing and needs no token. The exit status is 0 if the sum
    is right and no job lost its record, else 1. Vanished jobs that were sent again, or given up, are acknowledged with
    --acknowledge --reason: that is noted in the control stream, and from then on only further ones count.
    """
    if acknowledge != (reason is not None):
        raise typer.BadParameter("--acknowledge and --reason go together: say why the vanished jobs are accounted for")
    why = None if reason is None else options.read_reason(reason)
    settings = load_settings()
    found = _found(settings, why, deep=deep)
    is_right = not any(each.breaches for each in found)
    _show(settings, found, is_right=is_right, as_json=as_json)
    raise typer.Exit(0 if is_right else FAILED)


def _found(settings: Settings, reason: str | None, *, deep: bool | None) -> list[Audited]:
    """Return what an audit finds, after it has acknowledged the vanished jobs if there is a reason to."""
    from worker.broker.connection import sync_client  # noqa: PLC0415 - slow to import, and --help is quick

    with redis_or_stop(settings), sync_client(settings) as client:
        found = _audit(client, settings, deep=deep)
        if reason is None:
            return found
        from worker.cli.audit.acknowledge import acknowledge  # noqa: PLC0415 - as above

        acknowledge(settings, found, reason)
        return _audit(client, settings, deep=deep)


def _show(settings: Settings, found: Sequence[Audited], *, is_right: bool, as_json: bool) -> None:
    import json  # noqa: PLC0415 - slow to import, and --help is quick

    from worker.cli.audit import report  # noqa: PLC0415 - as above

    if as_json:
        queues = [report.as_json(each) for each in found]
        typer.echo(json.dumps({"ok": is_right, "redis": redis_address(settings), "queues": queues}))
    else:
        typer.echo("\n\n".join("\n".join(report.lines(each)) for each in found))


def _audit(client: Redis, settings: Settings, *, deep: bool | None) -> list[Audited]:
    from worker.broker.keys import Keys  # noqa: PLC0415 - as above
    from worker.cli.audit.records import check_records  # noqa: PLC0415 - as above
    from worker.cli.audit.report import audited  # noqa: PLC0415 - as above
    from worker.cli.audit.snapshot import queues_of, read_snapshot  # noqa: PLC0415 - as above

    fleet, found = Keys(settings.LOCK_QUEUE), []
    for keys in queues_of(client, fleet):
        snapshot = read_snapshot(client, keys, fleet)
        is_deep = snapshot.kept < _FEW_JOBS if deep is None else deep
        found.append(audited(snapshot, check_records(client, keys) if is_deep else None))
    return found
