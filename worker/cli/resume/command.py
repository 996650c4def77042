"""``lock-worker resume``: ends a pause, whether an operator or the API asked for it."""

from __future__ import annotations

from worker.cli.controls import options
from worker.cli.exit import load_settings


def resume(*, reason: options.OptionalReason = None, as_json: options.AsJson = False) -> None:
    """Let all workers of the fleet take jobs again.

    It ends an operator's pause, and also one that the API has asked for (Retry-After): the next calls show whether the
    API accepts them. Holds stay. If there is no pause, it says so, and that is no error.
    """
    why = "" if reason is None else options.read_reason(reason)
    settings = load_settings()

    from worker.cli.controls import answers  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.controls.steering import steering  # noqa: PLC0415 - as above

    with steering(settings) as fleet:
        before = fleet.read().pause
        note = fleet.note(why)
        done = fleet.resume(note)
        said = "The fleet goes on." if done.is_changed else "There was no pause."
        if done.is_changed and before is not None:
            said += f" It was paused {answers.by_whom(before)}"
        answers.finish(fleet, done, note, said=said, what="it", as_json=as_json, action="resumed")
