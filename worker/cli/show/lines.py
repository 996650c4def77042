"""``lock-worker show`` for people: the state of a job in one line, what it is about, and its story."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.cli.controls.answers import by_whom
from worker.cli.durations import duration
from worker.cli.folding import folded
from worker.cli.show.story import story
from worker.cli.show.taken import time_at
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.cli.show.job_view import JobView, Place

_TIME = "%Y-%m-%d %H:%M:%S"
_NO_TIME = " " * len("2026-11-22 15:04:05")


def job_lines(view: JobView, now_ms: int) -> Iterator[str]:
    """Yield the lines about a job. No line is cut, so that no id is."""
    yield folded(printable(f"{view.job_id or 'a job without an id'}: {_state(view, now_ms)}"), 2)
    for name, value in _facts(view):
        yield folded(printable(f"  {name:<13} {value}"), 16)
    lines = [*story(view)]
    if lines:
        yield ""
    for time, text in lines:
        yield folded(printable(f"  {_local(time)}  {text}"), len(_NO_TIME) + 4)
    notes = [*_notes(view)]
    if notes:
        yield ""
    for note in notes:
        yield folded(printable(f"  {note}"), 4)


def _state(view: JobView, now_ms: int) -> str:
    if view.place is not None:
        return _place_state(view.place, now_ms)
    if view.end is not None:
        return f"ended as {view.end.result.outcome}{_ago(view.end.result.finished_at, now_ms)}"
    outcome = view.remembered.outcome if view.remembered else None
    if outcome is not None:
        return f"ended as {outcome}; its event is not in the stream any more"
    return "unknown"


def _place_state(place: Place, now_ms: int) -> str:
    match place.state:
        case "in_flight":
            left = ((place.lease_ms or now_ms) - now_ms) / 1000
            lease = f"its lease ends in {duration(left)}" if left >= 0 else f"its lease is over for {duration(-left)}"
            return f"in flight at {place.worker or 'a worker'}; {lease}"
        case "delayed":
            return f"delayed{_due(place, now_ms)}"
        case "held":
            since = "" if place.held_ms is None else f" for {duration((now_ms - place.held_ms) / 1000)}"
            return f"held{since}" + ("" if place.hold else "; its hold is ended, and it goes on in a moment")
        case _:
            return f"ready{_ready(place, now_ms)}"


def _ready(place: Place, now_ms: int) -> str:
    if place.where == "suspects":
        return f": it waits to be run alone, because {plural(place.crashes, 'worker')} died on it"
    if place.ref is not None:
        return f" again ({place.where}): it waits for a worker"
    ahead = (place.due_ms or 0) > now_ms
    return f" ({place.where}): no worker has taken it yet{_due(place, now_ms) if ahead else ''}"


def _due(place: Place, now_ms: int) -> str:
    if place.due_ms is None:
        return ""
    left = (place.due_ms - now_ms) / 1000
    when = time_at(place.due_ms).astimezone().strftime(_TIME)
    return f"; it is due in {duration(left)}, at {when}" if left >= 0 else f"; it is due since {duration(-left)}"


def _ago(finished_at: str, now_ms: int) -> str:
    try:
        seconds = now_ms / 1000 - datetime.fromisoformat(finished_at).timestamp()
    except (ValueError, OverflowError):
        return ""
    return f" {duration(seconds)} ago"


def _facts(view: JobView) -> Iterator[tuple[str, str]]:
    place, end = view.place, view.end
    if view.conversation_id is not None:
        yield "conversation", view.conversation_id
    rule = place.rule_id if place else end.result.rule_id if end else None
    if rule:
        yield "rule", rule
    queue = place.queue if place else end.queue if end else None
    if queue:
        yield "queue", queue
    attempts = place.attempts if place else end.result.attempts if end else None
    if attempts is not None:
        yield "calls", f"{attempts:,}"
    yield from _of_operators(view)
    if place and place.crashes:
        yield "workers died", f"{place.crashes:,}"
    if place and place.is_dry_run:
        yield "dry run", "yes"
    if end and (replayed := end.event["data"].get("replay_of")):
        yield "replay of", str(replayed)
    if end and end.letter:
        yield "dead letter", f"{end.letter} (lock-worker dead show {end.letter})"


def _of_operators(view: JobView) -> Iterator[tuple[str, str]]:
    place, cancel = view.place, view.cancel
    if place and place.hold:
        yield "hold", f"{place.hold.selector}, {by_whom(place.hold.note)}"
    if place and cancel:
        yield "revoked" if cancel.is_revoke else "cancelled", f"{by_whom(cancel)} (no further call begins)"


def _notes(view: JobView) -> Iterator[str]:
    others = [place for place in view.places if place is not view.place]
    if others:
        yield f"{plural(len(view.places), 'message')} of this job have not ended; together they get one event:"
        for place in view.places:
            yield f"  {place.state} in {place.queue} ({place.where})"
    if view.place is not None and view.ends:
        yield f"A job of this id has ended already: {', '.join(_endings(view))}."
        yield "A worker drops the new message as a duplicate if it comes soon enough (DEDUPLICATE_SECONDS)."
    elif len(view.ends) > 1:
        yield f"There are {len(view.ends)} events of this id: {', '.join(_endings(view))}."


def _endings(view: JobView) -> list[str]:
    return [f"{end.result.outcome} at {_local(_parsed(end.result.finished_at))}" for end in view.ends]


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _local(time: datetime | None) -> str:
    return _NO_TIME if time is None else time.astimezone().strftime(_TIME)
