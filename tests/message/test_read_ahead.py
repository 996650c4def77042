"""A message that is about to be taken is read once, and what was read of it is used for it and for no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tasks.message import Rejection
from tasks.outcome import Problem, ProblemType
from worker.message.decode import ReadAhead

if TYPE_CHECKING:
    from tasks.message import ParsedJob

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Reader:
    """Makes something new of each message that it reads, and keeps what it was asked."""

    def __init__(self) -> None:
        self.read: list[tuple[bytes, int]] = []
        self.moments: list[datetime] = []

    def __call__(self, raw: bytes, *, size: int, now: datetime) -> ParsedJob:
        self.read.append((raw, size))
        self.moments.append(now)
        return Rejection(f"job-{len(self.read)}", None, None, Problem(ProblemType.UNDECODABLE, ""), None, None)


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_a_message_that_was_looked_at_before_it_was_taken_is_not_read_again(reader: Reader) -> None:
    read = ReadAhead(reader)

    seen = read.look(b"a message", now=NOW)

    assert read(b"a message", size=9, now=NOW) is seen
    assert reader.read == [(b"a message", 9)]


def test_another_message_that_was_taken_in_its_place_is_read(reader: Reader) -> None:
    read = ReadAhead(reader)
    seen = read.look(b"a message", now=NOW)

    assert read(b"another", size=7, now=NOW) is not seen
    assert reader.read == [(b"a message", 9), (b"another", 7)]


def test_the_same_bytes_taken_twice_are_two_jobs(reader: Reader) -> None:
    """A message without an id gets one of its own each time that it is read."""
    read = ReadAhead(reader)
    read.look(b"a message", now=NOW)

    assert read(b"a message", size=9, now=NOW).id != read(b"a message", size=9, now=NOW).id


def test_a_message_that_was_cut_off_is_never_taken_for_the_whole_one(reader: Reader) -> None:
    read = ReadAhead(reader)
    read.look(b"a message", now=NOW)

    read(b"a mess", size=9, now=NOW)

    assert reader.read == [(b"a message", 9), (b"a mess", 9)]


def test_a_message_that_is_taken_long_after_it_was_looked_at_is_read_as_of_then(reader: Reader) -> None:
    """It may have expired meanwhile."""
    read = ReadAhead(reader)
    read.look(b"a message", now=NOW)
    later = NOW + timedelta(minutes=5)

    read(b"a message", size=9, now=later)

    assert reader.moments == [NOW, later]
