"""``lock-worker release``: ends a hold, and its jobs go on; or a cancel for jobs to come."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.controls import options
from worker.cli.exit import load_settings


def release(
    *,
    rule: options.Rule = None,
    actor: options.Actor = None,
    policy: options.Policy = None,
    conversation: options.Conversation = None,
    is_cancel: Annotated[
        bool, typer.Option("--cancel", help="End a cancel for jobs to come (cancel --for) instead of a hold.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --cancel: end the cancel of all jobs.")] = False,
    reason: options.OptionalReason = None,
    as_json: options.AsJson = False,
) -> None:
    """End a hold: the jobs that it has set aside go on.

    Give the same options as to lock-worker hold; lock-worker holds lists them. The jobs go on within about a second,
    500 at a time, as fast as the workers take them; another hold that matches keeps its own. Each job's expiry is
    looked at then. Also the hold of a rule that went beyond its limit is ended so.

    It exits with status 1 if there is no such hold.
    """
    selector = options.read_selector(rule=rule, actor=actor, policy=policy, conversation=conversation)
    if everything and not is_cancel:
        raise typer.BadParameter("--all is for --cancel: holds are ended one by one, with the options that they have")
    if everything and selector.fields:
        raise typer.BadParameter("give --all, or the options of one cancel, and not both")
    if not everything:
        options.require_selector(selector, or_all=", or --all" if is_cancel else "")
    why = "" if reason is None else options.read_reason(reason)
    settings = load_settings()

    from worker.cli.release.release import release_jobs  # noqa: PLC0415 - slow to import, and --help is quick

    release_jobs(settings, selector, "cancel" if is_cancel else "hold", why, as_json=as_json)
