"""What ``lock-worker status`` says of a fleet beside its numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that an operator should know.

    Attributes:
        code: a stable name, for programs.
        text: what is the case, in one sentence.
        advice: what to do, in one or two.
    """

    code: str
    text: str
    advice: str


class Problem(Condition):
    """What is wrong: the fleet is not well."""

    __slots__ = ()


class StatusNote(Condition):
    """What somebody has set on purpose: the fleet is well all the same."""

    __slots__ = ()
