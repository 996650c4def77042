"""Which jobs are dry runs by setting: all of them (DRY_RUN), or those of some rules (RULES_DRY_RUN).

A job that a setting makes a dry run is one in all that follows, as if its producer had asked for it: it makes no call,
ends as ``would_lock``, and its id is remembered as a dry run's. Its event contains the job as received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from settings import Settings


@dataclass(frozen=True, slots=True)
class Shadow:
    """The jobs that are dry runs by setting.

    Attributes:
        is_for_all: every job is one.
        rules: the rule ids whose jobs are.
    """

    is_for_all: bool = False
    rules: frozenset[str] = frozenset()

    def covers(self, rule_id: object) -> bool:
        """Return True if a job of this rule is a dry run by setting; ``rule_id`` may be of any type, or None."""
        return self.is_for_all or (isinstance(rule_id, str) and rule_id in self.rules)


NO_SHADOW = Shadow()


def shadow_of(settings: Settings) -> Shadow:
    """Return what DRY_RUN and RULES_DRY_RUN say."""
    rules = settings.RULES_DRY_RUN
    return Shadow(settings.DRY_RUN, frozenset(rules.split(",")) if rules else frozenset())
