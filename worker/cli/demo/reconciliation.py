"""Compares what the demo sent with the results, and reports what does not add up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from worker.cli.demo.kinds import DROPPED, JUNK, KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sandbox.call_log import Call
    from worker.broker.state import State
    from worker.cli.demo.kinds import Kind, Sent
    from worker.cli.result import Result

_NAMED = 5


class Reconciliation:
    """The sent messages on one side, the result events on the other."""

    def __init__(self, sent: Sequence[Sent]) -> None:
        self.sent = sent
        self.results: list[Result] = []
        self.outcomes: Counter[str] = Counter()
        self._jobs = {each.job_id: each for each in sent if each.job_id is not None and each.kind.end != DROPPED}
        self._by_job: dict[str, list[Result]] = {}

    def add(self, result: Result) -> None:
        """Add a result event."""
        self.results.append(result)
        self.outcomes[result.outcome] += 1
        self._by_job.setdefault(result.job_id, []).append(result)

    def rows(self, dropped: int) -> Iterator[tuple[Kind, int, Mapping[str, int]]]:
        """Yield for each kind how many were sent, and how they ended. ``dropped`` counts the dropped duplicates."""
        sent = Counter(each.kind.name for each in self.sent)
        ends: dict[str, Counter[str]] = {kind.name: Counter() for kind in KINDS}
        for result in self.results:
            ends[self._kind_of(result).name][result.outcome] += 1
        for kind in KINDS:
            came = Counter({DROPPED: dropped}) if kind.end == DROPPED else ends[kind.name]
            yield kind, sent[kind.name], came

    def problems(self, state: State, calls: Sequence[Call]) -> Iterator[str]:
        """Yield everything that does not add up."""
        yield from self._without_event()
        yield from self._wrong_ends(state.totals.get("deduplicated", 0))
        yield from self._wrong_calls(calls)
        left = state.ready + state.waiting + state.in_flight
        if left:
            yield f"left in the queue: {left}"

    def _without_event(self) -> Iterator[str]:
        missing = [f"{job_id} ({each.kind.name})" for job_id, each in self._jobs.items() if job_id not in self._by_job]
        if missing:
            yield f"no event for {len(missing)} of {len(self._jobs)} jobs: {_some(missing)}"
        twice = [job_id for job_id, results in self._by_job.items() if len(results) > 1]
        if twice:
            yield f"more than one event for {len(twice)} of {len(self._jobs)} jobs: {_some(twice)}"

    def _wrong_ends(self, dropped: int) -> Iterator[str]:
        for kind, sent, came in self.rows(dropped):
            if dict(came) != {kind.end: sent}:
                yield f"{kind.name}: {sent} sent, all to end as {kind.end}; ended: {ends_text(came) or 'none'}"

    def _wrong_calls(self, calls: Sequence[Call]) -> Iterator[str]:
        """Compare the calls that the API saw with those that the events count; duplicates under way may call too.

        Events do not count calls that were refused for load, nor those of an outage.
        """
        seen = Counter(call.conversation_id for call in calls)
        uncounted = Counter(call.conversation_id for call in calls if call.answer == "429" or call.answer[:1] == "5")
        counted: Counter[str | None] = Counter()
        for result in self.results:
            counted[result.conversation_id or None] += result.attempts
        copied = {each.conversation_id for each in self.sent if each.kind.end == DROPPED}
        wrong = [
            f"{conversation_id} ({counted[conversation_id]} counted, {seen[conversation_id]} seen)"
            for conversation_id in sorted(filter(None, seen | counted))
            if not seen[conversation_id] - uncounted[conversation_id]
            <= counted[conversation_id]
            <= seen[conversation_id]
            and not (conversation_id in copied and seen[conversation_id] > counted[conversation_id])
        ]
        if wrong:
            yield f"calls counted and calls seen differ: {_some(wrong)}"
        strangers = sum(call.authorization != "right" for call in calls)
        if strangers:
            yield f"{strangers} of {len(calls)} calls came without the right token"

    def _kind_of(self, result: Result) -> Kind:
        sent = self._jobs.get(result.job_id)
        return sent.kind if sent is not None else JUNK


def ends_text(ends: Mapping[str, int]) -> str:
    """Return a text such as ``12 locked, 3 refused``."""
    return ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items(), key=lambda item: -item[1]))


def _some(texts: Iterable[str]) -> str:
    shown = list(texts)
    more = len(shown) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {more} more" if more > 0 else "")
