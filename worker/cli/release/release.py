"""Ends a hold, or a cancel for jobs to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.controls import answers
from worker.cli.controls.steering import steering
from worker.cli.exit import fail
from worker.message.controls import Control

if TYPE_CHECKING:
    from settings import Settings
    from worker.cli.controls.steering import Steering
    from worker.message.controls import Kind
    from worker.message.selector import Selector


def release_jobs(settings: Settings, selector: Selector, kind: Kind, reason: str, *, as_json: bool) -> None:
    """End what a selector names. Exits with status 1 if there is nothing of that kind."""
    with steering(settings) as fleet:
        control = Control(kind, selector, fleet.note(reason))
        before = fleet.read().find(control)
        event = fleet.event("released", control.note, kind=kind, selector=selector.fields)
        done = fleet.remove(control, event)
        if not done.is_changed:
            fail(f"there is no {kind} of jobs that match {selector}\n{_advice(fleet, control)}")
        said = f"The {kind} of jobs that match {answers.shown(selector)} is ended."
        if kind == "hold":
            said += " Its jobs go on."
        if before is not None:
            said += f" It was made {answers.by_whom(before.note)}"
        answers.finish(
            fleet, done, control.note, said=said, what="that", as_json=as_json,
            action="released", kind=kind, selector=selector.fields,
        )  # fmt: skip


def _advice(fleet: Steering, control: Control) -> str:
    found = fleet.read()
    if control.kind == "hold" and found.find(Control("cancel", control.selector, control.note)) is not None:
        return "There is a cancel of them for jobs to come: lock-worker release --cancel ends it."
    same = [each.selector for each in found.controls if each.kind == control.kind]
    if not same:
        return f"There is no {control.kind} at all."
    return "lock-worker holds lists what there is; give the same options."
