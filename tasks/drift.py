"""What is recorded of an answer that deviates from the documented shape: which field, and how, but no value of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tasks.managem.conversation import DOCUMENTED_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

#: The field of a deviation that is in no documented place.
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Deviation:
    """A place where an answer deviates.

    Attributes:
        field: the documented field, such as ``lastMessage.viewedAt``, or :data:`OTHER`; one of a few values.
        path: the place; an undocumented name in it is ``*``.
        problem: what is wrong, or what was done about it.
    """

    field: str
    path: str
    problem: str


class DriftObserver(Protocol):
    """Counts and logs deviations."""

    def __call__(self, job: str, deviations: Sequence[Deviation], /) -> None:
        """Called once for each answer that deviates, from any thread."""


def parse(note: str) -> Deviation:
    """Return the deviation that a note such as ``userA.id: what is wrong`` tells of."""
    path, _, problem = note.partition(": ")
    return Deviation(path if path in DOCUMENTED_FIELDS else OTHER, path, problem)


def log(job: str, deviations: Sequence[Deviation]) -> None:
    """Log each deviation. The worker limits these lines to one for each field and hour."""
    for deviation in deviations:
        fields = {"job": job, "field": deviation.field, "path": deviation.path, "problem": deviation.problem}
        logger.warning("answer_drift", extra=fields)
