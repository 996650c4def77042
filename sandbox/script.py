"""Decides when the sandbox API fails: rules, and the choice among them.

All matching delays add up; of the other matching rules only the first one applies. Chance is drawn from the seed, the
rule, the id and the number of the call, so a call meets the same fate in every run of a script, whatever order calls
arrive in.
"""

from __future__ import annotations

import math
import time
from fnmatch import fnmatchcase
from random import Random
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sandbox.faults import AnyAnswer, AnyDelay, Delay, DelayBetween, DelayLognormal, Drop, Fault, Respond

if TYPE_CHECKING:
    from collections.abc import Callable


class Rule(BaseModel):
    """One fault and the calls that it happens to. Fields that are left out do not narrow the rule.

    An id's calls are numbered from 1 as they come, those with a wrong token included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    then: Fault
    id: str | None = Field(default=None, description="This conversation alone.")
    ids: str | None = Field(default=None, description="Conversations whose id fits the pattern, as in `missing*`.")
    nth_call: int | None = Field(default=None, ge=1, description="Only this call of an id.")
    first_calls: int | None = Field(default=None, ge=1, description="Only this many first calls of an id.")
    probability: float = Field(default=1.0, gt=0, le=1, description="The share of matching calls.")
    times: int | None = Field(default=None, ge=1, description="At most so often altogether.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.id is not None and self.ids is not None:
            raise ValueError("give id or ids, not both")
        narrowed_to = (self.id, self.ids, self.nth_call, self.first_calls)
        if isinstance(self.then, Drop) and self.then.at == "accept" and narrowed_to != (None, None, None, None):
            raise ValueError("a drop at the accept comes before any request, so it cannot match ids or calls")
        return self

    def covers(self, conversation_id: str, call: int) -> bool:
        """Return True if the rule covers this call, apart from its probability and ``times``."""
        return (
            (self.id is None or self.id == conversation_id)
            and (self.ids is None or fnmatchcase(conversation_id, self.ids))
            and (self.nth_call is None or self.nth_call == call)
            and (self.first_calls is None or call <= self.first_calls)
        )


class Quota(BaseModel):
    """The calls that the API accepts in each window of time; further ones are answered 429.

    Windows follow each other without a gap, as the counters of most rate limiters do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int = Field(ge=0)
    seconds: float = Field(default=1.0, gt=0)
    retry_after: str | None = Field(default=None, description="The header, verbatim; left out without it.")


class Script(BaseModel):
    """The rules of a sandbox API in order, the seed of their random choices, and its quota."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = ()
    seed: int = 0
    quota: Quota | None = None


class Chooser:
    """Chooses what happens to a call or a connection. Its only state is how often each rule and the quota were used.

    ``clock`` is monotonic seconds.
    """

    def __init__(self, script: Script, clock: Callable[[], float] = time.monotonic) -> None:
        self.script = script
        self._clock = clock
        self._window, self._room = -1, 0
        self._used = [0] * len(script.rules)
        self._delays: list[tuple[int, Rule, AnyDelay]] = []
        self._answers: list[tuple[int, Rule, AnyAnswer]] = []
        self._accepts: list[tuple[int, Rule, Drop]] = []
        for index, rule in enumerate(script.rules):
            fault = rule.then
            if isinstance(fault, Delay | DelayBetween | DelayLognormal):
                self._delays.append((index, rule, fault))
            elif isinstance(fault, Drop) and fault.at == "accept":
                self._accepts.append((index, rule, fault))
            else:
                self._answers.append((index, rule, fault))

    def delay_seconds(self, conversation_id: str, call: int) -> float:
        """Return how long this call waits for its answer."""
        total_ms = 0.0
        for index, rule, delay in self._delays:
            if rule.covers(conversation_id, call) and self._falls(index, rule, conversation_id, call):
                total_ms += self._draw_ms(delay, f"{index}:delay:{call}:{conversation_id}")
        return total_ms / 1000

    def answer(self, conversation_id: str, call: int) -> AnyAnswer | None:
        """Return the fault that this call gets in place of the right answer, or None."""
        for index, rule, fault in self._answers:
            if rule.covers(conversation_id, call) and self._falls(index, rule, conversation_id, call):
                return fault
        return None

    def over_quota(self) -> Respond | None:
        """Use the quota for a call; return the refusal if the quota is used up."""
        quota = self.script.quota
        if quota is None:
            return None
        window = int(self._clock() / quota.seconds)
        if window != self._window:
            self._window, self._room = window, quota.calls
        self._room -= 1
        if self._room >= 0:
            return None
        return Respond(status=429, headers={} if quota.retry_after is None else {"Retry-After": quota.retry_after})

    def accept(self, connection: int) -> Drop | None:
        """Return how the connection of that number is dropped at once, or None."""
        for index, rule, drop in self._accepts:
            if self._falls(index, rule, "", connection):
                return drop
        return None

    def _falls(self, index: int, rule: Rule, key: str, number: int) -> bool:
        if rule.times is not None and self._used[index] >= rule.times:
            return False
        if rule.probability < 1 and self._random(f"{index}:{number}:{key}").random() >= rule.probability:
            return False
        self._used[index] += 1
        return True

    def _draw_ms(self, delay: AnyDelay, key: str) -> float:
        match delay:
            case Delay():
                return delay.ms
            case DelayBetween():
                return self._random(key).uniform(delay.low_ms, delay.high_ms)
            case DelayLognormal():
                return self._random(key).lognormvariate(math.log(delay.median_ms), delay.sigma)

    def _random(self, key: str) -> Random:
        return Random(f"{self.script.seed}:{key}")
