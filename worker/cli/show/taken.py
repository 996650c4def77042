"""Reads the records of the jobs that workers have taken and not ended, over the indexes that name them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tasks import progress
from tasks.history import HOLD
from worker.cli.paging import PageSize
from worker.cli.show.job_view import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from redis import Redis

    from tasks.history import History
    from tasks.message import ParsedJob
    from worker.broker.keys import Keys
    from worker.cli.show.job_view import State
    from worker.message.controls import Control

#: No page has more jobs, so that none holds the server up.
_MOST_JOBS = 250
_FIELDS = ("raw", "first", "attempts", "crashes", "progress", "lease_token", "size")
#: A lease token is the worker's name and a number.
_LEASE_TOKEN = re.compile(r"(?P<worker>[^ ]+)\.\d+")


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a job, and where its name was found.

    Attributes:
        ref: its name.
        state: what that place means.
        where: the place, as ``lock-worker status`` names it.
        score: of a zset; None: it was found in a list.
        fields: as they stand in Redis; None: it is not there.
        hold: the digest of the hold that has set it aside; empty: none has.
    """

    ref: str
    state: State
    where: str
    score: float | None
    fields: dict[str, bytes | None]
    hold: str = ""

    @property
    def raw(self) -> bytes:
        """The message, or its beginning."""
        return self.fields["raw"] or b""

    @property
    def size(self) -> int:
        """The size of the whole message in bytes."""
        return _number(self.fields["size"]) or len(self.raw)

    def place(self, job: ParsedJob, queue: str, holds: Mapping[str, Control]) -> Place:
        """Return what it says of its job; ``holds`` are those in Redis, by their digests."""
        known = progress.from_bytes(self.fields["progress"] or b"")
        token = _LEASE_TOKEN.fullmatch((self.fields["lease_token"] or b"").decode(errors="replace"))
        score = None if self.score is None else round(self.score)
        return Place(
            state=self.state,
            queue=queue,
            where=self.where,
            ref=self.ref,
            conversation_id=job.subject,
            rule_id=rule_of(job),
            attempts=_number(self.fields["attempts"]) or 0,
            crashes=_number(self.fields["crashes"]) or 0,
            received_ms=_number(self.fields["first"]),
            due_ms=score if self.state == "delayed" else None,
            lease_ms=score if self.state == "in_flight" else None,
            held_ms=_held_since(known.history) if self.state == "held" else None,
            hold=holds.get(self.hold),
            worker=token["worker"] if token and self.state == "in_flight" else None,
            problem=known.problem,
            history=known.history,
            is_dry_run=job.is_dry_run,
        )


def taken_jobs(client: Redis, keys: Keys) -> Iterator[list[Record]]:
    """Yield the records of a queue in pages, in the order in which a job moves on; a moving one may come twice."""
    for name, key in (("requeued", keys.requeued), ("retries", keys.retries), ("suspects", keys.suspects)):
        for refs in _refs_in_list(client, key):
            yield from _records(client, keys, [(ref, b"", "ready", name, None) for ref in refs])
    indexes: tuple[tuple[State, str, str], ...] = (
        ("in_flight", "in flight", keys.leases),
        ("delayed", "delayed", keys.delayed),
        ("held", "held", keys.held),
    )
    for state, name, key in indexes:
        for members in _members(client, key):
            yield from _records(client, keys, [(*_parts(member, state), state, name, at) for member, at in members])


def still_taken(client: Redis, keys: Keys, refs: Iterable[str]) -> set[str]:
    """Return those of some jobs whose records are still there."""
    names = [*refs]
    with client.pipeline(transaction=False) as look:
        for ref in names:
            look.exists(f"{keys.record_prefix}{ref}")
        return {ref for ref, there in zip(names, look.execute(), strict=True) if there}


def rule_of(job: ParsedJob) -> str | None:
    """Return the rule that a job names; None: none that is a text."""
    rule = (job.received_fields or {}).get("rule_id")
    return rule if isinstance(rule, str) else None


def time_at(milliseconds: float) -> datetime:
    """Return a time of the server's clock."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _refs_in_list(client: Redis, key: str) -> Iterator[list[bytes]]:
    """Yield the refs in a list, the last first: workers take the first, and the others keep their place from there."""
    end = -1
    while True:
        refs: Any = client.lrange(key, end - _MOST_JOBS + 1, end)
        if not refs:
            return
        yield refs
        if len(refs) < _MOST_JOBS:
            return
        end -= len(refs)


def _members(client: Redis, key: str) -> Iterator[list[tuple[bytes, float]]]:
    """Yield the members of a zset with their scores; a scan misses none that is there all the time."""
    cursor = 0
    while True:
        answer: Any = client.zscan(key, cursor, count=_MOST_JOBS)
        cursor, members = answer
        if members:
            yield members
        if cursor == 0:
            return


def _parts(member: bytes, state: State) -> tuple[bytes, bytes]:
    """Return the ref that a member of a zset names, and of a held job also the digest of its hold."""
    if state != "held":
        return member, b""
    hold, _, ref = member.partition(b":")
    return ref, hold


def _held_since(history: History) -> int | None:
    """Return since when a job is set aside. The record's own time is on a clock that stands still in a pause."""
    last = history[-1] if history else None
    return last.at_ms if last is not None and last.reason == HOLD else None


def _records(
    client: Redis, keys: Keys, found: list[tuple[bytes, bytes, State, str, float | None]]
) -> Iterator[list[Record]]:
    size, start = PageSize(_MOST_JOBS), 0
    while start < len(found):
        page = found[start : start + size.count]
        start += len(page)
        names = [ref.decode(errors="replace") for ref, *_ in page]
        with client.pipeline(transaction=False) as look:
            for name in names:
                look.hmget(f"{keys.record_prefix}{name}", _FIELDS)
            answers = look.execute(raise_on_error=False)
        records = [
            Record(name, state, where, score, dict(zip(_FIELDS, values, strict=True)), hold.decode(errors="replace"))
            for name, (_, hold, state, where, score), values in zip(names, page, answers, strict=True)
            if isinstance(values, list) and values[0] is not None
        ]
        size.saw_sizes([len(record.raw) for record in records])
        yield records


def _number(text: bytes | None) -> int | None:
    return int(text) if text and re.fullmatch(rb"\d{1,15}", text) else None
