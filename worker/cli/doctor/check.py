"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        name: a stable name, for programs.
        level: how it is.
        text: what was found, in one sentence.
        mend: what to do; empty where there is nothing to do.
    """

    name: str
    level: Level
    text: str
    mend: str = ""


def ok(name: str, text: str) -> Check:
    """Return a check that found all well."""
    return Check(name, "ok", text)


def warning(name: str, text: str, mend: str) -> Check:
    """Return a check that found what a worker can live with."""
    return Check(name, "warning", text, mend)


def problem(name: str, text: str, mend: str) -> Check:
    """Return a check that found why a worker would not work, or would not keep its promises."""
    return Check(name, "problem", text, mend)
