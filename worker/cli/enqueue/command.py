"""``lock-worker enqueue``: sends jobs, a few by hand or millions from a file; none if one is invalid."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.exit import load_settings

_STDIN = "-"


def enqueue(
    *,
    conversation_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONVERSATION_ID", hidden=True),  # typer would call it <list[str]>
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Read jobs from a file (-: standard input), one a line: a conversation id, as it is or as a JSON "
            "string, or a JSON object with a job's fields.",
        ),
    ] = None,
    rule_id: Annotated[str | None, typer.Option(metavar="TEXT", help="The moderation rule that fired.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for people.")] = None,
    policies: Annotated[
        list[str] | None, typer.Option("--policy", metavar="TEXT", help="A policy behind the rule; may be repeated.")
    ] = None,
    actor: Annotated[str | None, typer.Option(metavar="TEXT", help="The service or moderator that asks.")] = None,
    correlation_id: Annotated[str | None, typer.Option(metavar="TEXT", help="Your own key.")] = None,
    requested_at: Annotated[str | None, typer.Option(metavar="TIME", help="When the rule fired (RFC 3339).")] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object that the event gives back unchanged.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but the call.")] = False,
    priority: Annotated[int | None, typer.Option(min=0, max=9, metavar="0..9", help="0 goes first.")] = None,
    eta: Annotated[str | None, typer.Option(metavar="TIME", help="Not before this time (RFC 3339).")] = None,
    countdown: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Not before so many seconds from now.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME|SECONDS", help="Not after this time, or so many seconds from now.")
    ] = None,
    job_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The job's id, if there is only one; else each gets a new one.")
    ] = None,
) -> None:
    """Send jobs to the queue, and print their ids, one a line.

    The conversation ids are arguments or lines of a file (- as the only argument: standard input). The options apply
    to every job; a JSON line may set fields of its own. If a job is not valid, nothing is sent.
    """
    ids = conversation_ids or []
    if ids == [_STDIN] and file is None:
        ids, file = [], _STDIN
    if bool(ids) == (file is not None):
        raise typer.BadParameter("give conversation ids or --file FILE, and not both")
    if _STDIN in ids:
        raise typer.BadParameter("- stands for standard input, and so for the only argument")
    settings = load_settings()

    from worker.cli.enqueue import job_input, job_options, send  # noqa: PLC0415 - slow to import, and --help is quick

    common = job_options.fields(
        rule_id=rule_id,
        reason=reason,
        policies=policies or None,
        actor=actor,
        correlation_id=correlation_id,
        requested_at=requested_at,
        metadata=metadata,
        dry_run=dry_run or None,
    )
    options = job_options.message_options(
        priority=priority, eta=eta, countdown=countdown, expires=expires, job_id=job_id
    )
    with job_input.of_arguments(ids, common) if file is None else job_input.of_file(file, common) as read:
        total = send.check(read(), needs_one=job_id is not None)
        send.send(settings, read(), total, options)
