"""``lock-worker hold``: jobs of a rule, an actor, a policy or a conversation are set aside until they are released."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.controls import options
from worker.cli.exit import load_settings


def hold(
    *,
    rule: options.Rule = None,
    actor: options.Actor = None,
    policy: options.Policy = None,
    conversation: options.Conversation = None,
    seconds: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="So long (90s, 10m, 1h30m, 2d); else until released.")
    ] = None,
    reason: options.Reason,
    as_json: options.AsJson = False,
) -> None:
    """Set jobs aside, such as those of a rule; all others go on.

    A job must match all options that are given. It is set aside when a worker takes it, and before each call for it.
    No call is made for it, it grows no older, and it is kept until lock-worker release, or until the time is over:
    then it goes on. A call that is under way is not stopped. A second hold with the same options takes the place of the
    first.

    The command waits until every registered worker has said that it obeys, and exits with status 1 if some have not
    done so within 15 seconds; the hold stands all the same.
    """
    selector = options.read_selector(rule=rule, actor=actor, policy=policy, conversation=conversation)
    options.require_selector(selector)
    why, span = options.read_reason(reason), options.read_seconds(seconds)
    settings = load_settings()

    from worker.cli.controls import answers  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.controls.steering import steering  # noqa: PLC0415 - as above
    from worker.message.controls import Control  # noqa: PLC0415 - as above

    with steering(settings) as fleet:
        control = Control("hold", selector, fleet.note(why, span))
        before = fleet.read().find(control)
        done = fleet.set(control, fleet.event("held", control.note, selector=selector.fields))
        said = f"Jobs that match {answers.shown(selector)} are held {answers.until(control.note, 'they are released')}."
        if before is not None and before.note.is_in_force(control.note.at_ms):
            said += f" This takes the place of the hold {answers.by_whom(before.note)}"
        answers.finish(
            fleet, done, control.note, said=said, what="the hold", as_json=as_json,
            action="held", selector=selector.fields,
        )  # fmt: skip
