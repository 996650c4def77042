"""Which jobs an operator means: those that have all the given fields."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from worker.broker.keys import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.job import Job

_LAST_OF_FOUR_DIGITS = 0xFFFF


@dataclass(frozen=True, slots=True)
class Selector:
    """Matches jobs. Each field that is given must match; one without any field matches all jobs.

    Attributes:
        rule: the job's ``rule_id``.
        actor: its ``actor``.
        policy: one of its ``policies``.
        conversation: its ``conversation_id``.
    """

    rule: str | None = None
    actor: str | None = None
    policy: str | None = None
    conversation: str | None = None

    def matches(self, job: Job) -> bool:
        """Return whether a job has all the given fields."""
        return (
            (self.rule is None or job.rule_id == self.rule)
            and (self.actor is None or job.actor == self.actor)
            and (self.policy is None or self.policy in (job.policies or ()))
            and (self.conversation is None or job.conversation_id == self.conversation)
        )

    @property
    def fields(self) -> dict[str, str]:
        """The given fields, by name."""
        names = ("rule", "actor", "policy", "conversation")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def digest(self) -> str:
        """A short name, the same for equal selectors."""
        return _digest(self)

    def __str__(self) -> str:
        """Return it as the options of a command, as a shell reads them."""
        return " ".join(f"--{name} {_quoted(value)}" for name, value in self.fields.items()) or "--all"


def _quoted(value: str) -> str:
    """Return a value as one word of a shell's; what is not printable as bash and zsh read it in ``$'...'``."""
    if value.isprintable():
        return shlex.quote(value)
    return f"$'{''.join(map(_escaped, value))}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) <= _LAST_OF_FOUR_DIGITS else f"\\U{ord(character):08x}"


@lru_cache(maxsize=1024)  # asked for each job that is set aside
def _digest(selector: Selector) -> str:
    return digest(json.dumps(selector.fields, sort_keys=True))


def read_selector(found: object) -> Selector | None:
    """Return the selector in a JSON object of the controls; None if something else is there."""
    if not isinstance(found, dict):
        return None
    fields: Mapping[str, object] = {name: found[name] for name in found if name in Selector.__slots__}
    if len(fields) != len(found) or not all(isinstance(value, str) for value in fields.values()):
        return None
    return Selector(**{name: str(value) for name, value in fields.items()})
