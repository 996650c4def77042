"""``lock-worker cancel``: jobs end as cancelled instead of being called."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.controls import options
from worker.cli.exit import load_settings

_MAX_ID = 128


def cancel(
    *,
    job_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB_ID", hidden=True),  # typer would call it <list[str]>
    ] = None,
    rule: options.Rule = None,
    actor: options.Actor = None,
    policy: options.Policy = None,
    conversation: options.Conversation = None,
    everything: Annotated[bool, typer.Option("--all", help="All jobs that there are. It asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    seconds: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Also jobs that come within that time (10m, 2d).")
    ] = None,
    reason: options.Reason,
    as_json: options.AsJson = False,
) -> None:
    """End jobs without a call.

    Each ends in its one event, with the outcome cancelled, who cancelled it and why. Choose them by job ids, or by
    options that must all match, or take them all. Ready, delayed and held jobs end without a call. A call that is under
    way is not stopped: if it confirms the lock, the job ends as locked; if it fails, the job ends as cancelled, with a
    dead letter that says that the conversation may be locked.

    Job ids are remembered for a day at least, or JOB_MAX_AGE_SECONDS, or --for, if that is longer, also if the job is
    not there yet. With options, or --all, the command first sees every registered worker obey, and then looks through
    all jobs of all queues of the fleet; with --for it also holds for jobs that come later.
    """
    selector = options.read_selector(rule=rule, actor=actor, policy=policy, conversation=conversation)
    ids = list(dict.fromkeys(job_ids or ()))
    if sum((bool(ids), bool(selector.fields), everything)) != 1:
        raise typer.BadParameter(
            "say which jobs: job ids, or options such as --rule, or --all, and only one of the three"
        )
    wrong = next((job_id for job_id in ids if not (0 < len(job_id) <= _MAX_ID and job_id.isprintable())), None)
    if wrong is not None:
        raise typer.BadParameter(f"a job id has 1 to {_MAX_ID} printable characters: {wrong[:_MAX_ID]!a} is none")
    if yes and not everything:
        raise typer.BadParameter("--yes is for --all")
    why, span = options.read_reason(reason), options.read_seconds(seconds)
    settings = load_settings()

    from worker.cli.cancel.by_id import cancel_ids  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.cancel.by_selector import cancel_matching  # noqa: PLC0415 - as above
    from worker.cli.cancel.confirm import confirm_all  # noqa: PLC0415 - as above

    if everything and not yes:
        confirm_all(settings)
    if ids:
        cancel_ids(settings, ids, why, span, as_json=as_json)
    else:
        cancel_matching(settings, selector, why, span, as_json=as_json)
